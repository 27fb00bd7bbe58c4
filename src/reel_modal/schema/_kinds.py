"""Kinds of field values: each kind converts and checks one value, within microseconds."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from reel_modal.errors import ConfigError, InvalidKeyError, RequestError
from reel_modal.schema._fields import Kind, Record, join
from reel_modal.schema._numbers import Number, exact, kind_of, shown, without_numpy
from reel_modal.schema.keys import LONGEST_KEY_BYTES, check_key, check_user_id
from reel_modal.schema.rates import frame_rate

__all__ = [
    "COLOR",
    "JOB_ID",
    "KEY",
    "MOST_SECONDS",
    "OUTPUT_RATE",
    "RATE",
    "RATIO",
    "SECONDS",
    "USER_ID",
    "Rate",
    "Size",
    "boolean",
    "choice",
    "decimal",
    "identifier",
    "integer",
    "json_object",
    "list_of",
    "matching",
    "nested",
    "number",
    "numbers_by_name",
    "optional",
    "size",
    "string",
]

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R", bound=Record)

Rate: TypeAlias = Literal["constant", "source"] | Fraction
"""Frame rate of an output: `constant`, `source` (the source's timestamps), or a number of frames per second."""

Size: TypeAlias = Sequence[int] | Mapping[str, object] | str
"""Accepted forms of a (width, height): a pair, `{"width": 1920, "height": 1080}`, or `1920x1080`."""

MOST_SECONDS: Final = 10_000_000
"""Largest time in a request, in seconds: almost four months."""

_LONGEST_STRING: Final = 1 << 20
_LONGEST_ID: Final = 240
_LONGEST_PAIR: Final = 32
_MOST_NAMES: Final = 1000
_LARGEST_WHOLE: Final = 1 << 63
_MISSING: Final = frozenset({"None", "null", "undefined", "NaN"})
_DECIMAL: Final = "[+-]?[0-9.]+([eE][+-]?[0-9]+)?"
_EXACT: Final = rf"^\s*{_DECIMAL}(\s*/\s*{_DECIMAL})?\s*$"
_WRITE: Final = "write 1.5 or '3/2'"


def _exact(value: object, cure: str = "") -> Fraction:
    try:
        return exact(value)
    except ValueError as error:
        how = f"; {cure}" if cure and isinstance(value, str) else ""
        raise RequestError("", f"{error}{how}") from error


def _bounds(
    least: float | Fraction, most: float | Fraction, above: float | None
) -> Callable[[float | Fraction], None]:
    """Return a function that raises RequestError if a number is out of bounds."""
    if above is not None:
        least, allowed = math.nextafter(above, math.inf), f"above {_short(above)}"
        allowed += f" and at most {_short(most)}" if math.isfinite(most) else ""
    elif math.isfinite(most):
        allowed = f"between {_short(least)} and {_short(most)}"
    else:
        allowed = f"{_short(least)} or more"

    def check(value: float | Fraction) -> None:
        if not least <= value <= most:
            raise RequestError("", f"is {shown(value)}; it must be {allowed}")

    return check


def _limits(least: float, most: float, above: float | None) -> dict[str, float]:
    """Return the bounds as JSON Schema keywords."""
    limits = {"minimum": least, "maximum": most} if above is None else {"exclusiveMinimum": above, "maximum": most}
    return {name: limit for name, limit in limits.items() if math.isfinite(limit)}


def _summary(noun: str, least: float, most: float, above: float | None) -> str:
    """Return a description of the bounds for the documentation."""
    if above is not None:
        return f"{noun}, above {_short(above)}" + (f", at most {_short(most)}" if math.isfinite(most) else "")
    return f"{noun}, {_short(least)} to {_short(most)}" if math.isfinite(most) else noun


def _short(value: float | Fraction) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() else f"{number:g}"


def _plain(value: Fraction) -> float | int | str:
    """Return an exact number for JSON: a number if it can be read back exactly, else the string `n/d`."""
    if value.denominator == 1:
        return value.numerator
    near = float(value)
    return near if Fraction(Decimal(repr(near))) == value else str(value)


def number(least: float = -math.inf, most: float = math.inf, *, above: float | None = None) -> Kind[Number, float]:
    """Return the kind of a finite number from `least` to `most`; `above` is an exclusive lower bound."""
    within = _bounds(least, most, above)

    def convert(value: object) -> float:
        if type(value) is not float:
            value = without_numpy(value)
            if isinstance(value, bool) or not isinstance(value, (float, int, Fraction, Decimal)):
                raise RequestError("", f"must be a number, not {kind_of(value)}")
            if not isinstance(value, float):
                try:
                    value = float(value)
                except (OverflowError, ValueError) as error:  # a Decimal may be a signalling NaN
                    raise RequestError("", f"is {shown(value)}, which is not finite") from error
        if not math.isfinite(value):
            raise RequestError("", f"must be a finite number, not {value!r}")
        within(value)
        return value

    return Kind(convert, {"type": "number", **_limits(least, most, above)}, _summary("number", least, most, above))


def decimal(least: Fraction | float, most: Fraction | float, *, unit: str = "number") -> Kind[Number, Fraction]:
    """Return the kind of an exact number from `least` to `most`; accepts strings such as `1.5` and `3/2`."""
    within, low, high = _bounds(least, most, None), Fraction(least), Fraction(most)

    def convert(value: object) -> Fraction:
        read = _exact(value, _WRITE)
        numerator, denominator = read.numerator, read.denominator
        # Comparing integers is many times faster than comparing fractions.
        if (
            low.numerator * denominator > numerator * low.denominator
            or numerator * high.denominator > high.numerator * denominator
        ):
            within(read)
        return read

    limits = _limits(float(least), float(most), None)
    schema = [{"type": "number", **limits}, {"type": "string", "pattern": _EXACT}]
    return Kind(convert, {"anyOf": schema}, _summary(unit, float(least), float(most), None), _plain)


def integer(least: int = -_LARGEST_WHOLE, most: int = _LARGEST_WHOLE) -> Kind[float | Fraction, int]:
    """Return the kind of an integer from `least` to `most`; accepts 2.0 as 2."""
    within = _bounds(least, most, None)

    def convert(value: object) -> int:
        if type(value) is not int:
            value = without_numpy(value)
        if isinstance(value, str):
            raise RequestError("", "must be a number, not a string")
        read = _exact(value)
        if read.denominator != 1:
            raise RequestError("", f"must be a whole number, not {shown(value)}")
        within(read.numerator)
        return read.numerator

    wide = abs(least) == most == _LARGEST_WHOLE
    limits = {} if wide else _limits(least, most, None)
    return Kind(
        convert, {"type": "integer", **limits}, "whole number" if wide else f"whole number, {least} to {most}"
    )


def _convert_boolean(value: object) -> bool:
    read = without_numpy(value)
    if not isinstance(read, bool):
        raise RequestError("", f"must be true or false, not {kind_of(read)}")
    return read


boolean: Final[Kind[bool, bool]] = Kind(_convert_boolean, {"type": "boolean"}, "true or false")


def string(most: int = _LONGEST_STRING, *, empty: bool = False, lines: bool = False) -> Kind[str, str]:
    """Return the kind of a string of at most `most` characters.

    Args:
        most: Maximum number of characters.
        empty: Whether the string may be empty.
        lines: Whether the string may contain control characters, such as newlines.
    """

    def convert(value: object) -> str:
        if not isinstance(value, str):
            raise RequestError("", f"must be a string, not {kind_of(value)}")
        if len(value) > most:
            raise RequestError("", f"has {len(value)} characters; at most {most} are accepted")
        if not value.strip() and not (empty and not value):
            raise RequestError("", "must not be empty")
        if not value.isprintable():
            refused = {"Cs"} if lines else {"Cc", "Cs"}
            bad = next((each for each in value if unicodedata.category(each) in refused), None)
            if bad is not None:
                raise RequestError("", f"has the character {bad!a}, which is not allowed")
        return str(value)

    schema = {"type": "string", "maxLength": most, **({} if empty else {"minLength": 1})}
    return Kind(convert, schema, f"string, at most {most} characters")


def identifier(most: int) -> Kind[str | int, str]:
    """Return the kind of an id of at most `most` characters; accepts integers, such as database keys."""
    text = string(most)

    def convert(value: object) -> str:
        value = without_numpy(value)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(_exact(value))
        read = text.convert(value)
        if read in _MISSING:
            raise RequestError("", f"is {read!r}, which stands for a missing value")
        return read

    return Kind(convert, {"anyOf": [text.schema, {"type": "integer"}]}, f"{text.summary}, or whole number")


def matching(pattern: str, problem: str, summary: str, *, most: int = 64) -> Kind[str, str]:
    """Return the kind of a string that fully matches `pattern`; `problem` follows the value in the error message."""
    compiled, text = re.compile(pattern), string()
    at_most = f", at most {most} characters" if "*" in pattern else ""

    def convert(value: object) -> str:
        read = text.convert(value)
        if len(read) > most or compiled.fullmatch(read) is None:
            raise RequestError("", f"is {shown(read)}; {problem}")
        return read

    return Kind(convert, {"type": "string", "pattern": f"^({pattern})$", "maxLength": most}, f"{summary}{at_most}")


def choice(alias: object) -> Kind[Any, Any]:
    """Return the kind of one of the values of a `Literal`."""
    words = get_args(alias)

    def convert(value: object) -> Any:
        plain = without_numpy(value)
        if isinstance(plain, (str, int, float)) and not isinstance(plain, bool):
            for word in words:
                if plain == word:
                    return word
        raise RequestError("", f"is {shown(plain)}; use one of {', '.join(map(str, words))}")

    return Kind(convert, {"enum": list(words)}, ", ".join(f"`{word}`" for word in words))


def optional(kind: Kind[S, T]) -> Kind[S | None, T | None]:
    """Return the kind of an optional value, for a field whose default is None."""
    schema = {"anyOf": [*kind.schema.get("anyOf", [kind.schema]), {"type": "null"}]}
    return Kind(kind.convert, schema, kind.summary, kind.write)  # type: ignore[arg-type] # None is not written


def nested(kind: type[R]) -> Kind[R | Mapping[str, object], R]:
    """Return the kind of a nested record, given as the record or as a mapping of its fields."""

    def convert(value: object) -> R:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise RequestError("", f"must be an object, not {kind_of(value)}")
        return kind.from_mapping(value)

    return Kind(convert, {"$ref": f"#/$defs/{kind.__name__}"}, f"`{kind.__name__}`", kind.to_dict)


def list_of(kind: Kind[S, T], most: int) -> Kind[Sequence[S], tuple[T, ...]]:
    """Return the kind of a list of at most `most` values."""

    def convert(value: object) -> tuple[T, ...]:
        if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, Sequence):
            raise RequestError("", f"must be a list, not {kind_of(value)}")
        if len(value) > most:
            raise RequestError("", f"has {len(value)} items; at most {most} are accepted")
        read: list[T] = []
        try:
            for item in value:
                read.append(kind.convert(item))  # noqa: PERF401 - the length is the index of a wrong item
        except RequestError as error:
            raise RequestError(join(f"[{len(read)}]", error.path), error.problem) from error.__cause__
        return tuple(read)

    def write(values: tuple[T, ...]) -> object:
        return list(values) if kind.write is None else [kind.write(value) for value in values]

    schema = {"type": "array", "items": kind.schema, "maxItems": most}
    return Kind(convert, schema, f"list of {kind.summary}, at most {most}", write)


