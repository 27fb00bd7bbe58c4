"""State of a highlight at a given time. Times are seconds from the first frame, positions are pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from reel_modal.schema import HighlightKeyframe, HighlightRegion, OverlayStyle, Timeline
from reel_modal.schema.interpolation import KeyframeTrack, Point

__all__ = ["STANDING_SECONDS", "EllipseState", "RegionTrack", "Timeline"]

STANDING_SECONDS: Final = Fraction(1, 10)
"""A frame shown for longer than this is a still: viewers notice if a highlight on it starts late or does not move."""

_SMALLEST_RADIUS_PX: Final = 1e-3


@dataclass(frozen=True, slots=True)
class EllipseState:
    """Ellipse of one region at one moment, in pixels of the frame.

    Attributes:
        center_x: X coordinate of the center; 0 is the left edge of the first pixel.
        center_y: Y coordinate of the center; 0 is the top edge of the first pixel.
        radius_x: Half the width.
        radius_y: Half the height.
        strength: Progress of the fade, 0 to 1; 1 is the full effect.
        fill_opacity: Opacity of the fill, 0 to 1.
        stroke_opacity: Opacity of the outline, 0 to 1.
        color: `#rrggbb`, or None.
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
    """Track of one region over time. It is prepared once, so that a lookup costs one bisection.

    Args:
        region: Region with the keyframes.
        frame_size: (width, height) of the frames; the region's coordinate space is scaled to it per axis.
        style: Style with the interpolation and the fade.
    """

    def __init__(self, region: HighlightRegion, frame_size: tuple[int, int], style: OverlayStyle) -> None:
        width, height = region.video_size or frame_size
        self.interval: tuple[Fraction, Fraction] = (region.start_seconds, region.end_seconds)
        self._fade = style.fade_seconds
        scale = (frame_size[0] / width, frame_size[1] / height)
        self._track = KeyframeTrack(
            [keyframe.time_seconds for keyframe in region.keyframes],
            [_point(keyframe, scale) for keyframe in region.keyframes],
            style.interpolation,
        )
        self._colors = [keyframe.color for keyframe in region.keyframes]
        self.enabled: bool = region.enabled

    def at(self, seconds: Fraction) -> EllipseState | None:
        """Return the ellipse at `seconds`; None if nothing is drawn. The region's start and end are inclusive."""
        start, end = self.interval
        if not self.enabled or not start <= seconds <= end:
            return None
        strength = self._strength(seconds)
        if strength <= 0:
            return None
        x, y, radius_x, radius_y, fill, stroke = self._track.at(seconds)
        return EllipseState(
            center_x=x,
            center_y=y,
            # A spline may overshoot.
            radius_x=max(_SMALLEST_RADIUS_PX, radius_x),
            radius_y=max(_SMALLEST_RADIUS_PX, radius_y),
            strength=strength,
            fill_opacity=min(1.0, max(0.0, fill)),
            stroke_opacity=min(1.0, max(0.0, stroke)),
            color=self._colors[self._track.index_at(seconds)],
        )

    def _strength(self, seconds: Fraction) -> float:
        if self._fade <= 0:
            return 1.0
        start, end = self.interval
        return min(1.0, float(min(seconds - start, end - seconds) / self._fade))


def _point(keyframe: HighlightKeyframe, scale: tuple[float, float]) -> Point:
    return (
        keyframe.x * scale[0],
        keyframe.y * scale[1],
        keyframe.radius_x * scale[0],
        keyframe.radius_y * scale[1],
        keyframe.fill_opacity,
        keyframe.stroke_opacity,
    )
