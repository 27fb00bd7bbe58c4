"""Moving crops of YUV frames: crop position over time, placement in the output, and resampling plane by plane."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np

from reel_modal._rendering.ellipse import Box
from reel_modal._rendering.opencv import exact_factor, load_cv2
from reel_modal._rendering.resampling import Rect, resample
from reel_modal._rendering.yuv import yuv_of
from reel_modal.media.frames import (
    PLANAR,
    AnyPlanes,
    ColorTags,
    PixelFormat,
    U8Array,
    matrix_or_assumed,
    sample_views,
)
from reel_modal.schema import Fit, FramingRequest
from reel_modal.schema.interpolation import KeyframeTrack

__all__ = ["CropTrack", "FramingRenderer", "Layout", "Placement", "color_for_height", "mix", "output_size"]

_SMALLEST_WINDOW_PX: Final = 1.0
_DEFAULT_SIZE: Final = (810, 1440)
_SMALLEST_SIDE_PX: Final = 16
_LARGEST_SIDE_PX: Final = 8192
# The background is blurred at 1/16 of its size, with this sigma.
_BLUR_FACTOR: Final = 16
_BLUR_SIGMA: Final = 2.5
# From 1/4 of its size on, it is enlarged linearly: at that size linear interpolation is not visible any more.
_LINES_FACTOR: Final = 4


class CropTrack:
    """Crop of a request over time, clamped to the frame.

    Args:
        request: Request with the crop keyframes; without keyframes, the crop is the whole frame.
        frame_size: (width, height) of the upright frames; the request's coordinate space is scaled to it per axis.
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
        self._track = KeyframeTrack(times or [Fraction(0)], points or [whole], request.interpolation)

    def at(self, seconds: Fraction) -> Rect:
        """Return the crop at `seconds`; a crop that extends beyond the frame is moved inside."""
        left, top, width, height = self._track.at(seconds)
        width = min(max(width, _SMALLEST_WINDOW_PX), self.frame_size[0])
        height = min(max(height, _SMALLEST_WINDOW_PX), self.frame_size[1])
        return Rect(
            min(max(left, 0.0), self.frame_size[0] - width),
            min(max(top, 0.0), self.frame_size[1] - height),
            width,
            height,
        )

    def still(self, start: Fraction, end: Fraction) -> Rect | None:
        """Return the crop if it is constant from `start` to `end`; None if it moves or may move."""
        moments = [start, end, *(time for time in self._track.times if start < time < end)]
        if self._track.interpolation != "linear":
            moments += self._track.times  # points outside the interval affect a spline
        windows = {self.at(moment) for moment in moments}
        return windows.pop() if len(windows) == 1 else None

    def largest(self) -> Rect:
        """Return the crop with the largest area among the keyframes."""
        return max(map(self.at, self._track.times), key=lambda window: window.width * window.height)


@dataclass(frozen=True, slots=True)
class Placement:
    """Part of the source, and the part of the output that it fills.

    Attributes:
        source: Part of the source in pixels of the frame.
        target: Part of the output in pixels; its edges are even, so that they also fall between chroma samples.
    """

    source: Rect
    target: Box


@dataclass(frozen=True, slots=True)
class Layout:
    """Placement of crops in an output with square pixels, without distortion.

    Attributes:
        pixel_aspect: Width / height of a pixel of the source.
        size: (width, height) of the output, even.
        fit: `cover` crops to the aspect ratio of the output, `contain` shows the whole crop.
    """

    pixel_aspect: Fraction
    size: tuple[int, int]
    fit: Fit

    def place(self, crop: Rect) -> Placement:
        """Return the used part of `crop` and its place in the output."""
        width, height = self.size
        if self.fit == "contain":
            wide = crop.width * float(self.pixel_aspect)
            scale = min(width / wide, height / crop.height)
            shown = (_even(wide * scale), _even(crop.height * scale))
            # Bars of a single pixel are due to rounding; fill the output instead.
            if shown[0] < width - 2 or shown[1] < height - 2:
                left, top = (width - shown[0]) // 4 * 2, (height - shown[1]) // 4 * 2
                return Placement(crop, Box(left, top, left + shown[0], top + shown[1]))
        return Placement(self.covering(crop), Box(0, 0, width, height))

    def covering(self, crop: Rect) -> Rect:
        """Return the centered part of `crop` that has the aspect ratio of the output."""
        shape = float(self.size[0] / (self.size[1] * self.pixel_aspect))
        width, height = min(crop.width, crop.height * shape), min(crop.height, crop.width / shape)
        return Rect(crop.left + (crop.width - width) / 2, crop.top + (crop.height - height) / 2, width, height)


