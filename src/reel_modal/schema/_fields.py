"""Declarations of the fields of requests and results: type, bounds, aliases and default.

The constructor, `parse`, `to_dict`, the JSON Schema, the TypeScript types and the tables in the documentation are
derived from them.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    NoReturn,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    dataclass_transform,
    overload,
)

from reel_modal.errors import RequestError
from reel_modal.schema._numbers import MOST_DIGITS, exact, kind_of, shown

__all__ = [
    "LONGEST_TEXT",
    "Field",
    "Kind",
    "Raw",
    "Record",
    "declared",
    "decode",
    "decode_json",
    "fields_of",
    "join",
    "record",
]

S = TypeVar("S")
T = TypeVar("T")

Raw: TypeAlias = Mapping[str, object] | str | bytes
"""Input of `parse`: a mapping, or a JSON object as text."""

LONGEST_TEXT: Final = 1 << 20
"""Maximum characters of a JSON text. A request with 10,000 keyframes has fewer; any text is rejected within 0.1 s."""

_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Kind(Generic[S, T]):
    """Conversion, serialization and description of one type of value.

    Attributes:
        convert: Returns the converted and checked value, or raises a RequestError whose path begins at the value.
        schema: JSON Schema of the value.
        summary: Short description of the accepted values, for the documentation.
        write: Returns the value for JSON; None if the value needs no conversion.
    """

    convert: Callable[[object], T]
    schema: Mapping[str, Any]
    summary: str
    write: Callable[[T], object] | None = None

    def __call__(self, value: S) -> T:
        """Return `value` converted and checked.

        Raises:
            RequestError: The value is not valid for this kind.
        """
        return self.convert(value)


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field.

    Attributes:
        name: Name in Python.
        kind: Kind of the value.
        default: Default value; `dataclasses.MISSING` if the field is required.
        aliases: Other names that `parse` accepts; `trim_range.start` is the field `start` of the object `trim_range`.
        sides: Names of the two wire fields of a (width, height); None for any other value.
        added_later: Whether `to_dict` leaves out the default value, so that existing requests keep their hash.
    """

    name: str
    kind: Kind[Any, Any]
    default: object
    aliases: tuple[str, ...]
    sides: tuple[str, str] | None
    added_later: bool

    @property
    def required(self) -> bool:
        """Whether the field has no default."""
        return self.default is dataclasses.MISSING

    def spellings(self) -> Iterator[tuple[str, int | None]]:
        """Yield each name that `parse` accepts, with the index of the side (0 or 1) if it is one side of a size."""
        names: list[tuple[str, int | None]] = [(self.name, None)]
        if self.sides is None:
            names += [(alias, None) for alias in self.aliases]
        else:
            # The aliases of a size name its sides.
            names += [(side, number % 2) for number, side in enumerate((*self.sides, *self.aliases))]
        for name, side in names:
            yield name, side
            yield ".".join(map(_camel, name.split("."))), side


@overload
def declared(
    *,
    converter: Kind[S, T],
    default: T,
    aliases: tuple[str, ...] = (),
    sides: tuple[str, str] | None = None,
    kw_only: bool = True,
    added_later: bool = False,
) -> T: ...
@overload
def declared(
    *,
    converter: Kind[S, T],
    aliases: tuple[str, ...] = (),
    sides: tuple[str, str] | None = None,
    kw_only: bool = True,
) -> T: ...
def declared(
    *,
    converter: Any,
    default: Any = dataclasses.MISSING,
    aliases: tuple[str, ...] = (),
    sides: tuple[str, str] | None = None,
    kw_only: bool = True,
    added_later: bool = False,
) -> Any:
    """Declare a field of a `record`; see `Field`. The constructor accepts the values that `converter` accepts."""
    metadata = {
        "kind": converter,
        "default": default,
        "aliases": aliases,
        "sides": sides,
        "added_later": added_later,
    }
    if isinstance(default, Mapping):  # dataclasses refuse a default that is not hashable
        return dataclasses.field(default_factory=lambda: default, metadata=metadata, kw_only=kw_only)
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(declared, dataclasses.field))
def record(cls: type[T]) -> type[T]:
    """Turn a class with declared fields into a frozen dataclass that converts its arguments."""
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


