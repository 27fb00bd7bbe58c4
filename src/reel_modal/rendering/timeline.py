"""Where a highlight is at a given moment: one interpolation for preview and render.

Pure; times are seconds from the first picture on, positions are pixels.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from reel_modal.schema import HighlightKeyframe, HighlightRegion, Interpolation, OverlayStyle

__all__ = ["EllipseState", "RegionTrack"]

_SMALLEST_RADIUS_PX: Final = 1e-3
_Point = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class EllipseState:
    """What is drawn of one region at one moment, in pixels of the frame.

    Attributes:
        center_x: To the right; 0 is the left edge of the first pixel.
        center_y: Downwards.
        radius_x: Half the width.
        radius_y: Half the height.
        strength: 0..1, how far the effect has faded in.
        fill_opacity: 0..1.
        stroke_opacity: 0..1.
        color: `#rrggbb` or None.
    """

    center_x: float
    center_y: float
    radius_x: float
    radius_y: float
    strength: float
    fill_opacity: float
    stroke_opacity: float
    color: str | None


class RegionTrack:
    """The way of one region through time, prepared once so that a frame costs a bisection.

    Args:
        region: What to follow.
        frame_size: (width, height) of the frames; the region's own coordinate space is scaled to it per axis.
        style: Interpolation and fade.
    """

    def __init__(self, region: HighlightRegion, frame_size: tuple[int, int], style: OverlayStyle) -> None:
        width, height = region.video_size or frame_size
        self._start = region.start_seconds
        self._end = region.end_seconds
        self._fade = style.fade_seconds
        self._times = [keyframe.time_seconds for keyframe in region.keyframes]
        scale = (frame_size[0] / width, frame_size[1] / height)
        self._points = [_point(keyframe, scale) for keyframe in region.keyframes]
        self._colors = [keyframe.color for keyframe in region.keyframes]
        self._interpolation: Interpolation = style.interpolation
        self._enabled = region.enabled

    def at(self, seconds: Fraction) -> EllipseState | None:
        """Return what is drawn at `seconds`, None outside of the region; its start and end are inside."""
        if not self._enabled or not self._start <= seconds <= self._end:
            return None
        strength = self._strength(seconds)
        if strength <= 0:
            return None
        index = max(0, bisect_right(self._times, seconds) - 1)
        x, y, radius_x, radius_y, fill, stroke = self._point_at(index, seconds)
        return EllipseState(x, y, radius_x, radius_y, strength, fill, stroke, self._colors[index])

    def _strength(self, seconds: Fraction) -> float:
        if self._fade <= 0:
            return 1.0
        return min(1.0, float(min(seconds - self._start, self._end - seconds) / self._fade))

    def _point_at(self, index: int, seconds: Fraction) -> _Point:
        """Interpolate in the segment that begins with keyframe `index`; outside of all, the ends stand still."""
        last = len(self._points) - 1
        if index >= last or seconds <= self._times[index]:
            return self._points[index]
        share = float((seconds - self._times[index]) / (self._times[index + 1] - self._times[index]))
        before, after = self._points[index], self._points[index + 1]
        if self._interpolation == "linear":
            return _mixed(before, after, share)
        outer = self._points[max(0, index - 1)], self._points[min(last, index + 2)]
        return _spline(outer[0], before, after, outer[1], share)


def _point(keyframe: HighlightKeyframe, scale: tuple[float, float]) -> _Point:
    return (
        keyframe.x * scale[0],
        keyframe.y * scale[1],
        keyframe.radius_x * scale[0],
        keyframe.radius_y * scale[1],
        keyframe.fill_opacity,
        keyframe.stroke_opacity,
    )


def _mixed(before: _Point, after: _Point, share: float) -> _Point:
    x, y, radius_x, radius_y, fill, stroke = (a + (b - a) * share for a, b in zip(before, after, strict=True))
    return x, y, radius_x, radius_y, fill, stroke


def _spline(p0: _Point, p1: _Point, p2: _Point, p3: _Point, share: float) -> _Point:
    """Uniform Catmull-Rom (E. Catmull, R. Rom, 1974), endpoints doubled; what it overshoots is clamped."""
    values = [_catmull_rom(*four, share) for four in zip(p0, p1, p2, p3, strict=True)]
    radii = [max(_SMALLEST_RADIUS_PX, value) for value in values[2:4]]
    opacities = [min(1.0, max(0.0, value)) for value in values[4:6]]
    return values[0], values[1], radii[0], radii[1], opacities[0], opacities[1]


def _catmull_rom(p0: float, p1: float, p2: float, p3: float, t: float) -> float:
    slope_in, slope_out = (p2 - p0) / 2, (p3 - p1) / 2
    square, cube = t * t, t * t * t
    return (
        (2 * cube - 3 * square + 1) * p1
        + (cube - 2 * square + t) * slope_in
        + (3 * square - 2 * cube) * p2
        + (cube - square) * slope_out
    )
