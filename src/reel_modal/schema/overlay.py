"""The request of `render_overlay`: highlights, where they go and how they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.interpolation import Interpolation
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
from reel_modal.schema.requests import Request

if TYPE_CHECKING:
    from reel_modal.schema.framing import FramingRequest

__all__ = [
    "Effect",
    "HighlightKeyframe",
    "HighlightRegion",
    "OverlayRequest",
    "OverlayStyle",
]

Effect: TypeAlias = Literal["dark_overlay", "brightness_boost", "original"]
"""What a highlight does: darken outside, brighten inside, or nothing at all."""

MOST_REGIONS: Final = 1000
MOST_KEYFRAMES: Final = 10_000
"""Of all regions of a request together."""

MOST_PX: Final = 1_000_000
"""How far from the picture's corner a position may lie, and how long a radius may be."""

LARGEST_SPACE_PX: Final = 100_000
"""Of a side of the space that positions are in."""

SPACE_SIDES: Final = ("video_width", "video_height")
SPACE: Final = size(SPACE_SIDES, 1, LARGEST_SPACE_PX)
POSITION: Final = number(-MOST_PX, MOST_PX)
LENGTH: Final = number(most=MOST_PX, above=0)
INTERPOLATION: Final[Kind[Interpolation, Interpolation]] = choice(Interpolation)
_SHARE: Final = number(0, 1)
_LONGEST_ID: Final = 240
_LONGEST_LABEL: Final = 1000
_EFFECT: Final[Kind[Effect, Effect]] = choice(Effect)


def check_order(name: str, times: Sequence[Fraction]) -> None:
    """Refuse keyframes, the list `name`, whose `times` do not rise."""
    for index, (before, after) in enumerate(pairwise(times), start=1):
        if after <= before:
            how = "the same as" if after == before else "before"
            raise RequestError(
                join(join(name, index), "time_seconds"),
                f"is {shown(after)}, {how} the previous one; sort them and keep one each",
            )


@record
class HighlightKeyframe(Record):
    """Where the ellipse of a highlight is at one moment, in pixels of its region's coordinate space.

    Attributes:
        time_seconds: From the first picture of the clip on; exact.
        x: Center, to the right; may lie outside of the picture.
        y: Center, downwards.
        radius_x: Half the width, above 0.
        radius_y: Half the height, above 0.
        fill_opacity: 0..1, how much of `color` is laid over the inside.
        stroke_opacity: 0..1, how much of `color` the outline has.
        color: `#rrggbb`; None draws neither fill nor outline.
    """

    time_seconds: Fraction = declared(converter=SECONDS, aliases=("time",))
    x: float = declared(converter=POSITION)
    y: float = declared(converter=POSITION)
    radius_x: float = declared(converter=LENGTH)
    radius_y: float = declared(converter=LENGTH)
    fill_opacity: float = declared(converter=_SHARE, default=0.15, aliases=("opacity",))
    stroke_opacity: float = declared(converter=_SHARE, default=0.0)
    color: str | None = declared(converter=optional(COLOR), default=None)


