"""Enlarges pictures of any size in tiles of one size, so that memory is bounded and a device sees one shape only.

Pure; it must not know which network enlarges, nor what luma is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Samples", "TilePlan", "enlarged"]

Samples: TypeAlias = npt.NDArray[np.uint8 | np.uint16]
"""Whole numbers as video keeps them: uint8, or uint16 with 10 bits in the low end."""


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How a picture is cut: tiles of one shape, each with a margin that is computed and thrown away.

    Attributes:
        size: (width, height) of the picture in pixels.
        halo: Pixels of margin: as far as the network looks, so that a tile's inside is what the whole would give.
        inside: (width, height) of what a tile gives.
        corners: (left, top) of each tile's inside; the last of a row or column overlaps the one before it.
    """

    size: tuple[int, int]
    halo: int
    inside: tuple[int, int]
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, size: tuple[int, int], halo: int, budget_pixels: int) -> TilePlan:
        """Return the plan that computes the fewest pixels with at most `budget_pixels` in a tile, margins included.

        Where a tile that is as large as one margin exceeds the budget, tiles are that large all the same.

        Args:
            size: (width, height) of the picture in pixels.
            halo: See above.
            budget_pixels: What a tile may have.
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
    """Return the pictures `scale` times larger.

    The borders are reflected, as far as `plan.halo` reaches, however small the picture is.

    Args:
        pictures: (C, H, W) each, all of one type and of the plan's size.
        plan: How they are cut.
        scale: Of the network.
        run: The network: (n, C, h, w) to (n, C, scale h, scale w), n at most `batch`.
        batch: Tiles that are given at once.
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
    """Return the index of each sample of an axis with margins: 2 1 | 0 1 2 3 | 2 1, folded as often as needed."""
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
