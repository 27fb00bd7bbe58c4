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

from reel_modal.frames import U8Array
from reel_modal.rendering.opencv import load_cv2

__all__ = ["Window", "resample"]

_LOBES: Final = 3
# Samples of the target whose weights make one matrix: larger ones hold more zeros, smaller ones make more calls.
_TOGETHER: Final = 16
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
    down = _Axis.of(window.top, window.height, plane.shape[0], target.shape[0])
    across = _Axis.of(window.left, window.width, plane.shape[1], target.shape[1])
    for rows, strip in down.strips():
        part = plane[strip.samples, across.samples].astype(np.float32)
        tall = np.empty((rows.stop - rows.start, part.shape[1]), np.float32)
        strip.apply(part, tall)
        made = np.empty((tall.shape[0], target.shape[1]), np.float32)
        across.apply(tall.T, made.T)
        cv2.threshold(made, 0, 0, cv2.THRESH_TOZERO, dst=made)
        cv2.convertScaleAbs(made, dst=target[rows])  # rounds, and ends at 255


@dataclass(frozen=True, slots=True)
class _Axis:
    """How the samples of a target are mixed from those of a plane, along one axis.

    Attributes:
        count: Samples of the target.
        firsts: The first sample of the plane for each matrix.
        weights: float32, (matrices, samples of the target, samples of the plane).
    """

    count: int
    firsts: tuple[int, ...]
    weights: npt.NDArray[np.float32]

    @classmethod
    @lru_cache(_CACHED_AXES)
    def of(cls, start: float, length: float, plane_count: int, count: int) -> Self:
        """Return the axis of a window.

        Args:
            start: Where it begins, in samples of the plane.
            length: How many of them it has.
            plane_count: Samples of the plane.
            count: Samples of the target.
        """
        step = length / count
        scale = max(step, 1.0)
        middles = start + (np.arange(count) + 0.5) * step - 0.5
        taps = np.ceil(middles - _LOBES * scale).astype(np.intp)[:, None] + np.arange(floor(2 * _LOBES * scale) + 1)
        distances = ((taps - middles[:, None]) / scale).astype(np.float32)
        weights = np.sinc(distances) * np.sinc(distances / _LOBES) * (np.abs(distances) < _LOBES)
        weights /= weights.sum(axis=1, keepdims=True)
        taps = taps.clip(0, plane_count - 1)
        firsts = taps[::_TOGETHER, 0]
        lasts = taps[np.minimum(np.arange(len(firsts)) * _TOGETHER + _TOGETHER, count) - 1, -1]
        wide = int((lasts - firsts).max()) + 1
        firsts = np.minimum(firsts, plane_count - wide)
        rows = np.arange(count)
        places = taps + (rows * wide - firsts[rows // _TOGETHER])[:, None]
        shape = (len(firsts), _TOGETHER, wide)
        # Where taps meet at the edge of the plane, their weights add up.
        matrices = np.bincount(places.ravel(), weights.ravel(), np.prod(shape)).astype(np.float32).reshape(shape)
        return cls(count, tuple(firsts.tolist()), matrices)

    @property
    def samples(self) -> slice:
        """Those of the plane that count."""
        return slice(self.firsts[0], self.firsts[-1] + self.weights.shape[2])

    def strips(self) -> Iterator[tuple[slice, _Axis]]:
        """Yield the axis in pieces, each with the samples of the target that it makes."""
        for index in range(0, len(self.firsts), _STRIP):
            rows = slice(index * _TOGETHER, min(self.count, (index + _STRIP) * _TOGETHER))
            firsts, weights = self.firsts[index : index + _STRIP], self.weights[index : index + _STRIP]
            yield rows, _Axis(rows.stop - rows.start, firsts, weights)

    def apply(self, samples: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> None:
        """Fill `target` from the samples that count, along the first axis of both."""
        wide = self.weights.shape[2]
        at_once = max(1, _MOST_MULTIPLICATIONS // (_TOGETHER * wide))
        for index, first in enumerate(self.firsts):
            rows = target[index * _TOGETHER : (index + 1) * _TOGETHER]
            weights, begin = self.weights[index, : len(rows)], first - self.firsts[0]
            for column in range(0, target.shape[1], at_once):
                columns = slice(column, column + at_once)
                np.matmul(weights, samples[begin : begin + wide, columns], out=rows[:, columns])
