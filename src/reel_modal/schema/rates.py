"""Frame rates: the one rule that makes a number of frames a second exact."""

from __future__ import annotations

from fractions import Fraction
from numbers import Rational
from typing import Final

from reel_modal.errors import ConfigError
from reel_modal.schema._numbers import Number, exact, shown, without_numpy

__all__ = ["frame_rate"]

# ffmpeg reads a rate's terms up to this and takes the nearest such rate for any other (libavutil/parseutils.c).
_LARGEST_TERM: Final = 1_001_000
_NTSC_TOLERANCE: Final = Fraction(5, 1000)


def frame_rate(value: Number) -> Fraction:
    """Return `value` frames a second as an exact rate.

    A decimal number (a float, a `Decimal` or a text such as `29.97`) is how people write 30000/1001, so one within
    0.005 of an NTSC rate is that rate. A `Fraction`, or a text such as `2997/100`, means itself. Terms above
    1,001,000, which ffmpeg does not take, are reduced to the nearest rate that it does.

    Raises:
        ConfigError: The rate is not positive and finite, or out of ffmpeg's range.

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
        raise ConfigError(f"frame rate {shown(rate)} must be above 0 frames a second")
    if not Fraction(1, _LARGEST_TERM) <= rate <= _LARGEST_TERM:
        raise ConfigError(
            f"frame rate {shown(rate)} is out of ffmpeg's range: at most {_LARGEST_TERM} frames in a second"
        )
    return rate.limit_denominator(int(_LARGEST_TERM / max(Fraction(1), rate)))


def _meant(rate: Fraction) -> Fraction:
    """Return the NTSC rate that a decimal number stands for, or the number itself."""
    whole = round(rate * Fraction(1001, 1000))
    ntsc = Fraction(whole * 1000, 1001)
    return ntsc if whole > 0 and rate.denominator > 1 and abs(ntsc - rate) < _NTSC_TOLERANCE else rate
