"""Conversion of frame rates to exact fractions."""

from __future__ import annotations

from fractions import Fraction
from numbers import Rational
from typing import Final

from reel_modal.errors import ConfigError
from reel_modal.schema._numbers import Number, exact, shown, without_numpy

__all__ = ["frame_rate"]

# ffmpeg limits the terms of a rate to this and rounds other rates to the nearest such one (libavutil/parseutils.c).
_LARGEST_TERM: Final = 1_001_000
_NTSC_TOLERANCE: Final = Fraction(5, 1000)


def frame_rate(value: Number) -> Fraction:
    """Return `value`, in frames per second, as an exact rate.

    A decimal number (a float, a `Decimal` or a string such as `29.97`) within 0.005 of an NTSC rate is that rate,
    such as 30000/1001. A `Fraction` or a string such as `2997/100` is taken literally. ffmpeg accepts numerators and
    denominators up to 1,001,000; a rate with larger ones is rounded to the nearest accepted rate.

    Raises:
        ConfigError: The rate is not a positive finite number, or is outside ffmpeg's range.

    Example:
        >>> frame_rate(29.97), frame_rate("59.94"), frame_rate(12.5)
        (Fraction(30000, 1001), Fraction(60000, 1001), Fraction(25, 2))
    """
    try:
        rate = exact(value)
    except ValueError as error:
        raise ConfigError(f"frame rate {error}; write 29.97 or '30000/1001'") from error
    if not (isinstance(without_numpy(value), Rational) or (isinstance(value, str) and "/" in value)):
        rate = _meant(rate)
    if rate <= 0:
        raise ConfigError(f"frame rate {shown(rate)} must be above 0 frames per second")
    if not Fraction(1, _LARGEST_TERM) <= rate <= _LARGEST_TERM:
        raise ConfigError(
            f"frame rate {shown(rate)} is out of ffmpeg's range: at most {_LARGEST_TERM} frames per second"
        )
    return rate.limit_denominator(int(_LARGEST_TERM / max(Fraction(1), rate)))


def _meant(rate: Fraction) -> Fraction:
    """Return the NTSC rate that a decimal number approximates, or the number itself."""
    whole = round(rate * Fraction(1001, 1000))
    ntsc = Fraction(whole * 1000, 1001)
    return ntsc if whole > 0 and rate.denominator > 1 and abs(ntsc - rate) < _NTSC_TOLERANCE else rate
