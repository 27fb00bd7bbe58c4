"""The music of a reel, and its loudness."""

from __future__ import annotations

from fractions import Fraction
from typing import Final, Literal, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import KEY, SECONDS, boolean, decimal

__all__ = ["LOUDNESS", "STANDARD_LUFS", "Loudness", "ReelMusic"]

Loudness: TypeAlias = Literal["off", "on"] | Fraction
"""Loudness of an output: `off` leaves it, `on` is -14 LUFS, a number is a target in LUFS."""

STANDARD_LUFS: Final = Fraction(-14)
"""The target of `on`, in LUFS."""

_LONGEST_FADE_SECONDS: Final = 60
_LOUDEST: Final = 4
_DEEPEST_DB: Final = 40
_target: Final = decimal(-40, -5)


@record
class ReelMusic(Record):
    """Music under the clips of a reel.

    Attributes:
        input_key: Storage key of the music: an audio file, or a video whose first audio stream is used.
        start_seconds: Time in the music at which the reel begins, in seconds.
        volume: Factor of the music's samples, 0 to 4.
        fade_in_seconds: Length of the fade at the start of the reel, at most 60 seconds.
        fade_out_seconds: Length of the fade at the end of the reel, or at the end of the music if it ends before and
            is not repeated; at most 60 seconds.
        loop: Whether music that is shorter than the reel is repeated from `start_seconds`.
        ducking_db: How much softer the music is while the clips are audible, in decibels; 0 switches that off.
    """

    input_key: str = declared(converter=KEY)
    start_seconds: Fraction = declared(converter=SECONDS, default=Fraction(0), aliases=("start",))
    volume: Fraction = declared(converter=decimal(0, _LOUDEST), default=Fraction(1))
    fade_in_seconds: Fraction = declared(
        converter=decimal(0, _LONGEST_FADE_SECONDS, unit="seconds"), default=Fraction(0), aliases=("fade_in",)
    )
    fade_out_seconds: Fraction = declared(
        converter=decimal(0, _LONGEST_FADE_SECONDS, unit="seconds"), default=Fraction(1), aliases=("fade_out",)
    )
    loop: bool = declared(converter=boolean, default=True)
    ducking_db: Fraction = declared(
        converter=decimal(0, _DEEPEST_DB, unit="decibels"), default=Fraction(12), aliases=("ducking",)
    )


def _convert_loudness(value: object) -> Loudness:
    if isinstance(value, str) and value in {"off", "on"}:
        return "off" if value == "off" else "on"
    try:
        return _target.convert(value)
    except RequestError as error:
        raise RequestError("", f"{error.problem}; or write off, or on for {STANDARD_LUFS} LUFS") from error


def _written_loudness(value: Loudness) -> object:
    return value if isinstance(value, str) or _target.write is None else _target.write(value)


LOUDNESS: Final[Kind[Loudness | float | str, Loudness]] = Kind(
    _convert_loudness,
    {"anyOf": [{"enum": ["off", "on"]}, *_target.schema["anyOf"]]},
    f"`off`, `on` ({STANDARD_LUFS}), or LUFS, -40 to -5",
    _written_loudness,
)
