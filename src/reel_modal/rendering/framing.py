"""The moving part of the picture: where it is at a moment, where it goes in the output, and how it gets there.

Pure work on arrays, plane by plane in YUV; it must not know files, clocks or jobs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np

from reel_modal.frames import PLANAR, AnyPlanes, ColorTags, PixelFormat, U8Array, matrix_or_assumed, sample_views
from reel_modal.interpolation import Track
from reel_modal.rendering.ellipse import Box
from reel_modal.rendering.opencv import exact_factor, load_cv2
from reel_modal.rendering.resampling import Window, resample
from reel_modal.rendering.yuv_color import yuv_of
from reel_modal.schema import Fit, FramingRequest

__all__ = ["CropTrack", "FramingRenderer", "Layout", "Placement", "color_for_height", "mix", "output_size"]

_SMALLEST_WINDOW_PX: Final = 1.0
_DEFAULT_SIZE: Final = (810, 1440)
_SMALLEST_SIDE_PX: Final = 16
_LARGEST_SIDE_PX: Final = 8192
# How much smaller a background is blurred than it is shown, and how softly.
_BLUR_FACTOR: Final = 16
_BLUR_SIGMA: Final = 2.5
# How much smaller it is than it is shown when straight lines between its samples do not show any more.
_LINES_FACTOR: Final = 4


class CropTrack:
    """The crop of a request through time, within the frame.

    Args:
        request: Its keyframes; without any, the crop is the whole frame.
        frame_size: (width, height) of the upright frames; the request's own space is scaled to it per axis.
    """

    def __init__(self, request: FramingRequest, frame_size: tuple[int, int]) -> None:
        self.frame_size: tuple[int, int] = frame_size
        width, height = request.video_size or frame_size
        across, down = frame_size[0] / width, frame_size[1] / height
        whole = (0.0, 0.0, float(frame_size[0]), float(frame_size[1]))
        points = [
            (keyframe.x * across, keyframe.y * down, keyframe.width * across, keyframe.height * down)
            for keyframe in request.crop
        ]
        times = [keyframe.time_seconds for keyframe in request.crop]
        self._track = Track(times or [Fraction(0)], points or [whole], request.interpolation)

    def at(self, seconds: Fraction) -> Window:
        """Return the crop at `seconds`, moved inside of the frame where it reaches out of it."""
        left, top, width, height = self._track.at(seconds)
        width = min(max(width, _SMALLEST_WINDOW_PX), self.frame_size[0])
        height = min(max(height, _SMALLEST_WINDOW_PX), self.frame_size[1])
        return Window(
            min(max(left, 0.0), self.frame_size[0] - width),
            min(max(top, 0.0), self.frame_size[1] - height),
            width,
            height,
        )

    def still(self, start: Fraction, end: Fraction) -> Window | None:
        """Return the one crop of all moments from `start` to `end`, None where it moves or may move."""
        moments = [start, end, *(time for time in self._track.times if start < time < end)]
        if self._track.interpolation != "linear":
            moments += self._track.times  # a spline swings by its neighbours
        windows = {self.at(moment) for moment in moments}
        return windows.pop() if len(windows) == 1 else None

    def largest(self) -> Window:
        """Return the largest crop among the keyframes."""
        return max(map(self.at, self._track.times), key=lambda window: window.width * window.height)


@dataclass(frozen=True, slots=True)
class Placement:
    """What part of the source fills what part of the output.

    Attributes:
        source: In pixels of the frame.
        target: In pixels of the output; its borders are even, so that chroma has them as well.
    """

    source: Window
    target: Box


@dataclass(frozen=True, slots=True)
class Layout:
    """How a crop fills the output, whose pixels are square, without being distorted.

    Attributes:
        pixel_aspect: Width / height of a pixel of the source.
        size: (width, height) of the output, even.
        fit: Cut the crop to the shape of the output, or show all of it.
    """

    pixel_aspect: Fraction
    size: tuple[int, int]
    fit: Fit

    def place(self, crop: Window) -> Placement:
        """Return what of `crop` goes where."""
        width, height = self.size
        if self.fit == "contain":
            wide = crop.width * float(self.pixel_aspect)
            scale = min(width / wide, height / crop.height)
            shown = (_even(wide * scale), _even(crop.height * scale))
            # A bar of a single pixel is a rounding, and no bar.
            if shown[0] < width - 2 or shown[1] < height - 2:
                left, top = (width - shown[0]) // 4 * 2, (height - shown[1]) // 4 * 2
                return Placement(crop, Box(left, top, left + shown[0], top + shown[1]))
        return Placement(self.covering(crop), Box(0, 0, width, height))

    def covering(self, crop: Window) -> Window:
        """Return the middle part of `crop` that has the shape of the output."""
        shape = float(self.size[0] / (self.size[1] * self.pixel_aspect))
        width, height = min(crop.width, crop.height * shape), min(crop.height, crop.width / shape)
        return Window(crop.left + (crop.width - width) / 2, crop.top + (crop.height - height) / 2, width, height)


def output_size(request: FramingRequest, track: CropTrack, pixel_aspect: Fraction) -> tuple[int, int]:
    """Return (width, height) of the output: as asked for, or with the asked shape at the source's resolution."""
    if request.output_size is not None:
        return request.output_size
    if request.aspect is None:
        return _DEFAULT_SIZE
    shape, crop = float(request.aspect), track.largest()
    width, height = crop.width * float(pixel_aspect), crop.height
    if (width > height * shape) == (request.fit == "cover"):
        width = height * shape
    else:
        height = width / shape
    shrink = min(1.0, _LARGEST_SIDE_PX / max(width, height))
    return max(_SMALLEST_SIDE_PX, _even(width * shrink)), max(_SMALLEST_SIDE_PX, _even(height * shrink))


