"""Crop a plane at sub-sample positions and resize it, with the same result on every processor.

Processors add up a matrix product in different orders. This does not change the result here: every weight is a
multiple of 2**-20, so a sample of 10 bits times two weights has 50 bits, and a float64 with its 53 bits holds each
product and each partial sum exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import factorial, floor, pi
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from reel_modal._rendering.opencv import load_cv2
from reel_modal._rendering.tiles import Samples

__all__ = ["Rect", "resample", "resample_unrounded"]

_Plane = npt.NDArray[np.uint8 | np.uint16 | np.float32]
_Exact = npt.NDArray[np.float64]

_LOBES: Final = 3
_WEIGHT_ONE: Final = 1 << 20
# Series of sin(a) / a in powers of a^2, highest power first. The next term is below 1e-9 within the filter.
_SINE_TERMS: Final = tuple((-1) ** power / factorial(2 * power + 1) for power in range(9, -1, -1))
_TEN_BITS_MOST: Final = 1023
# Target samples (rows) per weight matrix, best first: 8 float64 fill the vector registers of any processor.
_MATRIX_ROWS: Final = (8, 7, 9, 6, 10, 5, 11)
# A matrix that is wider by up to this many samples costs less than another number of rows.
_SLIGHTLY_WIDER: Final = 2
# OpenBLAS uses threads for a product with more multiplications (interface/gemm.c). They then spin until the next
# product, but the encoder needs the cores.
_MAX_MULTIPLICATIONS: Final = 1 << 18
# Matrices per block of the target, horizontally and vertically: a block and its sources fit into the cache of a core.
_MATRICES_ACROSS: Final = 128
_MATRICES_DOWN: Final = 8
# Enough for two frames: a horizontal pan has new horizontal weights in each frame, and the same vertical weights.
_CACHED_AXES: Final = 8


@dataclass(frozen=True, slots=True)
class Rect:
    """Rectangle in a frame or plane, with fractional coordinates; 0 is the left or top edge of the first sample.

    Attributes:
        left: X coordinate of the left edge.
        top: Y coordinate of the top edge, downwards.
        width: Width, above 0.
        height: Height, above 0.
    """

    left: float
    top: float
    width: float
    height: float


def resample(plane: Samples, window: Rect, target: Samples) -> None:
    """Resample the part `window` of `plane` into `target` by one separable filter, rounded once.

    The filter is Lanczos with three lobes. If the part is reduced, the filter is widened by the factor, so that
    nothing flickers. It is the same filter at every factor, so a zoom through 1 changes nothing but the size. Halves
    are rounded to even.

    Args:
        plane: uint8, or uint16 with 10 bits in the low bits, (H, W).
        window: Part of the plane, in samples; outside the plane the edge is repeated.
        target: (h, w), with the dtype of the plane; may be a view of a larger array.
    """
    cv2 = load_cv2()
    eight_bits = target.dtype == np.uint8
    kind = cv2.CV_8U if eight_bits else cv2.CV_16U
    for place, block in _blocks(plane, window, target.shape):
        if not eight_bits:
            cv2.threshold(block, _TEN_BITS_MOST, 0, cv2.THRESH_TRUNC, dst=block)
        rounded = cv2.add(block, 0, dtype=kind)  # also clips to the type
        cv2.transpose(rounded, dst=target[place])


def resample_unrounded(plane: _Plane, window: Rect, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return the part `window` of `plane`, resampled as in `resample`, as float32, neither rounded nor clipped.

    Args:
        plane: Integers of at most 10 bits plus sign, (H, W).
        window: Part of the plane, in samples; outside the plane the edge is repeated.
        size: (width, height) of the result.
    """
    target = np.empty(size[::-1], np.float32)
    for place, block in _blocks(plane, window, target.shape):
        target[place] = block.T
    return target


def _blocks(plane: _Plane, window: Rect, shape: tuple[int, ...]) -> Iterator[tuple[tuple[slice, slice], _Exact]]:
    """Yield (place, block) for each block of the target; a block is transposed, and the next one overwrites it."""
    rows = _axis(window.top, window.height, shape[0], _MATRICES_DOWN)
    columns = _axis(window.left, window.width, shape[1], _MATRICES_ACROSS)
    work: dict[tuple[int, int], _Work] = {}  # the last block of a row or column may be smaller
    for across in columns:
        for down in rows:
            size = (down.count, across.count)
            if size not in work:
                work[size] = _Work.of(down, across)
            yield (down.targets, across.targets), work[size].block(plane, down, across)


