"""Read and write the protobuf wire format. Reading is bounded for any content of the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from reel_modal.errors import InvalidModelError

__all__ = ["Budget", "Message", "packed_bytes", "packed_float", "packed_integer", "packed_text", "shortened"]

_MOST_FIELDS: Final = 150_000
"""Maximum fields of a file, with numbers in packed lists. Real-ESRGAN's largest network (67 MB) has 18,500."""

_LONGEST_TEXT_BYTES: Final = 1 << 16
_LONGEST_SHOWN: Final = 80
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES: Final = {_FIXED64: 8, _FIXED32: 4}
_MOST_VARINT_BYTES: Final = 10


class Budget:
    """Limit on the number of fields of a file, so that reading it takes bounded time.

    Args:
        fields: Maximum number of fields.
    """

    def __init__(self, fields: int = _MOST_FIELDS) -> None:
        self._fields = self._left = fields

    def spend(self) -> None:
        """Count one field.

        Raises:
            InvalidModelError: The file has too many fields.
        """
        self._left -= 1
        if self._left < 0:
            raise InvalidModelError(
                f"the model has more than {self._fields} fields and numbers in lists; save its weights as raw data,"
                " as exporters do"
            )


class Message:
    """Fields of one protobuf message, by number. The values are views of the file, not copies.

    Args:
        data: Bytes of the message.
        budget: Budget of the whole file.

    Raises:
        ValueError: The bytes are not a valid message.
        InvalidModelError: The budget is used up.
    """

    def __init__(self, data: memoryview, budget: Budget) -> None:
        self._budget = budget
        self._fields: dict[int, list[int | memoryview]] = {}
        for number, value in _fields(data, budget):
            self._fields.setdefault(number, []).append(value)

    def all(self, number: int) -> list[int | memoryview]:
        """Return every value of a field."""
        return self._fields.get(number, [])

    def all_bytes(self, number: int) -> list[memoryview]:
        """Return every value of a bytes field."""
        return [_as_bytes(value) for value in self.all(number)]

    def bytes_of(self, number: int) -> memoryview:
        """Return the last value of a bytes field; raise ValueError if it is missing."""
        values = self.all_bytes(number)
        if not values:
            raise ValueError(f"the field {number} is missing")
        return values[-1]

    def message(self, number: int) -> Message:
        """Return the last value of a message field; raise ValueError if it is missing."""
        return Message(self.bytes_of(number), self._budget)

    def messages(self, number: int) -> Iterator[Message]:
        """Yield every value of a message field."""
        for value in self.all_bytes(number):
            yield Message(value, self._budget)

    def text(self, number: int) -> str:
        """Return the last value of a string field; empty if it is missing."""
        values = self.all_bytes(number)
        return _decoded(values[-1]) if values else ""

    def texts(self, number: int) -> tuple[str, ...]:
        """Return every value of a string field."""
        return tuple(map(_decoded, self.all_bytes(number)))

    def integer(self, number: int) -> int:
        """Return the last value of an integer field; 0 if it is missing."""
        values = self.all(number)
        if not values:
            return 0
        if not isinstance(values[-1], int):
            raise ValueError(f"the field {number} contains bytes instead of a number")  # noqa: TRY004 - invalid file
        return _signed(values[-1])

    def integers(self, number: int) -> list[int]:
        """Return every value of an integer field, packed or not."""
        numbers: list[int] = []
        for value in self.all(number):
            if isinstance(value, int):
                numbers.append(_signed(value))
                continue
            at = 0
            while at < len(value):
                self._budget.spend()
                each, at = _varint(value, at)
                numbers.append(_signed(each))
        return numbers


def _fields(data: memoryview, budget: Budget) -> Iterator[tuple[int, int | memoryview]]:
    at, end = 0, len(data)
    while at < end:
        budget.spend()
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire in _FIXED_BYTES:
            length = _FIXED_BYTES[wire]
        else:
            raise ValueError(f"a field has the unknown wire type {wire}")
        if at + length > end:
            raise ValueError("the file is truncated")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    if at < len(data) and (byte := data[at]) < 0x80:  # fast path: most varints have one byte
        return byte, at + 1
    value = 0
    for count, byte in enumerate(data[at : at + _MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + count + 1
    raise ValueError("a number is truncated")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _as_bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a field contains a number instead of bytes")  # noqa: TRY004 - invalid file
    return value


def _decoded(value: memoryview) -> str:
    if len(value) > _LONGEST_TEXT_BYTES:
        raise ValueError(f"a string has {len(value)} bytes; at most {_LONGEST_TEXT_BYTES} are accepted")
    return bytes(value).decode()


def shortened(text: str) -> str:
    """Return a string from a file, shortened for an error message."""
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def packed_integer(number: int, value: int) -> bytes:
    """Return an encoded integer field."""
    return _encoded(number << 3 | _VARINT) + _encoded(value)


def packed_float(number: int, value: float) -> bytes:
    """Return an encoded 32-bit float field."""
    return _encoded(number << 3 | _FIXED32) + struct.pack("<f", value)


def packed_bytes(number: int, value: bytes) -> bytes:
    """Return an encoded bytes or message field."""
    return _encoded(number << 3 | _BYTES) + _encoded(len(value)) + value


def packed_text(number: int, value: str) -> bytes:
    """Return an encoded string field."""
    return packed_bytes(number, value.encode())


def _encoded(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
