"""A part of a plane in another size, cut at fractions of a sample: what makes a slow pan glide.

Pure; it must not know luma from chroma, nor why a part is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import floor
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from reel_modal.frames import U8Array
from reel_modal.rendering.opencv import load_cv2

__all__ = ["Window", "resample"]

_LOBES: Final = 3
# Samples of the target whose weights make one matrix, the best first: 16 fill the registers of any processor.
_TOGETHER: Final = (16, 15, 17, 14, 18, 13, 19, 12, 20)
# That a matrix is wider by so many samples costs less than other rows.
_LITTLE_WIDER: Final = 4
# OpenBLAS spreads a product of more multiplications over threads (interface/gemm.c), which then spin for the next
# one: the encoder needs the cores.
_MOST_MULTIPLICATIONS: Final = 1 << 18
# Matrices of one strip of the target, which stays in the cache of a core; the next one uses its memory again.
_STRIP: Final = 16
# Those of two frames: a pan has new weights in each across, and the same down.
_CACHED_AXES: Final = 8


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


def resample(plane: U8Array, window: Window, target: U8Array) -> None:
    """Fill `target` with the part `window` of `plane`, by one filter across and down, rounded once.

    The filter is Lanczos with three lobes, as wide as the steps in which it goes where the part shrinks, so that
    nothing flickers. It is the same at every factor: a zoom through 1 changes nothing but the size. The weights of
    neighbouring samples stand in small matrices, whose products are what numpy does fastest.

    Args:
        plane: uint8, (H, W).
        window: In samples of the plane; what lies outside repeats the edge.
        target: uint8, (h, w), C-contiguous.
    """
    cv2 = load_cv2()
    down = _Axis.of(window.top, window.height, target.shape[0])
    across = _Axis.of(window.left, window.width, target.shape[1])
    for strip, rows in down.strips():
        part = _cut(plane, strip, across)
        tall = np.empty((strip.room, part.shape[1]), np.float32)
        strip.apply(part, tall)
        made = np.empty((strip.room, across.room), np.float32)
        across.apply(tall.T, made.T)
        wanted = made[: strip.count, : across.count]
        cv2.threshold(wanted, 0, 0, cv2.THRESH_TOZERO, dst=wanted)
        cv2.convertScaleAbs(wanted, dst=target[rows])  # rounds, and ends at 255


@dataclass(frozen=True, slots=True)
class _Axis:
    """How the samples of a target are mixed from those of a plane, along one axis.

    Matrix i makes the samples of the target from i times its rows on, out of those of the plane from `first` + i
    times `stride` on.

    Attributes:
        first: Sample of the plane, which may lie outside.
        stride: Samples of the plane from one matrix to the next.
        count: Samples of the target.
        weights: float32, (matrices, rows, samples of the plane).
    """

    first: int
    stride: int
    count: int
    weights: npt.NDArray[np.float32]

    @classmethod
    @lru_cache(_CACHED_AXES)
    def of(cls, start: float, length: float, count: int) -> Self:
        """Return the axis of a window that begins at `start` and is `length` samples of the plane long."""
        step = length / count
        scale = max(step, 1.0)
        middles = start + (np.arange(count) + 0.5) * step - 0.5
        lowest = np.ceil(middles - _LOBES * scale).astype(np.intp)
        taps = np.arange(floor(2 * _LOBES * scale) + 1)
        distances = ((lowest[:, None] + taps - middles[:, None]) / scale).astype(np.float32)
        weights = np.sinc(distances) * np.sinc(distances / _LOBES) * (np.abs(distances) < _LOBES)
        weights /= weights.sum(axis=1, keepdims=True)
        together = _matrix_rows(step, count)
        stride = round(together * step)
        places = lowest - np.arange(count) // together * stride
        first = int(places.min())
        matrices = -(-count // together)
        rows = np.zeros((matrices * together, int(places.max()) - first + len(taps)), np.float32)
        rows[np.arange(count)[:, None], (places - first)[:, None] + taps] = weights
        return cls(first, stride, count, rows.reshape(matrices, together, -1))

    @property
    def room(self) -> int:
        """Samples that `apply` fills, some of which may be none of the target."""
        return int(self.weights.shape[0] * self.weights.shape[1])

    @property
    def end(self) -> int:
        """The first sample of the plane that does not count any more."""
        matrices, _, wide = self.weights.shape
        return int(self.first + (matrices - 1) * self.stride + wide)

    def strips(self) -> Iterator[tuple[_Axis, slice]]:
        """Yield the axis in pieces, each with the samples of the target that it makes."""
        together = self.weights.shape[1]
        for index in range(0, len(self.weights), _STRIP):
            rows = slice(index * together, min(self.count, (index + _STRIP) * together))
            first, weights = self.first + index * self.stride, self.weights[index : index + _STRIP]
            yield _Axis(first, self.stride, rows.stop - rows.start, weights), rows

    def apply(self, samples: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> None:
        """Fill `target` from the samples that count, both along their first axis."""
        matrices, together, wide = self.weights.shape
        length, (down, across) = samples.shape[1], samples.strides
        seen = as_strided(samples, (matrices, wide, length), (self.stride * down, down, across), writeable=False)
        made = target.reshape(matrices, together, length)
        at_once = max(1, _MOST_MULTIPLICATIONS // (together * wide))
        for begin in range(0, length, at_once):
            columns = slice(begin, begin + at_once)
            np.matmul(self.weights, seen[:, :, columns], out=made[:, :, columns])


def _matrix_rows(step: float, count: int) -> int:
    """Return how many samples of the target make one matrix, so that the next one begins nearly whole samples on.

    What is missing to whole samples adds up from matrix to matrix, and makes each of them wider.
    """

    def missing(together: int) -> float:
        advance = together * step
        return abs(advance - round(advance)) * count / together

    return min(_TOGETHER, key=lambda together: missing(together) // _LITTLE_WIDER)


def _cut(plane: U8Array, down: _Axis, across: _Axis) -> npt.NDArray[np.float32]:
    """Return the samples that count along both axes, with the edge repeated where they reach out of the plane."""
    height, width = plane.shape
    top, bottom = np.clip((down.first, down.end), (0, 1), (height - 1, height))
    left, right = np.clip((across.first, across.end), (0, 1), (width - 1, width))
    inside = plane[top:bottom, left:right].astype(np.float32)
    pads = (max(0, -down.first), max(0, down.end - height), max(0, -across.first), max(0, across.end - width))
    if not any(pads):
        return inside
    cv2 = load_cv2()
    padded: npt.NDArray[np.float32] = cv2.copyMakeBorder(inside, *pads, cv2.BORDER_REPLICATE)
    return padded
