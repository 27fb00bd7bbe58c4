"""A part of a plane in another size, cut at fractions of a sample: what makes a slow pan glide.

Pure; it must not know luma from chroma, nor why a part is cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal.frames import U8Array
from reel_modal.rendering.opencv import load_cv2

__all__ = ["Window", "resample"]

# A shift that moves no sample by a visible step.
_NO_SHIFT: Final = 1 / 128
# Lanczos with three lobes: two samples before, three behind.
_TAPS_BEFORE: Final = 2
_TAPS_BEHIND: Final = 3
_LOBES: Final = 3


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a picture or plane; 0 is the left or upper edge of the first sample, fractions are meant.

    Attributes:
        left: To the right.
        top: Downwards.
        width: Above 0.
        height: Above 0.
    """

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class _Span:
    """One axis of a window: whole samples, and the shift that is left."""

    start: int
    count: int
    shift: float

    @classmethod
    def of(cls, start: float, length: float) -> _Span:
        whole = math.floor(start)
        shift = start - whole
        count = max(1, math.ceil(length - 1e-6))
        return cls(whole, count, 0.0) if shift < _NO_SHIFT else cls(whole, count, shift)

    @property
    def before(self) -> int:
        """Samples that the shift needs in front."""
        return _TAPS_BEFORE if self.shift else 0

    @property
    def behind(self) -> int:
        """Samples that the shift needs behind."""
        return _TAPS_BEHIND if self.shift else 0

    @property
    def kernel(self) -> npt.NDArray[np.float32]:
        """The filter that shifts by a fraction of a sample."""
        if not self.shift:
            return np.ones(1, np.float32)
        distance = np.arange(-_TAPS_BEFORE, _TAPS_BEHIND + 1) - self.shift
        weights = np.sinc(distance) * np.sinc(distance / _LOBES)
        kernel: npt.NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
        return kernel


def resample(plane: U8Array, window: Window, target: U8Array) -> None:
    """Fill `target` with the part `window` of `plane`.

    The part is shifted by its fraction of a sample (Lanczos) and then resized: by area where it shrinks, so that
    nothing flickers, by cubics where it grows. OpenCV resizes by a real factor from a whole sample on, many times
    faster than it warps from any.

    Args:
        plane: uint8, (H, W).
        window: In samples of the plane; what lies outside repeats the edge.
        target: uint8, (h, w), C-contiguous.
    """
    cv2 = load_cv2()
    height, width = target.shape
    step = (window.width / width, window.height / height)
    if step != (1, 1) and abs(window.width - width) < 1 and abs(window.height - height) < 1:
        _warp(plane, window, step, target)
        return
    across, down = _Span.of(window.left, window.width), _Span.of(window.top, window.height)
    part = _cut(plane, across, down)
    if across.shift or down.shift:
        anchor = (across.before, down.before)
        part = cv2.sepFilter2D(part, -1, across.kernel, down.kernel, anchor=anchor, borderType=cv2.BORDER_REPLICATE)
        part = part[down.before :, across.before :][: down.count, : across.count]
    method = cv2.INTER_AREA if min(step) >= 1 else cv2.INTER_CUBIC
    if (across.count, down.count) == (window.width, window.height):
        if part.shape == target.shape:
            target[:] = part
        else:
            cv2.resize(part, (width, height), dst=target, interpolation=method)
        return
    grown = cv2.resize(part, None, fx=1 / step[0], fy=1 / step[1], interpolation=method)
    missing = (max(0, height - grown.shape[0]), max(0, width - grown.shape[1]))
    if any(missing):  # the factor rounds to a sample less
        grown = np.pad(grown, ((0, missing[0]), (0, missing[1])), mode="edge")
    target[:] = grown[:height, :width]


def _warp(plane: U8Array, window: Window, step: tuple[float, float], target: U8Array) -> None:
    """Fill `target` by a factor that is almost 1, which OpenCV's resize would take for 1: a slow zoom would jerk."""
    cv2 = load_cv2()
    height, width = target.shape
    # From the middle of a sample of the target to the middle of one of the plane; in 32nds of a sample.
    matrix = np.array(
        [
            [step[0], 0, window.left + (step[0] - 1) / 2],
            [0, step[1], window.top + (step[1] - 1) / 2],
        ]
    )
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(plane, matrix, (width, height), dst=target, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _cut(plane: U8Array, across: _Span, down: _Span) -> U8Array:
    """Return the samples of both spans, with the edge repeated where they reach out of the plane."""
    left, right = across.start - across.before, across.start + across.count + across.behind
    top, bottom = down.start - down.before, down.start + down.count + down.behind
    height, width = plane.shape
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return plane[top:bottom, left:right]
    columns = np.clip((left, right), (0, 1), (width - 1, width))
    rows = np.clip((top, bottom), (0, 1), (height - 1, height))
    inside = plane[rows[0] : rows[1], columns[0] : columns[1]]
    cv2 = load_cv2()
    pads = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    padded: U8Array = cv2.copyMakeBorder(inside, *pads, cv2.BORDER_REPLICATE)
    return padded
