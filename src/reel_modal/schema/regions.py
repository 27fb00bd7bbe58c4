"""Highlight regions: position and size of each highlight over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Final

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, Record, declared, join, record
from reel_modal.schema._kinds import (
    COLOR,
    SECONDS,
    boolean,
    choice,
    identifier,
    list_of,
    nested,
    number,
    optional,
    size,
    string,
)
from reel_modal.schema._numbers import shown
from reel_modal.schema.interpolation import Interpolation

__all__ = ["HighlightKeyframe", "HighlightRegion"]

MOST_REGIONS: Final = 1000
MOST_KEYFRAMES: Final = 10_000
"""Maximum number of keyframes of all regions of a request together."""

MOST_PX: Final = 1_000_000
"""Maximum distance of a position from the frame's corner, and maximum radius, in pixels."""

LARGEST_SPACE_PX: Final = 100_000
"""Maximum width and height of the coordinate space of positions, in pixels."""

SPACE_SIDES: Final = ("video_width", "video_height")
SPACE: Final = size(SPACE_SIDES, 1, LARGEST_SPACE_PX)
POSITION: Final = number(-MOST_PX, MOST_PX)
LENGTH: Final = number(most=MOST_PX, above=0)
INTERPOLATION: Final[Kind[Interpolation, Interpolation]] = choice(Interpolation)
SHARE: Final = number(0, 1)
_LONGEST_ID: Final = 240
_LONGEST_LABEL: Final = 1000


def check_order(name: str, times: Sequence[Fraction]) -> None:
    """Raise RequestError unless the `times` of the keyframe list `name` are strictly increasing."""
    for index, (before, after) in enumerate(pairwise(times), start=1):
        if after <= before:
            how = "the same as" if after == before else "before"
            raise RequestError(
                join(join(name, index), "time_seconds"),
                f"is {shown(after)}, {how} the previous one; sort the keyframes and keep one per time",
            )


@record
class HighlightKeyframe(Record):
    """Ellipse of a highlight at one moment, in pixels of the region's coordinate space.

    Attributes:
        time_seconds: Seconds from the first frame of the clip; exact.
        x: X coordinate of the center, from the left; may be outside the frame.
        y: Y coordinate of the center, from the top; may be outside the frame.
        radius_x: Half the width, above 0.
        radius_y: Half the height, above 0.
        fill_opacity: Opacity of `color` inside the ellipse, 0 to 1.
        stroke_opacity: Opacity of `color` on the outline, 0 to 1.
        color: Color of fill and outline, `#rrggbb`; None draws neither.
    """

    time_seconds: Fraction = declared(converter=SECONDS, aliases=("time",))
    x: float = declared(converter=POSITION)
    y: float = declared(converter=POSITION)
    radius_x: float = declared(converter=LENGTH)
    radius_y: float = declared(converter=LENGTH)
    fill_opacity: float = declared(converter=SHARE, default=0.15, aliases=("opacity",))
    stroke_opacity: float = declared(converter=SHARE, default=0.0)
    color: str | None = declared(converter=optional(COLOR), default=None)


@record
class HighlightRegion(Record):
    """One highlight: an ellipse that follows keyframes from a start to an end.

    Attributes:
        id: Id of the region, unique in its request.
        start_seconds: First moment, inclusive, in seconds from the first frame of the clip.
        end_seconds: Last moment, inclusive, in seconds from the first frame; may be after the end of the clip.
        keyframes: Keyframes in order of their times. Before the first and after the last one the ellipse does not
            move.
        enabled: Whether the region is drawn.
        label: Text for users; has no effect.
        video_size: (width, height) of the coordinate space of the keyframes; None means the upright frame.
    """

    id: str = declared(converter=identifier(_LONGEST_ID))
    start_seconds: Fraction = declared(converter=SECONDS, aliases=("start_time",))
    end_seconds: Fraction = declared(converter=SECONDS, aliases=("end_time",))
    keyframes: tuple[HighlightKeyframe, ...] = declared(converter=list_of(nested(HighlightKeyframe), MOST_KEYFRAMES))
    enabled: bool = declared(converter=boolean, default=True)
    label: str = declared(converter=string(_LONGEST_LABEL, empty=True, lines=True), default="")
    video_size: tuple[int, int] | None = declared(converter=optional(SPACE), default=None, sides=SPACE_SIDES)

    def _check(self) -> None:
        if self.end_seconds < self.start_seconds:
            raise RequestError(
                "end_seconds",
                f"is {shown(self.end_seconds)}; it must not be before the start, {shown(self.start_seconds)}",
            )
        if self.enabled and not self.keyframes:
            raise RequestError("keyframes", "must have at least one keyframe, unless the region is disabled")
        check_order("keyframes", [keyframe.time_seconds for keyframe in self.keyframes])


def _convert_regions(value: object) -> tuple[HighlightRegion, ...]:
    """Return the converted regions; check the total number of keyframes before any is converted."""
    if isinstance(value, Sequence) and len(value) <= MOST_REGIONS:
        count = sum(map(_keyframe_count, value))
        if count > MOST_KEYFRAMES:
            raise RequestError("", f"have {count} keyframes in total; at most {MOST_KEYFRAMES} are accepted")
    return _LIST.convert(value)


def _keyframe_count(region: object) -> int:
    keyframes = region.get("keyframes") if isinstance(region, Mapping) else getattr(region, "keyframes", None)
    return len(keyframes) if isinstance(keyframes, Sequence) else 0


_LIST: Final = list_of(nested(HighlightRegion), MOST_REGIONS)
REGIONS: Final = replace(
    _LIST, convert=_convert_regions, summary=f"{_LIST.summary}, with at most {MOST_KEYFRAMES} keyframes in total"
)
