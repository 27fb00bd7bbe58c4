"""Draw the layers of a reel: fetch and prepare each image once, and blend it onto the frames that show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np

from reel_modal._rendering.images import MOST_BYTES, decoded_image
from reel_modal._rendering.layers import LayerImage
from reel_modal.errors import InvalidMediaError, MediaError, RequestError, StorageError
from reel_modal.functions.context import JobContext
from reel_modal.functions.reel_plan import ReelPlan, named_error
from reel_modal.functions.rendered_format import planes_of
from reel_modal.media.frame_buffers import FrameBufferPool
from reel_modal.media.frames import Frame, U8Array
from reel_modal.schema import ReelLayer, ReelRequest
from reel_modal.schema._fields import join
from reel_modal.schema._numbers import shown
from reel_modal.schema.reel_timeline import faded_share

__all__ = ["ReelLayers", "layer_frames"]

_MOST_FRAME_AREAS: Final = 8
_MOST_HEIGHTS: Final = 2
# (horizontal, vertical) position of each anchor on the image, 0 to 1.
_ACROSS: Final = {"left": 0.0, "right": 1.0}
_DOWN: Final = {"top": 0.0, "bottom": 1.0}


@dataclass(frozen=True, slots=True)
class _PlacedLayer:
    """A layer on the timeline. Frames are those of the reel."""

    image: LayerImage
    first: int
    end: int
    fade_in: int
    fade_out: int
    opacity: float

    def strength(self, frame: int) -> float:
        """Return the opacity of the layer in a frame, 0 to 1; it is above 0 during the fades."""
        return self.opacity * float(faded_share(frame, (self.first, self.end), self.fade_in, self.fade_out))


class ReelLayers:
    """The layers of a reel, in the size and color of its frames.

    Args:
        request: The request.
        plan: Its plan.
        context: Context of the job.

    Raises:
        RequestError: A layer begins after the end of the reel, is outside of the frame, or is too large.
        InvalidMediaError: A file is not an accepted image; the message names the layer.
        StorageError: An image could not be fetched; the message names the layer.
    """

    def __init__(self, request: ReelRequest, plan: ReelPlan, context: JobContext) -> None:
        self._layers: list[_PlacedLayer] = []
        self._pool: FrameBufferPool | None = None
        area = 0
        for index, layer in enumerate(request.layers):
            context.raise_if_cancelled()
            with _naming_layer(request, index):
                placed = _placed(layer, plan, context)
                area += placed.image.pixels
                if area > _MOST_FRAME_AREAS * plan.size[0] * plan.size[1]:
                    raise RequestError("width", f"makes the layers larger than {_MOST_FRAME_AREAS} frames together")
            self._layers.append(placed)

    def drawn(self, frame: Frame, number: int) -> Frame:
        """Return a frame of the reel with its layers; the frame itself, unchanged, if it has none.

        A frame may be shown several times, and a pipe may still read it. So the layers are drawn on a copy, which is
        valid until the next call.

        Args:
            frame: The frame.
            number: Its number in the reel, from 0.
        """
        visible = [(layer, strength) for layer in self._layers if (strength := layer.strength(number)) > 0]
        if not visible:
            return frame
        copy = self._copy(frame)
        planes = planes_of(copy)
        for layer, strength in visible:
            layer.image.draw(planes, strength)
        return copy

    def _copy(self, frame: Frame) -> Frame:
        if not FrameBufferPool.usable():
            return replace(frame, data=frame.data.copy(), shared=None)
        if self._pool is None:
            self._pool = FrameBufferPool(frame.data.size)
        shared = self._pool.take()
        data: U8Array = shared.data
        np.copyto(data, frame.data)
        return replace(frame, data=data, shared=shared)


def _placed(layer: ReelLayer, plan: ReelPlan, context: JobContext) -> _PlacedLayer:
    """Fetch the image of a layer, and return it at its place; paths of errors begin at the layer."""
    first, end, fades = layer_frames(layer, plan)
    stored = context.open(layer.input_key)
    if stored.info.bytes > MOST_BYTES:
        raise InvalidMediaError(f"the image has {stored.info.bytes} bytes; at most {MOST_BYTES} are accepted")
    stored.ensure()
    image = decoded_image(stored.path.read_bytes())
    frame_width, frame_height = plan.size
    width = max(1, round(layer.width * frame_width))
    height = max(1, round(Fraction(width * image.shape[0], image.shape[1])))
    if height > _MOST_HEIGHTS * frame_height:
        raise RequestError("width", f"makes the image {height} pixels high, for a frame of {frame_height}; reduce it")
    across, down = _anchor(layer)
    x = across if layer.x is None else layer.x
    y = down if layer.y is None else layer.y
    # Even, so that the chroma samples of the image are those of the frame.
    corner = (
        2 * round((x * frame_width - across * width) / 2),
        2 * round((y * frame_height - down * height) / 2),
    )
    for path, place, side, frame_side in zip("xy", corner, (width, height), plan.size, strict=True):
        if not -side < place < frame_side:
            raise RequestError(path, "puts the image outside of the frame")
    picture = LayerImage(
        image,
        size=(width, height),
        corner=corner,
        frame_size=plan.size,
        color=plan.color,
        pixel_format=plan.pixel_format,
    )
    return _PlacedLayer(picture, first, end, *fades, layer.opacity)


def _anchor(layer: ReelLayer) -> tuple[float, float]:
    """Return the position of the anchor on the image, as fractions of its width and height."""
    words = layer.anchor.split("_")
    across = next((_ACROSS[word] for word in words if word in _ACROSS), 0.5)
    return across, next((_DOWN[word] for word in words if word in _DOWN), 0.5)


def layer_frames(layer: ReelLayer, plan: ReelPlan) -> tuple[int, int, tuple[int, int]]:
    """Return the first frame of a layer, its last one, exclusive, and the number of frames that fade in and out."""
    fps, count = plan.timeline.fps, plan.timeline.frame_count
    first = round(layer.start_seconds * fps)
    if first >= count:
        seconds = shown(plan.timeline.duration_seconds)
        raise RequestError("start_seconds", f"is {shown(layer.start_seconds)}; the reel ends at {seconds} s")
    end = count if layer.end_seconds is None else max(first + 1, round(layer.end_seconds * fps))
    faded = round(layer.fade_in_seconds * fps), round(layer.fade_out_seconds * fps)
    if layer.end_seconds is None and layer.fade_in_seconds + layer.fade_out_seconds > (end - first) / fps:
        path = "fade_out_seconds" if layer.fade_out_seconds else "fade_in_seconds"
        raise RequestError(path, f"is too long: the layer is shown for {shown((end - first) / fps)} s")
    return first, end, faded


@contextmanager
def _naming_layer(request: ReelRequest, index: int) -> Iterator[None]:
    """Run the block, and name the layer in the errors that it raises."""
    try:
        yield
    except RequestError as error:
        raise RequestError(join(join("layers", index), error.path), error.problem) from error
    except (MediaError, StorageError) as error:
        raise named_error(error, f"layers[{index}] ({request.layers[index].input_key!r})") from error
