"""Layers of a reel: images that are drawn over its frames."""

from __future__ import annotations

from fractions import Fraction
from typing import Final, Literal, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import KEY, SECONDS, choice, number, optional
from reel_modal.schema._numbers import shown
from reel_modal.schema.regions import SHARE

__all__ = ["Anchor", "ReelLayer"]

Anchor: TypeAlias = Literal[
    "top_left", "top", "top_right", "left", "center", "right", "bottom_left", "bottom", "bottom_right"
]
"""A corner, the middle of an edge, or the center of an image."""

MOST_LAYERS: Final = 50
_ANCHOR: Final[Kind[Anchor, Anchor]] = choice(Anchor)


@record
class ReelLayer(Record):
    """An image that is drawn over the frames of a reel, such as a logo or a name plate.

    Attributes:
        input_key: Storage key of the image: PNG or WebP with 8 bits, still, with or without alpha.
        start_seconds: First moment, in seconds of the reel; rounded to the nearest frame.
        end_seconds: Last moment, exclusive, in seconds of the reel; None means the end of the reel.
        anchor: Point of the image that is placed at (`x`, `y`).
        x: Place of the anchor as a fraction of the frame's width, 0 to 1; None means the same point of the frame as
            of the image, such as the right edge.
        y: Place of the anchor as a fraction of the frame's height, 0 to 1; None as for `x`.
        width: Width of the image as a fraction of the frame's width, above 0 and at most 1. The height follows from
            the image.
        opacity: Opacity of the whole image, 0 to 1, in addition to its alpha.
        fade_in_seconds: Seconds in which the image fades in after its start.
        fade_out_seconds: Seconds in which the image fades out before its end.
    """

    input_key: str = declared(converter=KEY)
    start_seconds: Fraction = declared(converter=SECONDS, default=Fraction(0), aliases=("start", "start_time"))
    end_seconds: Fraction | None = declared(converter=optional(SECONDS), default=None, aliases=("end", "end_time"))
    anchor: Anchor = declared(converter=_ANCHOR, default="top_left")
    x: float | None = declared(converter=optional(SHARE), default=None)
    y: float | None = declared(converter=optional(SHARE), default=None)
    width: float = declared(converter=number(0, 1, above=0), default=0.2)
    opacity: float = declared(converter=SHARE, default=1.0)
    fade_in_seconds: Fraction = declared(converter=SECONDS, default=Fraction(0), aliases=("fade_in",))
    fade_out_seconds: Fraction = declared(converter=SECONDS, default=Fraction(0), aliases=("fade_out",))

    def _check(self) -> None:
        start, end = self.start_seconds, self.end_seconds
        if end is None:
            return
        if end <= start:
            raise RequestError("end_seconds", f"is {shown(end)}; it must be after the start, {shown(start)}")
        fades = self.fade_in_seconds + self.fade_out_seconds
        if fades > end - start:
            path = "fade_out_seconds" if self.fade_out_seconds else "fade_in_seconds"
            raise RequestError(path, f"is too long: the fades take {shown(fades)} s of {shown(end - start)} s")
