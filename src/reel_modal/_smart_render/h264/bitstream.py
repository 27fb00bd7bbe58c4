"""Bit reader for H.264 headers.

Source: ITU-T H.264 (08/2021), 7.3.1 and 9.1.
"""

from __future__ import annotations

from typing import Final

from reel_modal.errors import SpliceError

__all__ = ["BitReader", "rbsp"]

_LONGEST_BITS: Final = 32
_LARGEST: Final = (1 << 32) - 2


def rbsp(unit: bytes) -> bytes:
    """Return the RBSP of a NAL unit: the bytes after its header, without emulation prevention bytes (7.4.1)."""
    return unit[1:].replace(b"\0\0\3", b"\0\0")


class BitReader:
    """Reader of bits, most significant bit first; reading past the end raises SpliceError.

    Args:
        payload: The bytes to read.
        name: Name of the structure, for error messages.
    """

    def __init__(self, payload: bytes, name: str) -> None:
        self._value = int.from_bytes(payload, "big")
        self._left = len(payload) * 8
        self._name = name

    @property
    def left(self) -> int:
        """Number of unread bits."""
        return self._left

    def read(self, count: int) -> int:
        """Read `count` bits as an unsigned integer."""
        if count > self._left:
            raise SpliceError(f"{self._name} is truncated")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def flag(self) -> bool:
        """Read one bit."""
        return bool(self.read(1))

    def ue(self, most: int = _LARGEST) -> int:
        """Read an unsigned Exp-Golomb code; `most` is the largest value that H.264 allows."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros >= _LONGEST_BITS:
                raise SpliceError(f"{self._name} cannot be read")
        number = (1 << zeros) - 1 + self.read(zeros)
        if number > most:
            raise SpliceError(f"{self._name} has the value {number}; H.264 allows at most {most}")
        return number

    def se(self) -> int:
        """Read a signed Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)