class Record:
    """Base class of requests, results and their parts. An invalid value raises a RequestError that names its path."""

    __slots__ = ()
    _noun: ClassVar[str] = "request"

    def __post_init__(self) -> None:
        for field in fields_of(type(self)):
            original = value = getattr(self, field.name)
            if value is None and not field.required:
                value = field.default
            if value is not None or field.required:
                try:
                    value = field.kind.convert(value)
                except RequestError as error:
                    _raise_below(error, field.name if field.sides is None or not error.path else "")
            if value is not original:
                object.__setattr__(self, field.name, value)
        self._check()

    def _check(self) -> None:
        """Raise RequestError if values are valid one by one, but not together."""

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Return the record parsed from JSON or a mapping; accepts snake_case, camelCase and older names.

        Raises:
            RequestError: A field is invalid, unknown, missing, or given twice with different values; `path` names it.
        """
        return cls.from_mapping(decode(raw, cls._noun))

    @classmethod
    def from_mapping(cls, raw: Mapping[str, object], **given: object) -> Self:
        """Return the record parsed from a mapping. The mapping must not contain the fields `given` by the caller."""
        sent: dict[str, list[tuple[str, int | None, object]]] = {}
        _gather(raw, _spellings_of(cls), "", sent)
        for name in given:
            if name in sent:
                raise RequestError(name, f"is set by the server; leave {sent[name][0][0]!r} out of the {cls._noun}")
        values = dict(given)
        for field in fields_of(cls):
            if field.name in sent:
                values[field.name] = _agreed(field, sent[field.name])
            elif field.required and field.name not in given:
                raise RequestError(field.sides[0] if field.sides else field.name, "is missing")
        try:
            return cls(**values)
        except RequestError as error:
            raise _as_sent(error, sent) from error.__cause__

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-serializable dict that `parse` accepts."""
        wire: dict[str, object] = {}
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if field.added_later and value == field.default:
                continue
            if field.sides is not None:
                wire |= zip(field.sides, value or (None, None), strict=True)
            elif value is None or field.kind.write is None:
                wire[field.name] = value
            else:
                wire[field.name] = field.kind.write(value)
        return wire


def fields_of(kind: type[Record]) -> tuple[Field, ...]:
    """Return the declared fields of a record. Its other fields are not serialized."""
    fields = _FIELDS.get(kind)
    if fields is None:
        declared_fields: Iterable[dataclasses.Field[Any]] = dataclasses.fields(cast("Any", kind))
        fields = tuple(Field(name=each.name, **each.metadata) for each in declared_fields if each.metadata)
        _FIELDS[kind] = fields
    return fields


def _spellings_of(kind: type[Record]) -> Mapping[str, Any]:
    """Return (field, side of a size) by each name that `parse` accepts; a group of names is a nested mapping."""
    spellings = _SPELLINGS.get(kind)
    if spellings is None:
        spellings = {}
        for field in fields_of(kind):
            for name, side in field.spellings():
                *groups, last = name.split(".")
                within = spellings
                for group in groups:
                    within = within.setdefault(group, {})
                within[last] = (field, side)
        _SPELLINGS[kind] = spellings  # stored only when complete: other threads may parse at the same time
    return spellings


_FIELDS: Final[dict[type[Record], tuple[Field, ...]]] = {}
_SPELLINGS: Final[dict[type[Record], dict[str, Any]]] = {}


