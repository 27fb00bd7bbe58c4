"""Interpolation between keyframes by lines or splines; shared by preview, render and retiming."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, Literal, TypeAlias

__all__ = ["Interpolation", "KeyframeTrack", "Point"]

Interpolation: TypeAlias = Literal["linear", "catmull_rom"]
"""Interpolation between keyframes."""

Point: TypeAlias = tuple[float, ...]
"""Interpolated numbers of a keyframe."""

_MOST_STEPS: Final = 512


class KeyframeTrack:
    """Interpolated track through points; constant before the first and after the last one.

    Args:
        times: Times of the points in seconds, strictly increasing.
        points: At least one point; all have the same length.
        interpolation: Straight lines, or a uniform Catmull-Rom spline with duplicated end points. A spline
            overshoots: a caller that needs bounds must clamp.
    """

    def __init__(self, times: Sequence[Fraction], points: Sequence[Point], interpolation: Interpolation) -> None:
        self.times: tuple[Fraction, ...] = tuple(times)
        self.points: tuple[Point, ...] = tuple(points)
        self.interpolation: Interpolation = interpolation

    def index_at(self, seconds: Fraction) -> int:
        """Return the index of the last point that is not later than `seconds`; 0 before the first point."""
        return max(0, bisect_right(self.times, seconds) - 1)

    def at(self, seconds: Fraction) -> Point:
        """Return the interpolated point at `seconds`."""
        index = self.index_at(seconds)
        if index >= len(self.points) - 1 or seconds <= self.times[index]:
            return self.points[index]
        share = float((seconds - self.times[index]) / (self.times[index + 1] - self.times[index]))
        if self.interpolation == "linear":
            pairs = zip(self.points[index], self.points[index + 1], strict=True)
            return tuple(a + (b - a) * share for a, b in pairs)
        return tuple(_catmull_rom(*four, share) for four in zip(*self._neighbors(index), strict=True))

    def steps(self, tolerance: Point) -> list[int]:
        """Return the number of line segments, at most 512, that approximate each section between two points.

        Args:
            tolerance: Maximum error of each number.
        """
        parts = range(len(self.times) - 1)
        return [1 if self.interpolation == "linear" else self._steps(index, tolerance) for index in parts]

    def to_polyline(self, steps: Sequence[int]) -> list[Fraction]:
        """Return the times of the vertices of a polyline that has `steps` line segments in each section."""
        vertices: list[Fraction] = []
        for start, end, count in zip(self.times, self.times[1:], steps, strict=False):
            vertices += [start + (end - start) * step / count for step in range(count)]
        return [*vertices, self.times[-1]]

    def _neighbors(self, index: int) -> tuple[Point, Point, Point, Point]:
        """Return the four control points of the spline section after point `index`."""
        last = len(self.points) - 1
        return (
            self.points[max(0, index - 1)],
            self.points[index],
            self.points[index + 1],
            self.points[min(last, index + 2)],
        )

    def _steps(self, index: int, tolerance: Point) -> int:
        """Return the number of line segments that approximate the spline section after point `index`.

        The error of a chord over 1/n of a curve is at most max|f''| / (8 n^2); f'' of a cubic is largest at an end.
        """
        most = 1.0
        for p0, p1, p2, p3, allowed in zip(*self._neighbors(index), tolerance, strict=True):
            bend = max(abs(2 * p0 - 5 * p1 + 4 * p2 - p3), abs(4 * p1 - 5 * p2 + 2 * p3 - p0))
            most = max(most, math.sqrt(bend / (8 * allowed)))
        return min(_MOST_STEPS, math.ceil(most))


def _catmull_rom(p0: float, p1: float, p2: float, p3: float, t: float) -> float:
    """Return the uniform Catmull-Rom spline between `p1` and `p2` at `t`, 0 to 1 (E. Catmull, R. Rom, 1974)."""
    slope_in, slope_out = (p2 - p0) / 2, (p3 - p1) / 2
    square, cube = t * t, t * t * t
    return (
        (2 * cube - 3 * square + 1) * p1
        + (cube - 2 * square + t) * slope_in
        + (3 * square - 2 * cube) * p2
        + (cube - square) * slope_out
    )
