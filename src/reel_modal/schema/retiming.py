"""Retiming of highlight regions: they stay on the same source frames at the output times of those frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Final

from reel_modal.errors import RequestError
from reel_modal.schema._kinds import MOST_SECONDS
from reel_modal.schema.interpolation import Interpolation, KeyframeTrack, Point
from reel_modal.schema.regions import MOST_KEYFRAMES, HighlightKeyframe, HighlightRegion
from reel_modal.schema.timeline import Timeline

__all__ = ["retimed_regions"]

# Invisible errors: a twentieth of a pixel, and less than half a step of 255 levels.
_TOLERANCE: Final[Point] = (0.05, 0.05, 0.05, 0.05, 0.001, 0.001)
_SMALLEST_RADIUS_PX: Final = 1e-3
_FINEST: Final = 10**200


def retimed_regions(
    regions: Iterable[HighlightRegion], timeline: Timeline, interpolation: Interpolation
) -> tuple[tuple[HighlightRegion, ...], Interpolation]:
    """Return the regions in output time, and the interpolation between their keyframes.

    Between two keyframes in one piece of the timeline only the speed changes. If a piece begins between two
    keyframes, a keyframe is inserted there. That would change the shape of a spline, so in this case all regions
    become polylines and the interpolation is `linear`.

    Args:
        regions: Regions in source time; regions outside the trimmed part are left out.
        timeline: Mapping from source time to output time.
        interpolation: Interpolation between the keyframes of the regions.

    Raises:
        RequestError: The polylines need more keyframes than a request may have.
    """
    end = timeline.source_end
    kept = [
        region
        for region in regions
        if region.end_seconds >= timeline.source_start and (end is None or region.start_seconds < end)
    ]
    borders = [piece.source_start for piece in timeline.pieces]
    if not any(_changes_pace(region, borders) for region in kept):
        moved = [_moved(region, timeline, _kept_keyframes(region, timeline.source_start)) for region in kept]
        return tuple(moved), interpolation
    left = MOST_KEYFRAMES
    moved = []
    for region in kept:
        moved.append(_moved(region, timeline, _cut(region, borders, interpolation, left)))
        left -= len(moved[-1].keyframes)
    return tuple(moved), "linear"


def _changes_pace(region: HighlightRegion, borders: list[Fraction]) -> bool:
    """Return whether the keyframes span the first border, or another border falls between two of them."""
    times = [keyframe.time_seconds for keyframe in region.keyframes]
    crossed = [border for border in borders if times and times[0] < border < times[-1]]
    # A keyframe before the trim start shapes the spline after it, even if the trim starts at a keyframe.
    return any(border == borders[0] or border not in times for border in crossed)


def _moved(region: HighlightRegion, timeline: Timeline, keyframes: Iterable[HighlightKeyframe]) -> HighlightRegion:
    """Return the region with `keyframes`, start and end converted to output times."""
    return replace(
        region,
        start_seconds=max(Fraction(0), _fine(timeline.to_output(region.start_seconds))),
        # A region may end long after the clip.
        end_seconds=min(Fraction(MOST_SECONDS), _fine(timeline.to_output(region.end_seconds))),
        keyframes=tuple(
            replace(keyframe, time_seconds=_fine(timeline.to_output(keyframe.time_seconds))) for keyframe in keyframes
        ),
    )


def _fine(moment: Fraction) -> Fraction:
    """Return a time with at most as many digits as a request may have; a thousand odd speeds make thousands."""
    return moment if moment.denominator < _FINEST else moment.limit_denominator(_FINEST)


def _kept_keyframes(region: HighlightRegion, start: Fraction) -> list[HighlightKeyframe]:
    """Return the keyframes from `start` on, or the last one moved to `start` if all are earlier.

    The first and the last keyframe are not on different sides of `start`.
    """
    later = [keyframe for keyframe in region.keyframes if keyframe.time_seconds >= start]
    if later or not region.keyframes:
        return later
    return [replace(region.keyframes[-1], time_seconds=start)]


def _cut(
    region: HighlightRegion, borders: list[Fraction], interpolation: Interpolation, most: int
) -> list[HighlightKeyframe]:
    """Return at most `most` keyframes from the first border on, with one at every border that the track crosses."""
    if not region.keyframes:
        return []
    existing = {keyframe.time_seconds: keyframe for keyframe in region.keyframes}
    track = KeyframeTrack(list(existing), [_point(keyframe) for keyframe in region.keyframes], interpolation)
    first, last = track.times[0], track.times[-1]
    steps = track.steps(_TOLERANCE)
    if sum(steps) >= most:
        raise RequestError(
            "regions",
            f"need more than {MOST_KEYFRAMES} keyframes at another speed; simplify the path of {region.id!r}",
        )
    moments = {*track.to_polyline(steps), *(border for border in borders if first < border < last)}
    start = borders[0]
    times = sorted(moment for moment in moments if moment >= start) or [start]
    return [existing.get(moment) or _keyframe_at(region, track, moment) for moment in times]


def _point(keyframe: HighlightKeyframe) -> Point:
    return (
        keyframe.x,
        keyframe.y,
        keyframe.radius_x,
        keyframe.radius_y,
        keyframe.fill_opacity,
        keyframe.stroke_opacity,
    )


def _keyframe_at(region: HighlightRegion, track: KeyframeTrack, moment: Fraction) -> HighlightKeyframe:
    x, y, radius_x, radius_y, fill, stroke = track.at(moment)
    return HighlightKeyframe(
        time_seconds=moment,
        x=x,
        y=y,
        radius_x=max(_SMALLEST_RADIUS_PX, radius_x),
        radius_y=max(_SMALLEST_RADIUS_PX, radius_y),
        fill_opacity=min(1.0, max(0.0, fill)),
        stroke_opacity=min(1.0, max(0.0, stroke)),
        color=region.keyframes[track.index_at(moment)].color,
    )
