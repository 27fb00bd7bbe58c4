"""Reads a JSON object field by field and names the place of whatever is wrong in it.

It must not know any request; `schema` does.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TypeAlias, TypeVar

from reel_modal.errors import RequestError

__all__ = [
    "Raw",
    "Reader",
    "Record",
    "any_text",
    "anything",
    "decode",
    "integer",
    "items",
    "join",
    "number",
    "one_of",
    "rooted",
    "seconds",
    "seconds_json",
    "text",
    "truth",
]

T = TypeVar("T")
Raw: TypeAlias = Mapping[str, object] | str | bytes
"""What a request is parsed from: a mapping, or the JSON text of one."""

Reader: TypeAlias = Callable[[object, str], T]
"""Takes a value and its path, returns it typed or raises a RequestError there."""


def decode(raw: Raw) -> Mapping[str, object]:
    """Return the JSON object in `raw`.

    Raises:
        RequestError: It is no JSON, or no object.
    """
    value: object = raw
    if isinstance(raw, (str, bytes)):
        try:
            value = json.loads(raw)
        except ValueError as error:
            raise RequestError("", f"the request is no JSON: {error}") from error
    if not isinstance(value, Mapping):
        raise RequestError("", f"a request is a JSON object; this is {_kind(value)}")
    return value


def join(path: str, name: str | int) -> str:
    """Return the path of `name` below `path`: `regions[2].id`."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name


@contextmanager
def rooted(path: str) -> Iterator[None]:
    """Put `path` before the path of a RequestError that the block raises."""
    try:
        yield
    except RequestError as error:
        below = error.path if not path or error.path.startswith("[") else join(path, error.path) if error.path else ""
        raise RequestError(below or path, error.problem) from error


class Record:
    """The fields of one JSON object, each taken once, under any of its spellings.

    Args:
        raw: The object.
        path: Where it is in the request.

    Raises:
        RequestError: It is no object.
    """

    def __init__(self, raw: object, path: str = "") -> None:
        if not isinstance(raw, Mapping):
            raise RequestError(path, f"must be an object, not {_kind(raw)}")
        self._raw = raw
        self.path = path
        self._known: set[str] = set()

    def take(self, reader: Reader[T], name: str, *others: str) -> T:
        """Return the field `name`, which must be there under that name, in camelCase, or one of `others`.

        Raises:
            RequestError: It is missing, wrong, or there twice with different values.
        """
        found = self._find(name, others)
        if found is None:
            raise RequestError(join(self.path, name), "is missing")
        return reader(self._raw[found], join(self.path, name))

    def take_or(self, default: T, reader: Reader[T], name: str, *others: str) -> T:
        """Return the field `name`, or `default` where it is absent or null."""
        found = self._find(name, others)
        if found is None or self._raw[found] is None:
            return default
        return reader(self._raw[found], join(self.path, name))

    def numbers(self) -> dict[str, float]:
        """Return all fields, which must be numbers.

        Raises:
            RequestError: One is none.
        """
        return {str(name): number(value, join(self.path, str(name))) for name, value in self._raw.items()}

    def finish(self) -> None:
        """Refuse fields that nobody has taken.

        Raises:
            RequestError: There is one; the nearest known name is in the message.
        """
        for key in self._raw:
            if key not in self._known:
                near = difflib.get_close_matches(str(key), sorted(self._known), n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise RequestError(join(self.path, str(key)), f"is not a known field{hint}")

    def _find(self, name: str, others: Sequence[str]) -> str | None:
        spellings = list(dict.fromkeys(spelling for each in (name, *others) for spelling in _spellings(each)))
        self._known.update(spellings)
        present = [spelling for spelling in spellings if spelling in self._raw]
        for second in present[1:]:
            if self._raw[second] != self._raw[present[0]]:
                raise RequestError(
                    join(self.path, name),
                    f"{present[0]!r} is {self._raw[present[0]]!r} but {second!r} is {self._raw[second]!r};"
                    " send one of them",
                )
        return present[0] if present else None


def text(value: object, path: str) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str):
        raise RequestError(path, f"must be a text, not {_kind(value)}")
    if not value.strip():
        raise RequestError(path, "must not be empty")
    return value


def any_text(value: object, path: str) -> str:
    """Read a text, which may be empty."""
    return value if value == "" and isinstance(value, str) else text(value, path)


def anything(value: object, path: str) -> object:
    """Read a value as it is; whoever takes it looks into it."""
    del path
    return value


def truth(value: object, path: str) -> bool:
    """Read true or false; a number or a word is neither."""
    if not isinstance(value, bool):
        raise RequestError(path, f"must be true or false, not {_kind(value)}")
    return value


def number(value: object, path: str) -> float:
    """Read a finite number; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)):
        raise RequestError(path, f"must be a number, not {_kind(value)}")
    if not math.isfinite(value):
        raise RequestError(path, f"must be a finite number, not {value!r}")
    return float(value)


def integer(value: object, path: str) -> int:
    """Read a whole number; 2.0 is one."""
    whole = number(value, path)
    if not whole.is_integer():
        raise RequestError(path, f"must be a whole number, not {value!r}")
    return int(whole)


def seconds(value: object, path: str) -> Fraction:
    """Read a time as the exact fraction that its decimal text says; `"1001/30000"` is one too."""
    if isinstance(value, str):
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError) as error:
            raise RequestError(path, f"{value!r} is no number of seconds; write 1.5 or '3/2'") from error
    if isinstance(value, (Fraction, int)) and not isinstance(value, bool):
        return Fraction(value)
    return Fraction(repr(number(value, path)))


def seconds_json(value: Fraction) -> float | int | str:
    """Return a time for JSON: a number where that comes back exactly, else `n/d` text."""
    if value.denominator == 1:
        return int(value)
    return float(value) if Fraction(repr(float(value))) == value else str(value)


def items(reader: Reader[T], most: int) -> Reader[tuple[T, ...]]:
    """Return a reader of a list of at most `most` items."""

    def read(value: object, path: str) -> tuple[T, ...]:
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise RequestError(path, f"must be a list, not {_kind(value)}")
        if len(value) > most:
            raise RequestError(path, f"has {len(value)} items; at most {most} are accepted")
        return tuple(reader(item, join(path, index)) for index, item in enumerate(value))

    return read


def one_of(*words: T) -> Reader[T]:
    """Return a reader of one of `words`."""

    def read(value: object, path: str) -> T:
        for word in words:
            if value == word:
                return word
        raise RequestError(path, f"is {value!r}; use one of {', '.join(map(str, words))}")

    return read


def _spellings(name: str) -> tuple[str, str]:
    """Return `name` in snake_case and in camelCase."""
    first, *rest = name.split("_")
    return name, first + "".join(part.capitalize() for part in rest)


def _kind(value: object) -> str:
    kinds = {type(None): "null", bool: "true or false", str: "a text", dict: "an object", list: "a list"}
    return kinds.get(type(value), f"{value!r}")
