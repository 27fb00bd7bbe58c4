"""Reads H.264's headers bit by bit.

Source: ITU-T H.264 (08/2021), 7.3.1 and 9.1. It must not know what the bits mean.
"""

from __future__ import annotations

from typing import Final

from reel_modal.errors import SpliceError

__all__ = ["BitReader", "payload_of"]

_LONGEST_BITS: Final = 32
_LARGEST: Final = (1 << 32) - 2


def payload_of(unit: bytes) -> bytes:
    """Return what is in a unit behind its first byte, without the 3s that keep start codes out of it (7.4.1)."""
    return unit[1:].replace(b"\0\0\3", b"\0\0")


class BitReader:
    """Most significant bit first; what breaks off raises a SpliceError.

    Args:
        payload: The bytes.
        what: What is read, for the message.
    """

    def __init__(self, payload: bytes, what: str) -> None:
        self._value = int.from_bytes(payload, "big")
        self._left = len(payload) * 8
        self._what = what

    @property
    def left(self) -> int:
        """Bits that are not read yet."""
        return self._left

    def read(self, count: int) -> int:
        """Read `count` bits as a number."""
        if count > self._left:
            raise SpliceError(f"{self._what} breaks off")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def flag(self) -> bool:
        """Read one bit."""
        return bool(self.read(1))

    def ue(self, most: int = _LARGEST) -> int:
        """Read an unsigned Exp-Golomb code of a number up to `most`, which is all that H.264 allows there."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros >= _LONGEST_BITS:
                raise SpliceError(f"{self._what} cannot be read")
        number = (1 << zeros) - 1 + self.read(zeros)
        if number > most:
            raise SpliceError(f"{self._what} says {number} where H.264 knows no more than {most}")
        return number

    def se(self) -> int:
        """Read a signed one."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)
