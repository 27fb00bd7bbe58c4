"""Masks of ellipses on sampling grids: anti-aliased, at sub-pixel positions, limited to a box around the ellipse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.opencv import load_cv2

__all__ = ["LUMA", "Box", "Ellipse", "Grid", "Mask", "ellipse_mask"]

Mask: TypeAlias = npt.NDArray[np.uint8]
"""uint8, (H, W), 0 to 255: share of each sample that is inside. Bytes blend twice as fast as floats."""

_FRACTION_BITS: Final = 8
# Above this radius OpenCV's fixed-point drawing may overflow; the edge is almost a straight line then.
_LARGEST_DRAWN_PX: Final = 8000


@dataclass(frozen=True, slots=True)
class Grid:
    """Positions of the samples of a plane on the frame.

    Attributes:
        step: (horizontal, vertical) distance between two samples, in luma pixels.
        shift: Distance of the samples from the centers of their cells, to the left and upwards, in luma pixels.
    """

    step: tuple[int, int]
    shift: tuple[float, float]


LUMA: Final = Grid((1, 1), (0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Ellipse:
    """Ellipse in pixels; 0 is the left or top edge of the first pixel."""

    center_x: float
    center_y: float
    radius_x: float
    radius_y: float

    def on(self, grid: Grid) -> Ellipse:
        """Return the ellipse in samples of `grid`."""
        (across, down), (left, up) = grid.step, grid.shift
        return Ellipse(
            (self.center_x + left) / across,
            (self.center_y + up) / down,
            self.radius_x / across,
            self.radius_y / down,
        )

    def grown(self, x: float, y: float) -> Ellipse:
        """Return the ellipse with its radii increased by `x` and `y`, to at least 0.001."""
        return Ellipse(self.center_x, self.center_y, max(1e-3, self.radius_x + x), max(1e-3, self.radius_y + y))


@dataclass(frozen=True, slots=True)
class Box:
    """Rectangle of a plane, in samples; `right` and `bottom` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, ellipse: Ellipse, shape: tuple[int, ...]) -> Box:
        """Return the part of a plane of `shape` (H, W) that the ellipse can touch; it may be empty."""
        height, width = shape[:2]
        return cls(
            left=_clamp(ellipse.center_x - ellipse.radius_x - 1, width),
            top=_clamp(ellipse.center_y - ellipse.radius_y - 1, height),
            right=_clamp(ellipse.center_x + ellipse.radius_x + 2, width),
            bottom=_clamp(ellipse.center_y + ellipse.radius_y + 2, height),
        )

    @property
    def empty(self) -> bool:
        """Whether the box contains no samples."""
        return self.left >= self.right or self.top >= self.bottom

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an array (H, W)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Return the index of the box in an array that covers `outer`."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )

    def union(self, other: Box) -> Box:
        """Return the smallest box that contains both."""
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )


def ellipse_mask(ellipse: Ellipse, box: Box, feather: float = 0.0) -> Mask:
    """Return the share of each sample of `box` that is inside `ellipse`.

    Args:
        ellipse: Ellipse in samples.
        box: Part of the plane.
        feather: Width of the soft edge inside the ellipse, as a fraction of the radius, 0 to 1.
    """
    if feather > 0 or max(ellipse.radius_x, ellipse.radius_y) > _LARGEST_DRAWN_PX:
        return _soft_mask(ellipse, box, feather)
    cv2 = load_cv2()
    drawn = np.zeros((box.bottom - box.top, box.right - box.left), np.uint8)
    scale = 1 << _FRACTION_BITS
    # OpenCV's origin is the center of the first pixel, and its anti-aliased edge extends half a pixel outwards.
    center = (round((ellipse.center_x - box.left - 0.5) * scale), round((ellipse.center_y - box.top - 0.5) * scale))
    radii = (max(1, round((ellipse.radius_x - 0.5) * scale)), max(1, round((ellipse.radius_y - 0.5) * scale)))
    cv2.ellipse(drawn, center, radii, 0, 0, 360, 255, -1, cv2.LINE_AA, _FRACTION_BITS)
    return drawn


def _soft_mask(ellipse: Ellipse, box: Box, feather: float) -> Mask:
    """Return the mask computed by formula: exact for any size, slower than drawing."""
    x = (np.arange(box.left, box.right, dtype=np.float32) + 0.5 - ellipse.center_x) / ellipse.radius_x
    y = (np.arange(box.top, box.bottom, dtype=np.float32) + 0.5 - ellipse.center_y) / ellipse.radius_y
    radius = np.sqrt(np.add.outer(y * y, x * x))
    # One sample is the narrowest edge without visible steps.
    edge = max(feather, 1 / max(1.0, min(ellipse.radius_x, ellipse.radius_y)))
    share = np.clip((1 + edge / 2 * (feather <= 0) - radius) / edge, 0, 1)
    return np.rint(share * np.float32(255)).astype(np.uint8)


def _clamp(position: float, size: int) -> int:
    return int(min(max(math.floor(position), 0), size))
