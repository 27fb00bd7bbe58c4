"""Read the bits and the NAL units of H.264 and HEVC streams.

Sources: ITU-T H.264 (08/2021), 7.3.1, 9.1 and annex B; ISO/IEC 14496-15 (2022), 5.3.3 and 8.3.3. Opens no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

__all__ = [
    "START_CODE",
    "BitReader",
    "BitstreamError",
    "NalCodec",
    "TruncatedError",
    "nal_length_size",
    "nal_units",
    "nal_units_with_lengths",
    "parameter_sets",
    "rbsp",
    "signed",
]

NalCodec: TypeAlias = Literal["h264", "hevc"]

START_CODE: Final = b"\0\0\1"
# Bytes of a decoder configuration record before its lists of parameter sets.
_RECORD_HEADER_BYTES: Final[dict[NalCodec, int]] = {"h264": 5, "hevc": 22}
_MOST_LEADING_ZEROS: Final = 31
_LARGEST: Final = (1 << 32) - 2


class BitstreamError(ValueError):
    """A header is truncated, or contains a value that the standard does not allow."""


class TruncatedError(BitstreamError):
    """A header ends before the value that is read."""


class BitReader:
    """Reader of bits, most significant bit first; reading past the end raises BitstreamError.

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
            raise TruncatedError(f"{self._name} is truncated")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def flag(self) -> bool:
        """Read one bit."""
        return bool(self.read(1))

    def ue(self, most: int = _LARGEST) -> int:
        """Read an unsigned Exp-Golomb code; `most` is the largest value that the standard allows."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > _MOST_LEADING_ZEROS:
                raise BitstreamError(f"{self._name} cannot be read")
        number = (1 << zeros) - 1 + self.read(zeros)
        if number > most:
            raise BitstreamError(f"{self._name} has the value {number}; H.264 allows at most {most}")
        return number

    def se(self) -> int:
        """Read a signed Exp-Golomb code."""
        return signed(self.ue())


def signed(code: int) -> int:
    """Return the signed number of an Exp-Golomb code (9.1.1)."""
    return (code + 1) // 2 if code % 2 else -(code // 2)


def rbsp(unit: bytes) -> bytes:
    """Return the bytes after the first one of a NAL unit, without emulation prevention bytes (H.264, 7.4.1)."""
    return unit[1:].replace(b"\0\0\3", b"\0\0")


def nal_units(data: bytes) -> Iterator[memoryview]:
    """Yield the NAL units that follow start codes; bytes before the first one are ignored."""
    view = memoryview(data)
    place = data.find(START_CODE)
    while place >= 0:
        begin = place + len(START_CODE)
        place = data.find(START_CODE, begin)
        if unit := view[begin : place if place >= 0 else len(data)]:
            yield unit


def nal_units_with_lengths(data: memoryview, length_size: int) -> Iterator[memoryview]:
    """Yield the NAL units that follow their lengths of `length_size` bytes; the last one may be truncated."""
    place = 0
    while place + length_size < len(data):
        begin = place + length_size
        place = begin + int.from_bytes(data[place:begin], "big")
        if unit := data[begin:place]:
            yield unit


def nal_length_size(record: bytes, codec: NalCodec) -> int | None:
    """Return the bytes of the length before each NAL unit; None if `record` is not an `avcC` or `hvcC` record."""
    header = _RECORD_HEADER_BYTES[codec]
    return (record[header - 1] & 3) + 1 if len(record) > header and record[0] == 1 else None


def parameter_sets(record: bytes, codec: NalCodec) -> Iterator[memoryview]:
    """Yield the NAL units of a decoder configuration: an `avcC` or `hvcC` record, or NAL units with start codes.

    A record that is truncated ends early. A list may contain units of another type than it declares, which decoders
    accept.
    """
    if nal_length_size(record, codec) is None:
        yield from nal_units(record)
        return
    view, place = memoryview(record), _RECORD_HEADER_BYTES[codec]
    lists = 2 if codec == "h264" else record[place]
    place += codec == "hevc"
    for number in range(lists):
        if codec == "h264":  # SPS, then PPS; of the first count, three bits are reserved
            count = int.from_bytes(view[place : place + 1], "big") & (31 if number == 0 else 255)
            place += 1
        else:
            count = int.from_bytes(view[place + 1 : place + 3], "big")
            place += 3
        for _ in range(count):
            begin = place + 2
            place = begin + int.from_bytes(view[place:begin], "big")
            if unit := view[begin:place]:
                yield unit
