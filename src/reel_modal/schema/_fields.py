"""Fields of requests and results, each declared once: type, bounds, aliases and default.

From a declaration follow the constructor, `parse`, `to_dict`, the JSON Schema, the types for TypeScript and the table
in the documentation.
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
"""What a request is parsed from: a mapping, or the JSON text of one."""

LONGEST_TEXT: Final = 1 << 20
"""Characters of a JSON text: a request of 10,000 keyframes has fewer, and any text is refused within 0.1 s."""

_LONGEST_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class Kind(Generic[S, T]):
    """How one value is read, written and described.

    Attributes:
        convert: Returns the value typed and checked, or raises a RequestError, whose path begins at the value.
        schema: JSON Schema of the value.
        says: The same in a few words, for people.
        write: Returns the value for JSON; None is for values that JSON has.
    """

    convert: Callable[[object], T]
    schema: Mapping[str, Any]
    says: str
    write: Callable[[T], object] | None = None

    def __call__(self, value: S) -> T:
        """Return `value` typed and checked.

        Raises:
            RequestError: It cannot be one.
        """
        return self.convert(value)


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field.

    Attributes:
        name: In Python.
        kind: Of its value.
        default: `dataclasses.MISSING` if the field is required.
        aliases: Other names that `parse` takes; `trim_range.start` is the field `start` of the object `trim_range`.
        sides: The two fields of the wire that a (width, height) is; empty for any other value.
        added_later: Whether the wire does not have it if it has its default, so that requests keep their hash.
    """

    name: str
    kind: Kind[Any, Any]
    default: object
    aliases: tuple[str, ...]
    sides: tuple[str, str] | None
    added_later: bool

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is dataclasses.MISSING

    def spellings(self) -> Iterator[tuple[str, int | None]]:
        """Yield each name that `parse` takes, and of one side of a size its index."""
        names: list[tuple[str, int | None]] = [(self.name, None)]
        if self.sides is None:
            names += [(alias, None) for alias in self.aliases]
        else:
            # The aliases of a size are those of its sides.
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
    """Declare a field of a `record`; see `Field`. Its constructor accepts the values that `converter` accepts."""
    metadata = {"kind": converter, "aliases": aliases, "sides": sides, "added_later": added_later}
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(declared, dataclasses.field))
def record(cls: type[T]) -> type[T]:
    """Make a `Record` out of a class with declared fields: a frozen dataclass that converts its arguments."""
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


class Record:
    """Base of requests, results and their parts: every wrong value is a RequestError that names the path."""

    __slots__ = ()
    _noun: ClassVar[str] = "request"

    def __post_init__(self) -> None:
        for field in fields_of(type(self)):
            given = value = getattr(self, field.name)
            if value is None and not field.required:
                value = field.default
            if value is not None or field.required:
                try:
                    value = field.kind.convert(value)
                except RequestError as error:
                    _raise_below(error, field.name if field.sides is None or not error.path else "")
            if value is not given:
                object.__setattr__(self, field.name, value)
        self._check()

    def _check(self) -> None:
        """Refuse values that are valid one by one, but not together."""

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Read one from JSON, or from a mapping: snake_case, camelCase and older names.

        Raises:
            RequestError: A field is wrong, unknown, missing, or given twice with different values; `path` names it.
        """
        return cls.from_mapping(decode(raw, cls._noun))

    @classmethod
    def from_mapping(cls, raw: Mapping[str, object], **given: object) -> Self:
        """Read one from a mapping; the fields `given` are those of the caller, and the mapping may not have them."""
        found: dict[str, list[tuple[str, int | None, object]]] = {}
        _gather(raw, _spellings_of(cls), "", found)
        for name in given:
            if name in found:
                raise RequestError(name, f"is set by the server; leave {found[name][0][0]!r} out of the {cls._noun}")
        values = dict(given)
        for field in fields_of(cls):
            if field.name in found:
                values[field.name] = _agreed(field, found[field.name])
            elif field.required and field.name not in given:
                raise RequestError(field.sides[0] if field.sides else field.name, "is missing")
        try:
            return cls(**values)
        except RequestError as error:
            raise _as_sent(error, found) from error.__cause__

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON; `parse` takes it back."""
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
    """Return the declared fields of a record; any other field of it does not go over the wire."""
    known = _FIELDS.get(kind)
    if known is None:
        declared_fields: Iterable[dataclasses.Field[Any]] = dataclasses.fields(cast("Any", kind))
        known = tuple(
            Field(name=each.name, default=each.default, **each.metadata) for each in declared_fields if each.metadata
        )
        _FIELDS[kind] = known
    return known