@dataclass(frozen=True, slots=True)
class _Strip:
    """Weights of adjacent target samples along one axis.

    Matrix i computes `rows` target samples, starting at i * rows, from the samples of the plane that start at
    `first` + i * `stride`.

    Attributes:
        targets: Samples of the target.
        first: First sample of the plane; may be outside the plane.
        stride: Samples of the plane from one matrix to the next.
        weights: (matrices, rows, samples of the plane).
    """

    targets: slice
    first: int
    stride: int
    weights: _Exact

    @property
    def count(self) -> int:
        """Number of samples of the target."""
        return int(self.targets.stop - self.targets.start)

    @property
    def room(self) -> int:
        """Number of samples that the products fill: the last matrix may extend beyond the target."""
        return int(self.weights.shape[0] * self.weights.shape[1])

    @property
    def source_count(self) -> int:
        """Number of samples of the plane that are used."""
        matrices, _, wide = self.weights.shape
        return int((matrices - 1) * self.stride + wide)

    def products(self, samples: _Exact, target: _Exact) -> list[tuple[_Exact, _Exact]]:
        """Return (operand, output) views of the matrix products that compute `target` along the first axis."""
        matrices, rows, wide = self.weights.shape
        length, (down, across) = samples.shape[1], samples.strides
        seen = as_strided(samples, (matrices, wide, length), (self.stride * down, down, across), writeable=False)
        products = target.reshape(matrices, rows, length)
        at_once = max(1, _MAX_MULTIPLICATIONS // (rows * wide))
        parts = [slice(begin, begin + at_once) for begin in range(0, length, at_once)]
        return [(seen[:, :, part], products[:, :, part]) for part in parts]


@dataclass(frozen=True, slots=True)
class _Work:
    """Work buffers for blocks of one size.

    Attributes:
        source: Samples of the plane.
        down: Vertical products of `source`.
        across: Horizontal products of the results of `down`.
        result: Result of `across`, transposed.
    """

    source: _Exact
    down: list[tuple[_Exact, _Exact]]
    across: list[tuple[_Exact, _Exact]]
    result: _Exact

    @classmethod
    def of(cls, down: _Strip, across: _Strip) -> Self:
        source = np.empty((down.source_count, across.source_count))
        mixed_down = np.empty((down.room, across.source_count))
        result = np.empty((across.room, down.room))  # OpenBLAS writes this faster than its transpose
        return cls(
            source,
            down.products(source, mixed_down),
            across.products(mixed_down.T, result),
            result[: across.count, : down.count],
        )

    def block(self, plane: _Plane, down: _Strip, across: _Strip) -> _Exact:
        """Return the block for these strips, transposed."""
        _copy(plane, down.first, across.first, self.source)
        for strip, products in ((down, self.down), (across, self.across)):
            for samples, target in products:
                np.matmul(strip.weights, samples, out=target)
        return self.result


@lru_cache(_CACHED_AXES)
def _axis(start: float, length: float, count: int, matrices_at_once: int) -> tuple[_Strip, ...]:
    """Return the strips that resample the window of `length` samples from `start` on to `count` target samples."""
    step = length / count
    scale = max(step, 1.0)
    at = np.arange(count)
    middles = start + (at + 0.5) * step - 0.5
    lowest = np.ceil(middles - _LOBES * scale)
    taps = np.arange(floor(2 * _LOBES * scale) + 1)[:, None]
    weights = _whole_weights((lowest - middles + taps) / scale)
    rows = _matrix_rows(step, count)
    stride = round(rows * step)
    together = matrices_at_once * rows
    # Each strip has its own first sample: if `rows` steps are not whole samples, the difference accumulates.
    places = lowest.astype(np.intp) - at % together // rows * stride
    firsts = np.minimum.reduceat(places, at[::together])
    places -= firsts[at // together]
    # OpenBLAS for AVX-512 multiplies a transposed matrix twice as fast if its columns are contiguous.
    columns = np.zeros((-(-count // rows), int(places.max()) + len(taps), rows))
    first_weights = (at // rows * columns.shape[1] + places) * rows + at % rows
    columns.reshape(-1)[first_weights + taps * rows] = weights
    matrices = columns.transpose(0, 2, 1)
    return tuple(
        _Strip(
            slice(index * together, min(count, (index + 1) * together)),
            int(first),
            stride,
            matrices[index * matrices_at_once : (index + 1) * matrices_at_once],
        )
        for index, first in enumerate(firsts)
    )


def _whole_weights(distances: _Exact) -> _Exact:
    """Return weights that are multiples of 2**-20 and add up to 1 in each column, so that a flat plane stays flat.

    Only operations that IEEE 754 defines exactly are used, in a fixed order: sine functions differ between libraries.
    """
    # With a = a third of the angle and s = sin(a) / a: sin(3a) / 3a = s (1 - 4/3 (a s)^2).
    square = (pi / _LOBES * distances) ** 2
    third = np.full_like(square, _SINE_TERMS[0])
    for term in _SINE_TERMS[1:]:
        third *= square
        third += term
    third *= third
    lanczos = third * (1 - 4 / 3 * (square * third))
    lanczos *= np.abs(distances) < _LOBES
    for tap in range(1, len(lanczos)):
        lanczos[tap] += lanczos[tap - 1]
    lanczos *= _WEIGHT_ONE / lanczos[-1]
    sums = np.rint(lanczos)
    return np.diff(sums, axis=0, prepend=0) / _WEIGHT_ONE


def _matrix_rows(step: float, count: int) -> int:
    """Return the number of target samples per matrix for which consecutive matrices are nearly whole samples apart.

    The difference to whole samples accumulates from matrix to matrix and makes each of them wider.
    """

    def missing(rows: int) -> float:
        advance = rows * step
        return abs(advance - round(advance)) * count / rows

    return min(_MATRIX_ROWS, key=lambda rows: missing(rows) // _SLIGHTLY_WIDER)


def _copy(plane: _Plane, top: int, left: int, target: _Exact) -> None:
    """Copy the samples of `plane` from (top, left) on into `target`; outside the plane the edge is repeated."""
    rows, above, below = _inside(top, target.shape[0], plane.shape[0])
    columns, before, after = _inside(left, target.shape[1], plane.shape[1])
    part: npt.NDArray[Any] = plane[rows, columns]
    if above or below or before or after:
        cv2 = load_cv2()
        part = cv2.copyMakeBorder(part, above, below, before, after, cv2.BORDER_REPLICATE)
    np.copyto(target, part)


def _inside(first: int, count: int, length: int) -> tuple[slice, int, int]:
    """Return the slice of `count` samples from `first` on that is inside the axis, and the padding before and after.

    The slice has at least one sample.
    """
    inside = slice(min(max(first, 0), length - 1), max(1, min(first + count, length)))
    return inside, min(max(0, -first), count - 1), min(max(0, first + count - length), count - 1)
