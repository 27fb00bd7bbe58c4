"""The request of `render_overlay`: highlights, where they go and how they look.

Pure; it must not know how anything is drawn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias, get_args

from reel_modal.bounds import at_least_zero, finite, not_empty, positive, share, within
from reel_modal.errors import RequestError
from reel_modal.interpolation import Interpolation
from reel_modal.parsing import (
    Raw,
    Record,
    any_text,
    decode,
    items,
    join,
    number,
    one_of,
    seconds,
    seconds_json,
    text,
    truth,
)
from reel_modal.schema.encoding import EncodeOptions
from reel_modal.schema.reading import build, hash_without_job, identifier, video_size

if TYPE_CHECKING:
    from reel_modal.schema.framing import FramingRequest
from reel_modal.schema.storing import StoreOptions

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
MOST_KEYFRAMES: Final = 100_000
_COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HighlightKeyframe:
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

    time_seconds: Fraction
    x: float
    y: float
    radius_x: float
    radius_y: float
    fill_opacity: float = 0.15
    stroke_opacity: float = 0.0
    color: str | None = None

    def __post_init__(self) -> None:
        at_least_zero("time_seconds", self.time_seconds)
        for name in ("x", "y"):
            finite(name, getattr(self, name))
        for name in ("radius_x", "radius_y"):
            positive(name, getattr(self, name))
        for name in ("fill_opacity", "stroke_opacity"):
            share(name, getattr(self, name))
        if self.color is not None and not _COLOR.fullmatch(self.color):
            raise RequestError("color", f"is {self.color!r}; write it as #rrggbb")

    @classmethod
    def read(cls, raw: object, path: str) -> Self:
        """Read one from the JSON of a request; `path` is where it stands there."""
        record = Record(raw, path)
        keyframe = {
            "time_seconds": record.take(seconds, "time_seconds", "time"),
            "x": record.take(number, "x"),
            "y": record.take(number, "y"),
            "radius_x": record.take(number, "radius_x"),
            "radius_y": record.take(number, "radius_y"),
            "fill_opacity": record.take_or(0.15, number, "fill_opacity", "opacity"),
            "stroke_opacity": record.take_or(0.0, number, "stroke_opacity"),
            "color": record.take_or(None, text, "color"),
        }
        record.finish()
        return build(cls, path, keyframe)

    def to_dict(self) -> dict[str, object]:
        """Return the keyframe for JSON."""
        return {
            "time_seconds": seconds_json(self.time_seconds),
            "x": self.x,
            "y": self.y,
            "radius_x": self.radius_x,
            "radius_y": self.radius_y,
            "fill_opacity": self.fill_opacity,
            "stroke_opacity": self.stroke_opacity,
            "color": self.color,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HighlightRegion:
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

    id: str
    start_seconds: Fraction
    end_seconds: Fraction
    keyframes: tuple[HighlightKeyframe, ...]
    enabled: bool = True
    label: str = ""
    video_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        not_empty("id", self.id)
        at_least_zero("start_seconds", self.start_seconds)
        if self.end_seconds < self.start_seconds:
            raise RequestError(
                "end_seconds", f"is {float(self.end_seconds):g}; the start at {float(self.start_seconds):g} is later"
            )
        if self.video_size is not None and min(self.video_size) < 1:
            raise RequestError("video_size", f"is {self.video_size}; both sides must be at least 1 pixel")
        if self.enabled and not self.keyframes:
            raise RequestError("keyframes", "must have at least one keyframe, or the region be disabled")
        for index, (before, after) in enumerate(zip(self.keyframes, self.keyframes[1:], strict=False), start=1):
            if after.time_seconds <= before.time_seconds:
                how = "the same as" if after.time_seconds == before.time_seconds else "before"
                raise RequestError(
                    join(join("keyframes", index), "time_seconds"),
                    f"is {float(after.time_seconds):g}, {how} the one in front of it; sort them and keep one each",
                )

    @classmethod
    def read(cls, raw: object, path: str) -> Self:
        """Read one from the JSON of a request; `path` is where it stands there."""
        record = Record(raw, path)
        region = {
            "id": record.take(identifier, "id"),
            "start_seconds": record.take(seconds, "start_seconds", "start_time"),
            "end_seconds": record.take(seconds, "end_seconds", "end_time"),
            "keyframes": record.take(items(HighlightKeyframe.read, MOST_KEYFRAMES), "keyframes"),
            "enabled": record.take_or(True, truth, "enabled"),  # noqa: FBT003
            "label": record.take_or("", any_text, "label"),
            "video_size": video_size(record),
        }
        record.finish()
        return build(cls, path, region)

    def to_dict(self) -> dict[str, object]:
        """Return the region for JSON."""
        width, height = self.video_size or (None, None)
        return {
            "id": self.id,
            "start_seconds": seconds_json(self.start_seconds),
            "end_seconds": seconds_json(self.end_seconds),
            "keyframes": [keyframe.to_dict() for keyframe in self.keyframes],
            "enabled": self.enabled,
            "label": self.label,
            "video_width": width,
            "video_height": height,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayStyle:
    """How highlights look, the same for all regions of a request.

    Attributes:
        dim_strength: 0..1, the share of light that `dark_overlay` takes away outside.
        boost_strength: 0..4, what `brightness_boost` adds inside: the gain is 1 + this.
        feather: 0..1, width of the soft edge as a share of the radius.
        fade_seconds: How long a region fades in after its start and out before its end.
        stroke_width_px: Width of the outline on a picture of 1080 lines; it scales with the height.
        interpolation: How the ellipse moves between keyframes.
    """

    dim_strength: float = 0.6
    boost_strength: float = 0.4
    feather: float = 0.0
    fade_seconds: Fraction = Fraction(0)
    stroke_width_px: float = 2.0
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        share("dim_strength", self.dim_strength)
        within("boost_strength", self.boost_strength, 0, 4)
        share("feather", self.feather)
        at_least_zero("fade_seconds", self.fade_seconds)
        within("stroke_width_px", self.stroke_width_px, 0, 100)
        one_of(*get_args(Interpolation))(self.interpolation, "interpolation")

    @classmethod
    def read(cls, raw: object, path: str) -> Self:
        """Read one from the JSON of a request; `path` is where it stands there."""
        record = Record(raw, path)
        default = cls()
        style = {
            "dim_strength": record.take_or(default.dim_strength, number, "dim_strength"),
            "boost_strength": record.take_or(default.boost_strength, number, "boost_strength"),
            "feather": record.take_or(default.feather, number, "feather"),
            "fade_seconds": record.take_or(default.fade_seconds, seconds, "fade_seconds"),
            "stroke_width_px": record.take_or(default.stroke_width_px, number, "stroke_width_px", "stroke_width"),
            "interpolation": record.take_or(default.interpolation, one_of(*get_args(Interpolation)), "interpolation"),
        }
        record.finish()
        return build(cls, path, style)

    def to_dict(self) -> dict[str, object]:
        """Return the style for JSON."""
        return {
            "dim_strength": self.dim_strength,
            "boost_strength": self.boost_strength,
            "feather": self.feather,
            "fade_seconds": seconds_json(self.fade_seconds),
            "stroke_width_px": self.stroke_width_px,
            "interpolation": self.interpolation,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRequest:
    """Draw highlights that follow keyframes on a clip.

    Attributes:
        job_id: The host's own name of the job; one job id is one request.
        user_id: Whom it is for.
        input_key: Where the clip is in the storage.
        output_key: Where the result goes; its suffix chooses the container.
        regions: The highlights.
        effect: What they do.
        style: How they look.
        encode: How the output is encoded.
        store: Whose the two keys are, and what becomes of an output that is there.

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

    job_id: str
    user_id: str
    input_key: str
    output_key: str
    regions: tuple[HighlightRegion, ...]
    effect: Effect = "dark_overlay"
    style: OverlayStyle = field(default_factory=OverlayStyle)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    store: StoreOptions = field(default_factory=StoreOptions)

    def __post_init__(self) -> None:
        for name in ("job_id", "user_id", "input_key", "output_key"):
            not_empty(name, getattr(self, name))
        one_of(*get_args(Effect))(self.effect, "effect")
        first: dict[str, int] = {}
        for index, region in enumerate(self.regions):
            if (other := first.setdefault(region.id, index)) != index:
                raise RequestError(
                    join(join("regions", index), "id"), f"{region.id!r} is the id of regions[{other}] too"
                )

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Read a request as hosts send it: snake_case, camelCase and legacy names.

        Raises:
            RequestError: Something is wrong, unknown, or said twice with different values; `path` says where.
        """
        record = Record(decode(raw))
        request = {
            **{name: record.take(identifier, name) for name in ("job_id", "user_id")},
            **{name: record.take(text, name) for name in ("input_key", "output_key")},
            "regions": record.take(items(HighlightRegion.read, MOST_REGIONS), "regions", "highlight_regions"),
            "effect": record.take_or("dark_overlay", one_of(*get_args(Effect)), "effect", "effect_type"),
            "style": record.take_or(OverlayStyle(), OverlayStyle.read, "style", "overlay_settings"),
            "encode": record.take_or(EncodeOptions(), EncodeOptions.read, "encode"),
            "store": record.take_or(StoreOptions(), StoreOptions.read, "store"),
        }
        record.finish()
        return build(cls, "", request)

    def to_dict(self) -> dict[str, object]:
        """Return the request for JSON; `parse` takes it back."""
        return {
            "job_id": self.job_id,
            "user_id": self.user_id,
            "input_key": self.input_key,
            "output_key": self.output_key,
            "regions": [region.to_dict() for region in self.regions],
            "effect": self.effect,
            "style": self.style.to_dict(),
            "encode": self.encode.to_dict(),
            "store": self.store.to_dict(),
        }

    def retimed(self, framing: FramingRequest) -> Self:
        """Return the request for the clip that `framing` makes: highlights at the moments that it shows.

        A highlight then is on the same frames of the source as before, at the same places; what the trims cut
        off is gone. Fades keep their seconds. A spline that changes its speed on the way becomes lines that
        follow it. Keys, positions and their coordinate space stay as they are: the crop is not applied.
        """
        from reel_modal.schema.retiming import retimed_regions

        regions, interpolation = retimed_regions(self.regions, framing.timeline(), self.style.interpolation)
        return replace(self, regions=regions, style=replace(self.style, interpolation=interpolation))

    def request_hash(self) -> str:
        """Return a hash of what is asked for, whatever the `job_id` and `store.existing`."""
        return hash_without_job(self.to_dict())