def _spellings_of(kind: type[Record]) -> Mapping[str, Any]:
    """Return the field, and the side of a size, by each name that `parse` takes; a group of names is a mapping."""
    known = _SPELLINGS.get(kind)
    if known is None:
        known = {}
        for field in fields_of(kind):
            for name, side in field.spellings():
                *groups, last = name.split(".")
                within = known
                for group in groups:
                    within = within.setdefault(group, {})
                within[last] = (field, side)
        _SPELLINGS[kind] = known  # complete, since other threads may parse meanwhile
    return known


_FIELDS: Final[dict[type[Record], tuple[Field, ...]]] = {}
_SPELLINGS: Final[dict[type[Record], dict[str, Any]]] = {}


def join(path: str, name: str | int) -> str:
    """Return the path of `name` below `path`: `regions[2].id`."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    if not path or not name:
        return path or name
    return f"{path}{name}" if name.startswith("[") else f"{path}.{name}"


def decode_json(text: str | bytes | bytearray, noun: str) -> object:
    """Return the JSON value that `text` is.

    Raises:
        RequestError: It is not JSON, too long, too deep, or has a name twice in one object.
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
        RequestError: It is not one; see `decode_json`.
    """
    value = decode_json(raw, f"the {noun}") if isinstance(raw, (str, bytes, bytearray)) else raw
    if not isinstance(value, Mapping):
        raise RequestError("", f"a {noun} is a JSON object; this is {kind_of(value)}")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise RequestError("", f"{shown(counts.most_common(1)[0][0])} is there twice in one object")
    return made


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise RequestError("", f"a number has {len(digits)} digits; at most {MOST_DIGITS} are accepted")
    return int(digits)


def _refuse_constant(word: str) -> NoReturn:
    raise RequestError("", f"{word} is not JSON; a number is finite")


def _raise_below(error: RequestError, name: str | int) -> NoReturn:
    """Raise `error` again with its path below `name`."""
    path = f"[{name}]" if isinstance(name, int) else name
    raise RequestError(join(path, error.path), error.problem) from error.__cause__


def _gather(
    raw: Mapping[str, object],
    spellings: Mapping[str, Any],
    group: str,
    found: dict[str, list[tuple[str, int | None, object]]],
) -> None:
    """Collect the values in `raw` by the field that they are for."""
    for key, value in raw.items():
        known = spellings.get(key) if isinstance(key, str) else None
        name = f"{group}{key}"
        if known is None:
            raise _unknown(key, spellings, group)
        if isinstance(known, tuple):
            field, side = known
            found.setdefault(field.name, []).append((name, side, value))
        elif isinstance(value, Mapping):
            _gather(value, known, f"{name}.", found)
        elif value is not None:
            raise RequestError(_snake(key), f"must be an object, not {kind_of(value)}")


def _as_sent(error: RequestError, found: Mapping[str, list[tuple[str, int | None, object]]]) -> RequestError:
    """Return `error` with the name that the sender gave the field, if that is another one."""
    for name, _, _ in found.get(error.path, ()):
        if _snake(name) != error.path:
            return RequestError(error.path, f"{error.problem} (sent as {name!r})")
    return error


def _unknown(key: object, spellings: Mapping[str, object], group: str) -> RequestError:
    """Return the error for a field that is not declared."""
    import difflib

    name = key if isinstance(key, str) and len(key) <= _LONGEST_NAME and key.isprintable() else shown(key)
    near = difflib.get_close_matches(name, sorted(spellings), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return RequestError(join(_snake(group.removesuffix(".")), name), f"is not a known field{hint}")


def _agreed(field: Field, found: list[tuple[str, int | None, object]]) -> object:
    """Return the one value that all spellings of a field mean."""
    if field.sides is not None:
        return _agreed_size(field, found)
    (first, _, value), *others = found
    for other, _, again in others:
        if not _same(field, value, again):
            # Between a field and a group of fields, null is the same as absent.
            if "." in first + other and (value is None or again is None):
                value = again if value is None else value
                continue
            raise RequestError(
                field.name,
                f"{first!r} is {shown(value)} but {other!r} is {shown(again)}; send one of them",
            )
    return value


def _agreed_size(field: Field, found: list[tuple[str, int | None, object]]) -> object:
    """Return the size that its sides and its pair mean, None if neither is given."""
    names = field.sides or ("", "")
    sides: list[object] = [None, None]
    pair = None
    for name, side, value in found:
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
        raise RequestError(missing[0], "is missing; send both sides, or none")
    if pair is not None and not _same(field, pair, tuple(sides)):
        raise RequestError(field.name, f"and {' and '.join(names)} differ; send one of them")
    return tuple(sides)


def _number(value: object, name: str) -> Fraction:
    try:
        return exact(value)
    except ValueError as error:
        raise RequestError(name, str(error)) from error


def _same(field: Field, one: object, other: object) -> bool:
    """Whether two values of a field mean the same."""
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