def numbers_by_name() -> Kind[Mapping[str, float], Mapping[str, float]]:
    """Return the kind of a mapping from names to numbers."""
    name, one = string(64), number()

    def convert(value: object) -> Mapping[str, float]:
        if not isinstance(value, Mapping):
            raise RequestError("", f"must be an object, not {kind_of(value)}")
        if len(value) > _MOST_NAMES:
            raise RequestError("", f"has {len(value)} names; at most {_MOST_NAMES} are accepted")
        read = {}
        for key, number_ in value.items():
            try:
                read[name.convert(key)] = one.convert(number_)
            except RequestError as error:
                raise RequestError(shown(key), error.problem) from error
        return read

    return Kind(convert, {"type": "object", "additionalProperties": one.schema}, "numbers by name", dict)


def json_object() -> Kind[Mapping[str, object], Mapping[str, object]]:
    """Return the kind of any JSON object."""

    def convert(value: object) -> Mapping[str, object]:
        if not isinstance(value, Mapping):
            raise RequestError("", f"must be an object, not {kind_of(value)}")
        try:
            text = json.dumps(dict(value), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError("", f"cannot be written as JSON: {error}") from error
        if len(text) > _LONGEST_STRING:
            raise RequestError("", f"is too long as JSON; at most {_LONGEST_STRING} characters are accepted")
        return dict(value)

    return Kind(convert, {"type": "object"}, "any JSON object")


def size(sides: tuple[str, str], least: int, most: int, *, even: bool = False) -> Kind[Size, tuple[int, int]]:
    """Return the kind of a (width, height), which the wire format splits into the two fields `sides`."""
    side = integer(least, most)

    def convert(value: object) -> tuple[int, int]:
        pair = value
        if isinstance(value, str):
            width, _, height = value.lower().partition("x")
            digits = len(value) <= _LONGEST_PAIR and width.isdecimal() and height.isdecimal()
            pair = (int(width), int(height)) if digits else None
        elif isinstance(value, Mapping):
            pair = (value["width"], value["height"]) if value.keys() == {"width", "height"} else None
        if isinstance(pair, (bytes, bytearray)) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise RequestError(
                "", f"is {shown(value)}; write the width and the height, such as 1920x1080 or [1920, 1080]"
            )
        return read_side(pair[0], 0), read_side(pair[1], 1)

    def read_side(value: object, index: int) -> int:
        try:
            read = side.convert(value)
        except RequestError as error:
            raise RequestError(sides[index], error.problem) from error.__cause__
        if even and read % 2:
            raise RequestError(sides[index], f"is {read}; video with 4:2:0 chroma has even sides")
        return read

    schema = {**side.schema, "multipleOf": 2} if even else side.schema
    return Kind(convert, schema, f"{'even ' if even else ''}{side.summary}; both or neither")


_within_ratio: Final = _bounds(Fraction(1, 10), 10, None)
_within_rate: Final = _bounds(1, 240, None)


def _convert_ratio(value: object) -> Fraction:
    read = _exact(value.replace(":", "/", 1) if isinstance(value, str) else value, "write 9:16")
    _within_ratio(read)
    return read


def _convert_rate(value: object) -> Fraction:
    try:
        read = frame_rate(value)  # type: ignore[arg-type] # frame_rate checks the type
    except ConfigError as error:
        raise RequestError("", str(error)) from error
    _within_rate(read)
    return read


def _convert_output_rate(value: object) -> Rate:
    if isinstance(value, str) and value in {"constant", "source"}:
        return "source" if value == "source" else "constant"
    try:
        return _convert_rate(value)
    except RequestError as error:
        raise RequestError("", f"{error.problem}; or write constant or source") from error


def _written_rate(value: Rate) -> str:
    return str(value)


def _convert_key(value: object) -> str:
    read = string(LONGEST_KEY_BYTES, lines=True).convert(value)
    try:
        check_key(read)
    except InvalidKeyError as error:
        raise RequestError("", str(error)) from error
    return read


def _convert_user_id(value: object) -> str:
    read = identifier(_LONGEST_ID).convert(value)
    try:
        check_user_id(read)
    except InvalidKeyError as error:
        raise RequestError("", str(error)) from error
    return read


SECONDS: Final = decimal(0, MOST_SECONDS, unit="seconds")
RATIO: Final[Kind[Number, Fraction]] = Kind(
    _convert_ratio,
    {
        "anyOf": [
            {"type": "number", **_limits(0.1, 10, None)},
            {"type": "string", "pattern": _EXACT.replace("/", "[:/]")},
        ]
    },
    "`9:16`, `9/16` or a number, 0.1 to 10",
    str,
)
RATE: Final[Kind[Number, Fraction]] = Kind(
    _convert_rate,
    {"anyOf": [{"type": "number", **_limits(1, 240, None)}, {"type": "string", "pattern": _EXACT}]},
    "frames per second, 1 to 240; 29.97 is 30000/1001",
    str,
)
OUTPUT_RATE: Final[Kind[Number, Rate]] = Kind(
    _convert_output_rate,
    {"anyOf": [{"enum": ["constant", "source"]}, *RATE.schema["anyOf"]]},
    f"`constant`, `source`, or {RATE.summary}",
    _written_rate,
)
JOB_ID: Final = identifier(_LONGEST_ID)
KEY: Final[Kind[str, str]] = Kind(
    _convert_key,
    {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY_BYTES},
    f"key, at most {LONGEST_KEY_BYTES} bytes",
)
USER_ID: Final[Kind[str | int, str]] = Kind(_convert_user_id, JOB_ID.schema, JOB_ID.summary)
COLOR: Final = matching("#[0-9a-fA-F]{6}", "write it as #rrggbb", "`#rrggbb`")
