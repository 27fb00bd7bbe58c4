"""Conversion of numbers and numeric strings to exact fractions, with bounds on digits and exponents."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from numbers import Rational
from typing import Final, TypeAlias

__all__ = ["MOST_DIGITS", "Number", "exact", "kind_of", "shown", "without_numpy"]

Number: TypeAlias = Fraction | Decimal | float | str
"""Accepted types of an exact number; numpy scalars count as `int` and `float`."""

MOST_DIGITS: Final = 400
"""Maximum digits of a numerator and of a denominator. Every float that a field allows has fewer; sums stay fast."""

_MOST_BITS: Final = math.floor(MOST_DIGITS * math.log2(10))
_MOST_CHARACTERS: Final = 2 * MOST_DIGITS + 10
_SHOWN_CHARACTERS: Final = 60
_DECIMAL: Final = re.compile(r"[+-]?(?P<whole>\d*)(?:\.(?P<part>\d*))?(?:[eE](?P<exponent>[+-]?\d+))?", re.ASCII)
_KINDS: Final = {
    type(None): "null",
    bool: "a boolean",
    str: "a string",
    bytes: "bytes",
    dict: "an object",
    list: "a list",
    tuple: "a list",
}


def exact(value: object) -> Fraction:
    """Return `value` as an exact fraction. A float is read as its decimal repr; a string may be `1.5` or `3/2`.

    Raises:
        ValueError: The value is not a finite number, or has too many digits; the message says which.
    """
    value = without_numpy(value)
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"must be a finite number, not {value!r}")
        return Fraction(int(value)) if value.is_integer() else Fraction(Decimal(repr(value)))
    if isinstance(value, Decimal):
        return _from_decimal(value)
    if not isinstance(value, Rational) or isinstance(value, bool):
        raise ValueError(f"must be a number, not {kind_of(value)}")  # noqa: TRY004 - the caller names the field
    # Convert to Python integers: those of other libraries may overflow.
    numerator, denominator = int(value.numerator), int(value.denominator)
    if max(abs(numerator), denominator).bit_length() > _MOST_BITS:
        raise ValueError(f"has more than {MOST_DIGITS} digits")
    return value if type(value) is Fraction else Fraction(numerator, denominator)


def without_numpy(value: object) -> object:
    """Return a numpy scalar as a Python number (a float through its decimal repr), any other value unchanged."""
    if type(value).__module__ != "numpy" or getattr(value, "shape", None) != ():
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "f":
        return float(str(value))
    return getattr(value, "item", lambda: value)() if kind in {"i", "u", "b"} else value


def shown(value: object) -> str:
    """Return a short representation of `value` for an error message, however large the value is."""
    value = without_numpy(value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, int | Fraction | Decimal) and not isinstance(value, bool):
        if not _is_moderate(value):
            return "a number with too many digits"
        return str(int(value)) if value == int(value) else f"{float(value):g}"
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]!r}…"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "[]"
    return kind_of(value)


def kind_of(value: object) -> str:
    """Return the name of the JSON type of `value`; for a number, return the number itself."""
    if isinstance(value, int | float | Fraction | Decimal) and not isinstance(value, bool):
        return shown(value)
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def _is_moderate(value: Fraction | Decimal | int) -> bool:
    """Return whether the number is short enough to be shown in a message."""
    if isinstance(value, Decimal):
        return value.is_finite() and abs(value.adjusted()) <= _SHOWN_CHARACTERS
    return max(abs(value.numerator), value.denominator).bit_length() <= 4 * _SHOWN_CHARACTERS


def _from_text(text: str) -> Fraction:
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"has {len(text)} characters; a number has at most {_MOST_CHARACTERS}")
    numerator, slash, denominator = text.strip().partition("/")
    value = _from_digits(numerator, text)
    if not slash:
        return value
    below = _from_digits(denominator, text)
    if below == 0:
        raise ValueError(f"{shown(text)} divides by zero")
    return value / below


def _from_digits(digits: str, text: str) -> Fraction:
    match = _DECIMAL.fullmatch(digits.strip())
    if match is None or not (match["whole"] or match["part"]):
        raise ValueError(f"{shown(text)} is not a number")
    if len(digits) + abs(int(match["exponent"] or 0)) > MOST_DIGITS:
        raise ValueError(f"{shown(text)} has more than {MOST_DIGITS} digits")
    return Fraction(digits.strip())


def _from_decimal(value: Decimal) -> Fraction:
    if not value.is_finite():
        raise ValueError(f"must be a finite number, not {value}")
    _, digits, exponent = value.as_tuple()
    if len(digits) + abs(int(exponent)) > MOST_DIGITS:
        raise ValueError(f"has more than {MOST_DIGITS} digits")
    return Fraction(value)
