"""What values a field of a request may have; each check names the field in its RequestError.

Pure; it must not know which requests there are.
"""

from __future__ import annotations

import math
from fractions import Fraction

from reel_modal.errors import RequestError

__all__ = ["at_least_zero", "finite", "in_order", "not_empty", "positive", "share", "within"]


def not_empty(name: str, value: str) -> None:
    """Refuse a text that is empty or blank."""
    if not isinstance(value, str) or not value.strip():
        raise RequestError(name, f"must be a text that is not empty, not {value!r}")


def finite(name: str, value: float | Fraction) -> None:
    """Refuse NaN and infinity."""
    if not math.isfinite(value):
        raise RequestError(name, f"must be a finite number, not {value!r}")


def at_least_zero(name: str, value: float | Fraction) -> None:
    """Refuse what is below 0."""
    finite(name, value)
    if value < 0:
        raise RequestError(name, f"is {float(value):g}; it must be 0 or more")


def in_order(name: str, value: Fraction, earlier: str, before: Fraction) -> None:
    """Refuse a time that is not behind another one, which `earlier` names."""
    if value <= before:
        raise RequestError(name, f"is {float(value):g}; {earlier} is {float(before):g}, and it must be later")


def positive(name: str, value: float) -> None:
    """Refuse what is not above 0."""
    finite(name, value)
    if value <= 0:
        raise RequestError(name, f"is {value:g}; it must be above 0")


def share(name: str, value: float) -> None:
    """Refuse what is no share of a whole, 0 to 1."""
    within(name, value, 0, 1)


def within(name: str, value: float | Fraction, least: float | Fraction, most: float | Fraction) -> None:
    """Refuse what is not between `least` and `most`, both allowed."""
    finite(name, value)
    if not least <= value <= most:
        bounds = f"{float(least):g} and {float(most):g}"
        raise RequestError(name, f"is {float(value):g}; it must be between {bounds}")
