"""Whether a Matroska file is as long as its header says."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["is_cut_off"]

# RFC 8794, 11.2.1, and RFC 9559, 5.1: the header, then one segment that holds all else.
_HEADER: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = b"\x18\x53\x80\x67"
_MOST_HEADER_BYTES: Final = 4096


def is_cut_off(path: Path) -> bool:
    """Return whether the file at `path` is Matroska and shorter than its header says.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_MOST_HEADER_BYTES)
    end, at = 0, 0
    for name in (_HEADER, _SEGMENT):
        if head[at : at + len(name)] != name or (number := _number(head, at + len(name))) is None:
            return False
        size, begin = number
        end = at = begin + size
    return end > path.stat().st_size


def _number(data: bytes, at: int) -> tuple[int, int] | None:
    """Return the size of an element that is stored at `at`, and where the element begins; None if it is unknown."""
    if at >= len(data) or not data[at]:
        return None
    length = 9 - data[at].bit_length()
    bits = 7 * length
    number = int.from_bytes(data[at : at + length], "big") & (1 << bits) - 1
    return None if number == (1 << bits) - 1 else (number, at + length)
