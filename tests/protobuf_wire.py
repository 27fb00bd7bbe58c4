"""Encode protobuf fields by hand, for files that the onnx package would not write."""

from __future__ import annotations

_VARINT, _BYTES = 0, 2


def packed_integer(number: int, value: int) -> bytes:
    """Return an integer field."""
    return _varint(number << 3 | _VARINT) + _varint(value)


def packed_bytes(number: int, value: bytes) -> bytes:
    """Return a bytes or message field."""
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def packed_text(number: int, value: str) -> bytes:
    """Return a string field."""
    return packed_bytes(number, value.encode())


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
