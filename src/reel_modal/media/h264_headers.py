"""Parse H.264 headers for the coded size and for packets that contain only the second field of a frame.

The syntax is that of ITU-T H.264, 7.3.2.1.1, 7.3.2.2 and 7.3.3. Opens no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

__all__ = ["Bits", "H264Sequence", "SecondFields"]

_HIGH: Final = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
_START_CODE: Final = b"\0\0\1"
_SLICES: Final = frozenset({1, 2, 5})
_SPS: Final = 7
_PPS: Final = 8
_RECORD_HEADER_BYTES: Final = 5
# Parameter sets and captions precede the first slice; only the header of the slice is read.
_LOOKED_AT_BYTES: Final = 1 << 14
_LONGEST_HEADER_BYTES: Final = 64


class Bits:
    """Reader of bits, most significant bit first; reading past the end raises ValueError."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    @classmethod
    def of(cls, unit: bytes) -> Self:
        """Return a reader of a NAL unit, without its emulation prevention bytes."""
        return cls(unit.replace(b"\0\0\3", b"\0\0"))

    def take(self, count: int) -> int:
        """Read `count` bits as an unsigned integer."""
        self._left -= count
        if self._left < 0:
            raise ValueError("truncated")
        return self._value >> self._left & (1 << count) - 1

    def skip(self, count: int) -> None:
        """Skip `count` bits."""
        self.take(count)

    def golomb(self) -> int:
        """Read an unsigned Exp-Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("not a number")
        return (1 << zeros) - 1 + self.take(zeros)


@dataclass(frozen=True, slots=True)
class H264Sequence:
    """Some contents of a sequence parameter set.

    Attributes:
        number: `seq_parameter_set_id`.
        size: (width, height) of the coded frames in pixels.
        frames_only: Whether every picture is coded as a whole frame (`frame_mbs_only_flag`).
        separate_planes: Whether Y, U and V are coded as three pictures (`separate_colour_plane_flag`).
        frame_number_bits: Bits of `frame_num` in a slice header.
    """

    number: int
    size: tuple[int, int]
    frames_only: bool
    separate_planes: bool
    frame_number_bits: int

    @classmethod
    def read(cls, bits: Bits) -> Self:
        """Parse a NAL unit of type 7.

        Raises:
            ValueError: The unit is damaged.
        """
        bits.skip(8)
        profile = bits.take(8)
        bits.skip(16)
        number = bits.golomb()
        separate_planes = False
        if profile in _HIGH:
            chroma = bits.golomb()
            separate_planes = bool(bits.take(1)) if chroma == 3 else False
            bits.golomb()
            bits.golomb()
            bits.skip(1)
            if bits.take(1):
                for list_number in range(8 if chroma != 3 else 12):
                    if bits.take(1):
                        _skip_scaling_list(bits, 16 if list_number < 6 else 64)
        frame_number_bits = bits.golomb() + 4
        order = bits.golomb()
        if order == 0:
            bits.golomb()
        elif order == 1:
            bits.skip(1)
            bits.golomb()
            bits.golomb()
            for _ in range(min(bits.golomb(), 255)):
                bits.golomb()
        bits.golomb()
        bits.skip(1)
        width, height = bits.golomb() + 1, bits.golomb() + 1
        frames_only = bool(bits.take(1))
        size = (16 * width, 16 * height * (1 if frames_only else 2))
        return cls(number, size, frames_only, separate_planes, frame_number_bits)


class SecondFields:
    """Finds the packets that contain only the second field of the previous packet's frame (PAFF).

    Args:
        record: Decoder configuration: an `avcC` record, or NAL units with start codes; may be empty.
    """

    def __init__(self, record: bytes) -> None:
        self._sequences: dict[int, H264Sequence] = {}
        self._sequence_of: dict[int, int] = {}
        self._length_size = 0
        self._first: tuple[int, int] | None = None
        self._take_sets(record)

    @property
    def possible(self) -> bool:
        """Whether such packets are possible: not if every picture is coded as a whole frame."""
        return not self._sequences or not all(each.frames_only for each in self._sequences.values())

    def take(self, data: memoryview, record: bytes = b"") -> bool:
        """Return whether a packet is a second field. Call it for every packet, in the order of the file.

        Args:
            data: The packet.
            record: New decoder configuration that comes with the packet.
        """
        self._take_sets(record)
        field = None
        with suppress(ValueError, IndexError, KeyError):  # damaged
            field = self._field(bytes(data[:_LOOKED_AT_BYTES]))
        # The two fields have the same frame number, and opposite parity.
        second = field is not None and self._first == (field[0], 1 - field[1])
        self._first = None if second else field
        return second

    def _field(self, data: bytes) -> tuple[int, int] | None:
        """Return the frame number of a packet's first field, and 1 for a bottom field; None for a whole frame."""
        for unit in _prefixed(data, self._length_size) if self._length_size else _started(data):
            self._take_unit(unit)
            if unit[0] & 31 in _SLICES:
                return self._field_of(Bits.of(unit[1:_LONGEST_HEADER_BYTES]))
        return None

    def _field_of(self, bits: Bits) -> tuple[int, int] | None:
        bits.golomb()
        bits.golomb()
        sequence = self._sequences[self._sequence_of[bits.golomb()]]
        if sequence.frames_only:
            return None
        bits.skip(2 if sequence.separate_planes else 0)
        number = bits.take(sequence.frame_number_bits)
        return (number, bits.take(1)) if bits.take(1) else None

    def _take_sets(self, record: bytes) -> None:
        units = _started(record)
        if len(record) > _RECORD_HEADER_BYTES and record[0] == 1:
            self._length_size = (record[4] & 3) + 1
            units = _recorded(record)
        with suppress(ValueError, IndexError):
            for unit in units:
                self._take_unit(unit)

    def _take_unit(self, unit: bytes) -> None:
        if unit[0] & 31 == _SPS:
            sequence = H264Sequence.read(Bits.of(unit))
            self._sequences[sequence.number] = sequence
        elif unit[0] & 31 == _PPS:
            bits = Bits.of(unit[1:_LONGEST_HEADER_BYTES])
            number = bits.golomb()
            self._sequence_of[number] = bits.golomb()


def _skip_scaling_list(bits: Bits, length: int) -> None:
    last = following = 8
    for _ in range(length):
        if following:
            number = bits.golomb()
            following = (last + (number + 1 >> 1 if number & 1 else -(number >> 1))) % 256
        last = following or last


def _started(data: bytes) -> Iterator[bytes]:
    """Yield NAL units that are separated by start codes."""
    at = data.find(_START_CODE)
    while at >= 0:
        begin = at + len(_START_CODE)
        at = data.find(_START_CODE, begin)
        if unit := data[begin : at if at >= 0 else len(data)]:
            yield unit


def _prefixed(data: bytes, length_size: int) -> Iterator[bytes]:
    """Yield NAL units that are prefixed by their length."""
    at = 0
    while at + length_size < len(data):
        begin = at + length_size
        at = begin + int.from_bytes(data[at:begin], "big")
        if unit := data[begin:at]:
            yield unit


def _recorded(record: bytes) -> Iterator[bytes]:
    """Yield the parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3)."""
    at = _RECORD_HEADER_BYTES
    for mask in (31, 255):
        count, at = record[at] & mask, at + 1
        for _ in range(count):
            begin = at + 2
            at = begin + int.from_bytes(record[at:begin], "big")
            if unit := record[begin:at]:
                yield unit
