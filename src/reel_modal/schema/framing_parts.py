"""The parts of a framing request that hosts write in several ways: trims, sizes, shapes, rates, turns.

Pure; it must not know the request that they are parts of.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TypeVar

from reel_modal.errors import ConfigError, RequestError
from reel_modal.frames import frame_rate
from reel_modal.parsing import Reader, Record, anything, integer, join, number, seconds

__all__ = ["edit_fields", "quarter_turn", "rate", "ratio", "size_fields"]

T = TypeVar("T")


def edit_fields(record: Record, segments: Reader[tuple[T, ...]]) -> dict[str, object]:
    """Return trim and segments, which hosts send side by side, within `segment_data`, or as `trim_range`.

    Args:
        record: The request.
        segments: Reads the list of segments.

    Raises:
        RequestError: A part is wrong, or two forms are there and disagree.
    """
    found: dict[str, tuple[str, object]] = {}

    def note(name: str, where: Record, value: object) -> None:
        if value is None:
            return
        path = where.path or "the request"
        if name in found and found[name][1] != value:
            raise RequestError(name, f"{found[name][0]} says another than {path}; send one of them")
        found.setdefault(name, (path, value))

    note("trim_start_seconds", record, record.take_or(None, seconds, "trim_start_seconds", "trim_start"))
    note("trim_end_seconds", record, record.take_or(None, seconds, "trim_end_seconds", "trim_end"))
    note("segments", record, record.take_or(None, segments, "segments"))
    if (data := _within(record, "segment_data")) is not None:
        note("trim_start_seconds", data, data.take_or(None, seconds, "trim_start_seconds", "trim_start"))
        note("trim_end_seconds", data, data.take_or(None, seconds, "trim_end_seconds", "trim_end"))
        note("segments", data, data.take_or(None, segments, "segments"))
        data.finish()
    if (legacy := _within(record, "trim_range")) is not None:
        note("trim_start_seconds", legacy, legacy.take_or(None, seconds, "start_seconds", "start"))
        note("trim_end_seconds", legacy, legacy.take_or(None, seconds, "end_seconds", "end"))
        legacy.finish()
    return {name: value for name, (_, value) in found.items()}


def size_fields(record: Record) -> tuple[int, int] | None:
    """Return the output size (width, height), whose sides come together or not at all.

    Raises:
        RequestError: One is missing, or one is no whole number.
    """
    width: int | None = record.take_or(None, integer, "output_width", "target_width")
    height: int | None = record.take_or(None, integer, "output_height", "target_height")
    pair = record.take_or(None, anything, "output_size")
    if pair is not None:
        sides = _sides(pair, join(record.path, "output_size"))
        if (width, height) not in {(None, None), sides}:
            raise RequestError("output_size", f"is {sides}, but the sides are {(width, height)}; send one of them")
        return sides
    if (width is None) != (height is None):
        missing = "output_width" if width is None else "output_height"
        raise RequestError(join(record.path, missing), "is missing; send both sides of the output, or none")
    return None if width is None or height is None else (width, height)


def ratio(value: object, path: str) -> Fraction:
    """Read a shape: `9:16`, `9/16` or a number, width / height."""
    if isinstance(value, str):
        try:
            return Fraction(value.strip().replace(":", "/"))
        except (ValueError, ZeroDivisionError) as error:
            raise RequestError(path, f"{value!r} is no width to height; write 9:16") from error
    return Fraction(value) if isinstance(value, Fraction) else Fraction(repr(number(value, path)))


def rate(value: object, path: str) -> Fraction:
    """Read frames a second: a number, where 29.97 is 30000/1001, or `30000/1001` itself."""
    try:
        if isinstance(value, str):
            return frame_rate(Fraction(value))
        return frame_rate(value if isinstance(value, Fraction) else number(value, path))
    except (ValueError, ZeroDivisionError) as error:
        if isinstance(error, RequestError):
            raise
        problem = str(error) if isinstance(error, ConfigError) else f"{value!r} is no number of frames a second"
        raise RequestError(path, f"{problem}; write 29.97 or '30000/1001'") from error


def quarter_turn(value: object, path: str) -> int:
    """Read a clockwise turn; -90 is 270."""
    degrees = integer(value, path)
    if degrees % 90:
        raise RequestError(path, f"is {degrees}; whole quarter turns are possible: 0, 90, 180 or 270, clockwise")
    return degrees % 360


def _within(record: Record, name: str) -> Record | None:
    """Return the object `name` in the record, None where it is absent or null."""
    raw = record.take_or(None, anything, name)
    return None if raw is None else Record(raw, join(record.path, name))


def _sides(value: object, path: str) -> tuple[int, int]:
    """Read [width, height] or {width, height}."""
    if isinstance(value, Mapping):
        record = Record(value, path)
        sides = record.take(integer, "width"), record.take(integer, "height")
        record.finish()
        return sides
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return integer(value[0], join(path, 0)), integer(value[1], join(path, 1))
    raise RequestError(path, f"is {value!r}; write [width, height]")