def color_for_height(color: ColorTags, height: int, shown_height: int) -> ColorTags:
    """Return the tags of a picture of `height` that is shown at `shown_height`, so that it keeps its colours.

    Players guess the matrix of an untagged picture by its height: where the guess would change, it is written.
    """
    guess = matrix_or_assumed(color, height)
    return color if matrix_or_assumed(color, shown_height) == guess else replace(color, matrix=guess)


class FramingRenderer:
    """Puts the crop of yuv420p frames into frames of the output.

    Every plane is resampled once, on its own (see `resampling`). Chroma is taken from where it lies in the source,
    and put where players expect it, on the left pixels.

    Args:
        track: Where the crop is.
        layout: Where it goes.
        background: What is beside it: `blur` or `#rrggbb`.
        color: Tags of the output.
        chroma_origin: Where the first chroma sample of the source lies, in luma pixels from left and top.
        pixel_format: Of the frames and of the output: 4:2:0 in 8 or 10 bits.

    Example:
        >>> layout = Layout(Fraction(1), (810, 1440), "cover")
        >>> framing = FramingRenderer(track, layout, "blur", ColorTags(), (0.5, 1.0))
        >>> framing.render(frame.planes, seconds, output)
    """

    def __init__(
        self,
        track: CropTrack,
        layout: Layout,
        background: str,
        color: ColorTags,
        chroma_origin: tuple[float, float],
        *,
        pixel_format: PixelFormat = "yuv420p",
    ) -> None:
        self._track = track
        self._layout = layout
        self._format: PixelFormat = pixel_format
        bits = PLANAR[pixel_format].bits
        self._fill = None if background == "blur" else yuv_of(background, color, layout.size[1], bits)
        self._chroma_origin = chroma_origin

    def render(self, planes: AnyPlanes, seconds: Fraction, output: U8Array) -> None:
        """Fill `output` with what the crop shows of `planes` at `seconds`.

        Args:
            planes: uint8, or uint16 for 10 bits: Y (H, W), U and V ((H+1)//2, (W+1)//2), C-contiguous.
            seconds: Time of the frame, from the first picture on.
            output: uint8, (frame_bytes,), C-contiguous: all planes of the output behind one another.
        """
        crop = self._track.at(seconds)
        placement = self._layout.place(crop)
        targets = sample_views(output, self._format, self._layout.size)
        if placement.target != Box(0, 0, *self._layout.size):
            self._paint_background(planes, crop, targets)
        luma, chroma = self._windows(placement.source, placement.target)
        for index, (plane, target) in enumerate(zip(planes, targets, strict=True)):
            box = _halved(placement.target) if index else placement.target
            resample(plane, chroma if index else luma, target[box.slices])

    def _windows(self, source: Window, target: Box) -> tuple[Window, Window]:
        """Return the part of the luma plane and the part of the chroma planes that fill `target`.

        A chroma sample i lies at 2i + origin pixels in the source, and j at 2j + (1/2, 1) in the output.
        """
        step = source.width / (target.right - target.left)
        left = (source.left + 1 - self._chroma_origin[0]) / 2 - step / 4
        top = (source.top + 1 - self._chroma_origin[1]) / 2
        return source, Window(left, top, source.width / 2, source.height / 2)

    def _paint_background(self, planes: AnyPlanes, crop: Window, targets: AnyPlanes) -> None:
        """Fill the whole output with the colour, or with the crop itself, large and soft."""
        if self._fill is not None:
            for target, value in zip(targets, self._fill, strict=True):
                target[:] = value
            return
        cv2 = load_cv2()
        luma, chroma = self._windows(self._layout.covering(crop), Box(0, 0, *self._layout.size))
        for index, (plane, target) in enumerate(zip(planes, targets, strict=True)):
            height, width = target.shape
            small = np.empty((max(2, height // _BLUR_FACTOR), max(2, width // _BLUR_FACTOR)), target.dtype)
            resample(plane, chroma if index else luma, small)
            soft = cv2.GaussianBlur(small, (0, 0), _BLUR_SIGMA)
            # OpenCV's cubics differ between processors. Lines do not, and do not show after the first enlargement.
            half_way = np.empty((max(2, height // _LINES_FACTOR), max(2, width // _LINES_FACTOR)), target.dtype)
            resample(soft, Window(0, 0, small.shape[1], small.shape[0]), half_way)
            cv2.resize(half_way, (width, height), dst=target, interpolation=cv2.INTER_LINEAR_EXACT)


def mix(older: U8Array, newer: U8Array, share: float, target: U8Array, pixel_format: PixelFormat = "yuv420p") -> None:
    """Fill the frame `target` with `share` of the frame `newer`, 0..1, and the rest of `older`."""
    share = exact_factor(share)
    kind = np.uint8 if PLANAR[pixel_format].bits == 8 else np.dtype("<u2")
    below, above, made = (frame.view(kind) for frame in (older, newer, target))
    load_cv2().addWeighted(below, 1 - share, above, share, 0, dst=made)


def _halved(box: Box) -> Box:
    return Box(box.left // 2, box.top // 2, box.right // 2, box.bottom // 2)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))
