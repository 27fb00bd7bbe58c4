"""The request to draw on a clip: highlights and their style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final, Literal, Self, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, Record, declared, join, record
from reel_modal.schema._kinds import SECONDS, choice, nested, number
from reel_modal.schema._numbers import shown
from reel_modal.schema.framing import FramingRequest
from reel_modal.schema.interpolation import Interpolation
from reel_modal.schema.regions import INTERPOLATION, REGIONS, SHARE, HighlightRegion
from reel_modal.schema.requests import VideoRequest
from reel_modal.schema.retiming import retimed_regions

__all__ = ["Effect", "OverlayRequest", "OverlayStyle"]

Effect: TypeAlias = Literal["dark_overlay", "brightness_boost", "original"]
"""Effect of a highlight: darken the outside, brighten the inside, or no change."""

EFFECT: Final[Kind[Effect, Effect]] = choice(Effect)


@record
class OverlayStyle(Record):
    """Style of the highlights, the same for all regions of a request.

    Attributes:
        dim_strength: Share of the brightness that `dark_overlay` removes outside the regions, 0 to 1.
        boost_strength: Brightness that `brightness_boost` adds inside the regions, 0 to 4; the gain is 1 plus this.
        feather: Width of the soft edge as a fraction of the radius, 0 to 1.
        fade_seconds: Seconds in which a region fades in after its start and fades out before its end.
        stroke_width_px: Width of the outline in pixels at a frame height of 1080; it scales with the height.
        interpolation: Movement of the ellipse between its keyframes: `linear`, or `catmull_rom`, a spline that may
            overshoot.
    """

    dim_strength: float = declared(converter=SHARE, default=0.6)
    boost_strength: float = declared(converter=number(0, 4), default=0.4)
    feather: float = declared(converter=SHARE, default=0.0)
    fade_seconds: Fraction = declared(converter=SECONDS, default=Fraction(0))
    stroke_width_px: float = declared(converter=number(0, 100), default=2.0, aliases=("stroke_width",))
    interpolation: Interpolation = declared(converter=INTERPOLATION, default="linear")


@record
class OverlayRequest(VideoRequest):
    """Request to draw highlights that follow keyframes on a clip.

    Attributes:
        job_id: Job id, chosen by the host. One job id identifies one request.
        user_id: Id of the user that the job is for.
        input_key: Storage key of the clip.
        output_key: Storage key of the output. Its suffix selects the container.
        encode: Encoding options.
        store: Scopes of the two keys, and handling of an existing output.
        rate: `constant` renders a clip with a variable frame rate at the lowest standard rate that drops at most 1 %
            of its frames; `source` keeps the timestamp of each frame; a number is a constant rate in frames per
            second, reached by repeating and dropping frames. A clip with a constant rate keeps it unless a number is
            given.
        regions: Regions to highlight. Their ids must differ.
        effect: Effect of the regions: `dark_overlay` darkens the frame outside them, `brightness_boost` brightens the
            frame inside them, `original` draws nothing.
        style: Style of the regions.

    Raises:
        RequestError: A field is not valid; `path` names it.

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

    regions: tuple[HighlightRegion, ...] = declared(converter=REGIONS, aliases=("highlight_regions",))
    effect: Effect = declared(converter=EFFECT, default="dark_overlay", aliases=("effect_type",))
    style: OverlayStyle = declared(
        converter=nested(OverlayStyle), default=OverlayStyle(), aliases=("overlay_settings",)
    )

    def retimed(self, framing: FramingRequest) -> Self:
        """Return this request with its regions retimed for the clip that `framing` makes.

        A highlight stays on the same source frames at the same positions; trimmed parts are removed. The duration of
        fades does not change. A spline whose speed changes along the way becomes a polyline. Keys, positions and
        their coordinate space do not change: the crop is not applied.

        Raises:
            RequestError: The polylines need more keyframes than a request may have.
        """
        regions, interpolation = retimed_regions(self.regions, framing.timeline(), self.style.interpolation)
        return replace(self, regions=regions, style=replace(self.style, interpolation=interpolation))

    def _check_edit(self) -> None:
        check_region_ids(self.regions)


def check_region_ids(regions: Sequence[HighlightRegion]) -> None:
    """Raise RequestError unless the ids of `regions` differ."""
    first: dict[str, int] = {}
    for index, region in enumerate(regions):
        if (other := first.setdefault(region.id, index)) != index:
            raise RequestError(
                join(join("regions", index), "id"), f"{shown(region.id)} is also the id of regions[{other}]"
            )