def join(path: str, name: str | int) -> str:
    """Return the path of `name` below `path`, such as `regions[2].id`."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    if not path or not name:
        return path or name
    return f"{path}{name}" if name.startswith("[") else f"{path}.{name}"


def decode_json(text: str | bytes | bytearray, noun: str) -> object:
    """Return the JSON value in `text`.

    Raises:
        RequestError: The text is not JSON, is too long or nested too deeply, or has a duplicate name in an object.
    """
    if len(text) > LONGEST_TEXT:
        raise RequestError("", f"{noun} is too long; at most {LONGEST_TEXT} characters are accepted")
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_whole_number, parse_constant=_refuse_constant)
    except RequestError:
        raise
    except RecursionError as error:
        raise RequestError("", f"{noun} is nested too deeply") from error
    except ValueError as error:
        raise RequestError("", f"{noun} is not JSON: {error}") from error


def decode(raw: object, noun: str) -> Mapping[str, object]:
    """Return the JSON object in `raw`.

    Raises:
        RequestError: `raw` is not a JSON object; see `decode_json`.
    """
    value = decode_json(raw, f"the {noun}") if isinstance(raw, (str, bytes, bytearray)) else raw
    if not isinstance(value, Mapping):
        raise RequestError("", f"a {noun} must be a JSON object, not {kind_of(value)}")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise RequestError("", f"{shown(counts.most_common(1)[0][0])} appears twice in one object")
    return unique


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise RequestError("", f"a number has {len(digits)} digits; at most {MOST_DIGITS} are accepted")
    return int(digits)


def _refuse_constant(word: str) -> NoReturn:
    raise RequestError("", f"{word} is not JSON; a number must be finite")


def _raise_below(error: RequestError, name: str | int) -> NoReturn:
    """Raise `error` again with `name` prepended to its path."""
    path = f"[{name}]" if isinstance(name, int) else name
    raise RequestError(join(path, error.path), error.problem) from error.__cause__


def _gather(
    raw: Mapping[str, object],
    spellings: Mapping[str, Any],
    group: str,
    sent: dict[str, list[tuple[str, int | None, object]]],
) -> None:
    """Collect the values in `raw` by the name of their field."""
    for key, value in raw.items():
        target = spellings.get(key) if isinstance(key, str) else None
        name = f"{group}{key}"
        if target is None:
            raise _unknown(key, spellings, group)
        if isinstance(target, tuple):
            field, side = target
            sent.setdefault(field.name, []).append((name, side, value))
        elif isinstance(value, Mapping):
            _gather(value, target, f"{name}.", sent)
        elif value is not None:
            raise RequestError(_snake(key), f"must be an object, not {kind_of(value)}")


def _as_sent(error: RequestError, sent: Mapping[str, list[tuple[str, int | None, object]]]) -> RequestError:
    """Return `error` with the name that the sender used for the field, if it is not the canonical name."""
    for name, _, _ in sent.get(error.path, ()):
        if _snake(name) != error.path:
            return RequestError(error.path, f"{error.problem} (sent as {name!r})")
    return error


def _unknown(key: object, spellings: Mapping[str, object], group: str) -> RequestError:
    """Return the error for an unknown field."""
    import difflib

    name = key if isinstance(key, str) and len(key) <= _LONGEST_NAME and key.isprintable() else shown(key)
    near = difflib.get_close_matches(name, sorted(spellings), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return RequestError(join(_snake(group.removesuffix(".")), name), f"is not a known field{hint}")


def _agreed(field: Field, sent: list[tuple[str, int | None, object]]) -> object:
    """Return the value of a field that may be given under several names, which must agree."""
    if field.sides is not None:
        return _agreed_size(field, sent)
    (first, _, value), *others = sent
    for other, _, again in others:
        if not _same(field, value, again):
            # If one of the two names is in a group, null means absent.
            if "." in first + other and (value is None or again is None):
                value = again if value is None else value
                continue
            raise RequestError(
                field.name,
                f"{first!r} is {shown(value)} but {other!r} is {shown(again)}; send one of them",
            )
    return value


def _agreed_size(field: Field, sent: list[tuple[str, int | None, object]]) -> object:
    """Return a size given as two sides, as a pair or as both, which must agree; None if neither is given."""
    names = field.sides or ("", "")
    sides: list[object] = [None, None]
    pair = None
    for name, side, value in sent:
        if side is None:
            pair = value
        elif value is None or sides[side] is None:
            sides[side] = value if sides[side] is None else sides[side]
        elif _number(sides[side], names[side]) != _number(value, names[side]):
            raise RequestError(
                names[side], f"is {shown(sides[side])}, but {name!r} is {shown(value)}; send one of them"
            )
    missing = [name for name, side in zip(names, sides, strict=True) if side is None]
    if len(missing) == 2:
        return pair
    if missing:
        raise RequestError(missing[0], "is missing; send both sides or neither")
    if pair is not None and not _same(field, pair, tuple(sides)):
        raise RequestError(field.name, f"and {' and '.join(names)} differ; send one of them")
    return tuple(sides)


def _number(value: object, name: str) -> Fraction:
    try:
        return exact(value)
    except ValueError as error:
        raise RequestError(name, str(error)) from error


def _same(field: Field, one: object, other: object) -> bool:
    """Return whether two values of a field are equal after conversion."""
    if one is None or other is None:
        return one is other
    try:
        return bool(field.kind.convert(one) == field.kind.convert(other))
    except RequestError as error:
        _raise_below(error, field.name)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
