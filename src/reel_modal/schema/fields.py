"""Declare the fields of a request or a result: a `record` with fields that are `declared` with a kind of value.

A kind converts and checks one value; the constructor, `parse`, `to_dict` and the request's hash follow from it.
Besides the functions that return a kind, there are kinds without parameters:

Attributes:
    COLOR: A color, `#rrggbb`.
    RATE: A frame rate in frames per second, 1 to 240, as an exact `Fraction`; 29.97 is 30000/1001.
    RATIO: An aspect ratio, 0.1 to 10, as an exact `Fraction`; accepts `9:16`.
    SECONDS: A time in seconds, 0 to 10,000,000, as an exact `Fraction`.
    boolean: A boolean.

Example:
    >>> @record
    ... class CardRequest(Request[CardResult]):
    ...     title: str = declared(converter=string(80))
    ...     width_px: int = declared(converter=integer(16, 4096), default=1280, aliases=("width",))
    ...     at_seconds: Fraction = declared(converter=SECONDS, default=Fraction(0))
"""

from __future__ import annotations

from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import (
    COLOR,
    RATE,
    RATIO,
    SECONDS,
    boolean,
    choice,
    decimal,
    identifier,
    integer,
    json_object,
    list_of,
    matching,
    nested,
    number,
    numbers_by_name,
    optional,
    size,
    string,
)

__all__ = [
    "COLOR",
    "RATE",
    "RATIO",
    "SECONDS",
    "Kind",
    "Record",
    "boolean",
    "choice",
    "decimal",
    "declared",
    "identifier",
    "integer",
    "json_object",
    "list_of",
    "matching",
    "nested",
    "number",
    "numbers_by_name",
    "optional",
    "record",
    "size",
    "string",
]
