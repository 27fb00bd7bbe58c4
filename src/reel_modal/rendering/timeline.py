"""Where a highlight is at a given moment, and which moment of the source a frame shows.

Pure; times are seconds from the first picture on, positions are pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from reel_modal.interpolation import Point, Track
from reel_modal.schema import HighlightKeyframe, HighlightRegion, OverlayStyle, Timeline

__all__ = ["STANDING_SECONDS", "EllipseState", "RegionTrack", "Timeline"]

STANDING_SECONDS: Final = Fraction(1, 10)
"""A picture that is shown for longer than this stands: one can see if a highlight on it begins late or does not move.
"""

_SMALLEST_RADIUS_PX: Final = 1e-3


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
        self.interval: tuple[Fraction, Fraction] = (region.start_seconds, region.end_seconds)
        self._fade = style.fade_seconds
        scale = (frame_size[0] / width, frame_size[1] / height)
        self._track = Track(
            [keyframe.time_seconds for keyframe in region.keyframes],
            [_point(keyframe, scale) for keyframe in region.keyframes],
            style.interpolation,
        )
        self._colors = [keyframe.color for keyframe in region.keyframes]
        self.enabled: bool = region.enabled

    def at(self, seconds: Fraction) -> EllipseState | None:
        """Return what is drawn at `seconds`, None outside of the region; its start and end are inside."""
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
            # A spline overshoots.
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