def output_size(request: FramingRequest, track: CropTrack, pixel_aspect: Fraction) -> tuple[int, int]:
    """Return (width, height) of the output: the requested size, or the requested aspect at the source resolution."""
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
    """Return the color tags of a frame of `height` that is shown at `shown_height`, so that its colors do not change.

    Players guess the matrix of an untagged frame by its height. If the guess would change, the matrix is tagged.
    """
    guess = matrix_or_assumed(color, height)
    return color if matrix_or_assumed(color, shown_height) == guess else replace(color, matrix=guess)


class FramingRenderer:
    """Renderer of the crop of 4:2:0 frames.

    Every plane is resampled once, separately (see `resampling`). Chroma is read with the siting of the source and
    written with the siting `left`, which players expect.

    Args:
        track: Crop over time.
        layout: Placement of the crop in the output.
        background: Background of `contain`: `blur` or `#rrggbb`.
        color: Color tags of the output.
        chroma_origin: Position of the first chroma sample of the source, in luma pixels from left and top.
        pixel_format: Pixel format of the frames and of the output: 4:2:0 in 8 or 10 bits.

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
        """Render the crop of `planes` at `seconds` into `output`.

        Args:
            planes: uint8, or uint16 for 10 bits: Y (H, W), U and V ((H+1)//2, (W+1)//2), C-contiguous.
            seconds: Timestamp of the frame, in seconds from the first frame.
            output: uint8, (frame_bytes,), C-contiguous: the planes of the output one after another.
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

    def _windows(self, source: Rect, target: Box) -> tuple[Rect, Rect]:
        """Return the part of the luma plane and the part of the chroma planes that fill `target`.

        Chroma sample i is at 2i + origin luma pixels in the source; sample j is at 2j + (1/2, 1) in the output.
        """
        step = source.width / (target.right - target.left)
        left = (source.left + 1 - self._chroma_origin[0]) / 2 - step / 4
        top = (source.top + 1 - self._chroma_origin[1]) / 2
        return source, Rect(left, top, source.width / 2, source.height / 2)

    def _paint_background(self, planes: AnyPlanes, crop: Rect, targets: AnyPlanes) -> None:
        """Fill the whole output with the background color, or with the crop, enlarged and blurred."""
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
            # OpenCV's cubic interpolation differs between processors; its linear interpolation does not, and is not
            # visible after the first enlargement.
            half_way = np.empty((max(2, height // _LINES_FACTOR), max(2, width // _LINES_FACTOR)), target.dtype)
            resample(soft, Rect(0, 0, small.shape[1], small.shape[0]), half_way)
            cv2.resize(half_way, (width, height), dst=target, interpolation=cv2.INTER_LINEAR_EXACT)


def mix(older: U8Array, newer: U8Array, share: float, target: U8Array, pixel_format: PixelFormat = "yuv420p") -> None:
    """Blend two frames into `target`: `share` (0 to 1) of `newer`, the rest of `older`."""
    share = exact_factor(share)
    kind = np.uint8 if PLANAR[pixel_format].bits == 8 else np.dtype("<u2")
    below, above, mixed = (frame.view(kind) for frame in (older, newer, target))
    load_cv2().addWeighted(below, 1 - share, above, share, 0, dst=mixed)


def _halved(box: Box) -> Box:
    return Box(box.left // 2, box.top // 2, box.right // 2, box.bottom // 2)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))