@record
class HighlightRegion(Record):
    """One highlight: when it shows, and where it goes.

    Attributes:
        id: Unique in its request.
        start_seconds: First moment, inclusive, from the first picture on.
        end_seconds: Last moment, inclusive; may lie behind the end of the clip.
        keyframes: In order of their times; before the first and behind the last the ellipse stands still.
        enabled: False draws nothing.
        label: For people.
        video_size: (width, height) of the coordinate space of the keyframes; None is the upright frame itself.
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
                "end_seconds", f"is {shown(self.end_seconds)}; the start at {shown(self.start_seconds)} is later"
            )
        if self.enabled and not self.keyframes:
            raise RequestError("keyframes", "must have at least one keyframe, or the region be disabled")
        check_order("keyframes", [keyframe.time_seconds for keyframe in self.keyframes])


@record
class OverlayStyle(Record):
    """How highlights look, the same for all regions of a request.

    Attributes:
        dim_strength: 0..1, the share of light that `dark_overlay` takes away outside.
        boost_strength: 0..4, what `brightness_boost` adds inside: the gain is 1 + this.
        feather: 0..1, width of the soft edge as a share of the radius.
        fade_seconds: How long a region fades in after its start and out before its end.
        stroke_width_px: Width of the outline on a picture of 1080 lines; it scales with the height.
        interpolation: How the ellipse moves between keyframes.
    """

    dim_strength: float = declared(converter=_SHARE, default=0.6)
    boost_strength: float = declared(converter=number(0, 4), default=0.4)
    feather: float = declared(converter=_SHARE, default=0.0)
    fade_seconds: Fraction = declared(converter=SECONDS, default=Fraction(0))
    stroke_width_px: float = declared(converter=number(0, 100), default=2.0, aliases=("stroke_width",))
    interpolation: Interpolation = declared(converter=INTERPOLATION, default="linear")


def _convert_regions(value: object) -> tuple[HighlightRegion, ...]:
    """Read the regions of a request; too many keyframes are refused before any is read."""
    if isinstance(value, Sequence) and len(value) <= MOST_REGIONS:
        count = sum(map(_keyframe_count, value))
        if count > MOST_KEYFRAMES:
            raise RequestError("", f"have {count} keyframes in all; at most {MOST_KEYFRAMES} are accepted")
    return _LIST.convert(value)


def _keyframe_count(region: object) -> int:
    keyframes = region.get("keyframes") if isinstance(region, Mapping) else getattr(region, "keyframes", None)
    return len(keyframes) if isinstance(keyframes, Sequence) else 0


_LIST: Final = list_of(nested(HighlightRegion), MOST_REGIONS)
_REGIONS: Final = replace(
    _LIST, convert=_convert_regions, says=f"{_LIST.says}, with at most {MOST_KEYFRAMES} keyframes in all"
)


@record
class OverlayRequest(Request):
    """Draw highlights that follow keyframes on a clip.

    Attributes:
        job_id: The host's own name of the job; one job id is one request.
        user_id: Whom it is for.
        input_key: Where the clip is in the storage.
        output_key: Where the result goes; its suffix chooses the container.
        encode: How the output is encoded.
        store: Whose the two keys are, and what becomes of an output that is there.
        rate: `constant` renders a clip whose frame rate varies at the smallest standard rate that keeps its pictures;
            `source` keeps the time of each picture; a number of frames a second is that rate, by repeating and
            dropping. A clip of a constant rate keeps it unless a number is given.
        regions: The highlights.
        effect: What they do.
        style: How they look.

    Raises:
        RequestError: Something is wrong; its `path` says where.

    Example:
        >>> keyframe = HighlightKeyframe(time_seconds=Fraction(0), x=640, y=360, radius_x=90, radius_y=120)
        >>> region = HighlightRegion(
        ...     id="a", start_seconds=Fraction(0), end_seconds=Fraction(2), keyframes=(keyframe,)
        ... )
        >>> request = OverlayRequest(
        ...     job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4", regions=(region,)
        ... )
        >>> OverlayRequest.parse(request.to_dict()) == request
        True
    """

    regions: tuple[HighlightRegion, ...] = declared(converter=_REGIONS, aliases=("highlight_regions",))
    effect: Effect = declared(converter=_EFFECT, default="dark_overlay", aliases=("effect_type",))
    style: OverlayStyle = declared(
        converter=nested(OverlayStyle), default=OverlayStyle(), aliases=("overlay_settings",)
    )

    def retimed(self, framing: FramingRequest) -> Self:
        """Return the request for the clip that `framing` makes: highlights at the moments that it shows.

        A highlight then is on the same frames of the source as before, at the same places; what the trims cut
        off is gone. Fades keep their seconds. A spline that changes its speed on the way becomes lines that
        follow it. Keys, positions and their coordinate space stay as they are: the crop is not applied.
        """
        from reel_modal.schema.retiming import retimed_regions

        regions, interpolation = retimed_regions(self.regions, framing.timeline(), self.style.interpolation)
        return replace(self, regions=regions, style=replace(self.style, interpolation=interpolation))

    def _check_edit(self) -> None:
        first: dict[str, int] = {}
        for index, region in enumerate(self.regions):
            if (other := first.setdefault(region.id, index)) != index:
                raise RequestError(
                    join(join("regions", index), "id"), f"{shown(region.id)} is the id of regions[{other}] too"
                )
