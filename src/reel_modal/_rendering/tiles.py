"""Upscaling in tiles of one size: memory is bounded, and the device gets only one input shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Samples", "TilePlan", "enlarged"]

Samples: TypeAlias = npt.NDArray[np.uint8 | np.uint16]
"""Integer video samples: uint8, or uint16 with 10 bits in the low bits."""


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Division of a frame into tiles of one shape, each with a margin that is computed and discarded.

    Attributes:
        size: (width, height) of the frame in pixels.
        halo: Width of the margin in pixels: the receptive field of the network, so that the inside of a tile equals
            the result for the whole frame.
        inside: (width, height) of a tile without its margin.
        corners: (left, top) of the inside of each tile; the last tile of a row or column may overlap the one before.
    """

    size: tuple[int, int]
    halo: int
    inside: tuple[int, int]
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, size: tuple[int, int], halo: int, budget_pixels: int) -> TilePlan:
        """Return the plan that computes the fewest pixels with at most `budget_pixels` per tile, margins included.

        The budget is raised, if necessary, to a tile whose inside is as large as the margin.

        Args:
            size: (width, height) of the frame in pixels.
            halo: Width of the margin in pixels.
            budget_pixels: Maximum number of pixels of a tile.
        """
        width, height = size
        least = (min(width, max(1, halo)), min(height, max(1, halo)))
        budget_pixels = max(budget_pixels, (least[0] + 2 * halo) * (least[1] + 2 * halo))
        plans = []
        for rows in range(1, math.ceil(height / least[1]) + 1):
            down = math.ceil(height / rows)
            widest = min(width, budget_pixels // (down + 2 * halo) - 2 * halo)
            if widest >= 1:
                columns = math.ceil(width / widest)
                across = math.ceil(width / columns)
                computed = rows * columns * (down + 2 * halo) * (across + 2 * halo)
                plans.append((computed, rows, columns, across, down))
        _, rows, columns, across, down = min(plans)
        lefts = [min(column * across, width - across) for column in range(columns)]
        tops = [min(row * down, height - down) for row in range(rows)]
        return cls(size, halo, (across, down), tuple((left, top) for top in tops for left in lefts))

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(height, width) of a tile with its margin."""
        return self.inside[1] + 2 * self.halo, self.inside[0] + 2 * self.halo


def enlarged(
    pictures: Sequence[Samples],
    plan: TilePlan,
    scale: int,
    run: Callable[[Samples], Samples],
    batch: int = 1,
) -> list[Samples]:
    """Return the frames upscaled by `scale`.

    The borders are padded by reflection up to `plan.halo`, also if the frame is smaller than that.

    Args:
        pictures: Frames (C, H, W), all with the same dtype and with the size of the plan.
        plan: Division into tiles.
        scale: Scale of the network.
        run: The network: (n, C, h, w) to (n, C, scale h, scale w); n is at most `batch`.
        batch: Maximum number of tiles per call.
    """
    width, height = plan.size
    results: list[Samples] = [
        np.empty((picture.shape[0], scale * height, scale * width), picture.dtype) for picture in pictures
    ]
    rows, columns = _reflected(height, plan.halo), _reflected(width, plan.halo)
    padded = [picture.take(rows, 1).take(columns, 2) for picture in pictures]
    work = [(index, corner) for index in range(len(pictures)) for corner in plan.corners]
    for part in _batches(work, batch):
        tiles = np.stack([_tile(padded[index], corner, plan) for index, corner in part])
        margin = scale * plan.halo
        across, down = (scale * side for side in plan.inside)
        for large, (index, (left, top)) in zip(run(tiles), part, strict=True):
            target = results[index][:, scale * top : scale * top + down, scale * left : scale * left + across]
            target[:] = large[:, margin : margin + down, margin : margin + across]
    return results


def _reflected(length: int, margin: int) -> npt.NDArray[np.intp]:
    """Return the sample indices of an axis padded by reflection: 2 1 | 0 1 2 3 | 2 1, repeated as often as needed."""
    at = np.arange(-margin, length + margin)
    if length == 1:
        return np.zeros_like(at)
    period = 2 * (length - 1)
    folded = np.abs(at) % period
    nearer: npt.NDArray[np.intp] = np.minimum(folded, period - folded)
    return nearer


def _tile(padded: Samples, corner: tuple[int, int], plan: TilePlan) -> Samples:
    (left, top), (height, width) = corner, plan.tile_shape
    return padded[:, top : top + height, left : left + width]


def _batches(
    work: Sequence[tuple[int, tuple[int, int]]], batch: int
) -> Iterator[Sequence[tuple[int, tuple[int, int]]]]:
    for start in range(0, len(work), batch):
        yield work[start : start + batch]
