"""Detect whether a file is shorter than its header states; Matroska, AVI, ASF and FLV store their size."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

__all__ = ["is_cut_off"]

# RFC 8794, 11.2.1, and RFC 9559, 5.1: the header, then one segment that contains everything else.
_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = b"\x18\x53\x80\x67"
# The list of AVI stores its size; files above 1 GiB have more lists after it (OpenDML). In live streams all bits are
# set.
_RIFF: Final = b"RIFF"
_RIFF_HEADER_BYTES: Final = 8
_UNKNOWN: Final = (1 << 32) - 1
# Advanced Systems Format Specification, 3.2: the File Properties Object stores the file size after its own size and
# an id.
_ASF_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_SIZE_AT: Final = 40
# A number in the metadata of FLV: the length of its name, the name, the type 0, the value.
_FLV: Final = b"FLV"
_FLV_SIZE: Final = b"\0\x08filesize\0"
_MOST_HEADER_BYTES: Final = 4096


def is_cut_off(path: Path) -> bool:
    """Return whether the file at `path` is shorter than its header states.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_MOST_HEADER_BYTES)
    return (_stated_bytes(head) or 0) > path.stat().st_size


def _stated_bytes(head: bytes) -> int | None:
    """Return the size in bytes that the beginning of a file, `head`, states; None if it states none."""
    if head.startswith(_EBML):
        return _matroska_bytes(head)
    if head.startswith(_RIFF):
        size = _number("<I", head, len(_RIFF))
        return None if size in {None, _UNKNOWN} else int(size or 0) + _RIFF_HEADER_BYTES
    for begin, name, form, after in (
        (b"", _ASF_PROPERTIES, "<Q", _ASF_SIZE_AT),
        (_FLV, _FLV_SIZE, ">d", len(_FLV_SIZE)),
    ):
        if head.startswith(begin) and (at := head.find(name)) >= 0:
            return int(_number(form, head, at + after) or 0)
    return None


def _number(form: str, data: bytes, at: int) -> float | None:
    """Return the number at `at`; None if it is not finite or the data ends before it."""
    if len(data) < at + struct.calcsize(form):
        return None
    (number,) = struct.unpack_from(form, data, at)
    return number if 0 <= number < 1 << 63 else None


def _matroska_bytes(head: bytes) -> int | None:
    end, at = 0, 0
    for name in (_EBML, _SEGMENT):
        if head[at : at + len(name)] != name or (element := _element_size(head, at + len(name))) is None:
            return None
        size, begin = element
        end = at = begin + size
    return end


def _element_size(data: bytes, at: int) -> tuple[int, int] | None:
    """Return the element size that is stored at `at`, and the position of the element's data; None if unknown."""
    if at >= len(data) or not data[at]:
        return None
    length = 9 - data[at].bit_length()
    bits = 7 * length
    number = int.from_bytes(data[at : at + length], "big") & (1 << bits) - 1
    return None if number == (1 << bits) - 1 else (number, at + length)
