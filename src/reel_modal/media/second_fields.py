"""Find the packets of H.264 that contain only the second field of a frame.

Source: ITU-T H.264 (08/2021), 7.3.3 and 7.4.1.2.4. Opens no files.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from reel_modal.media.bitstream import (
    BitReader,
    BitstreamError,
    nal_length_size,
    nal_units,
    nal_units_with_lengths,
    parameter_sets,
    rbsp,
)
from reel_modal.media.h264_headers import NAL_PPS, NAL_SPS, Pps, Sps

__all__ = ["SecondFields"]

_SLICES: Final = frozenset({1, 2, 5})
# Parameter sets and captions precede the first slice; only the header of the slice is read.
_MOST_PACKET_BYTES: Final = 1 << 14
_MOST_HEADER_BYTES: Final = 64


class SecondFields:
    """Finds the packets that contain only the second field of the previous packet's frame (PAFF).

    Args:
        record: Decoder configuration: an `avcC` record, or NAL units with start codes; may be empty.
    """

    def __init__(self, record: bytes) -> None:
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, Pps] = {}
        self._length_size = 0
        self._first: tuple[int, int] | None = None
        self._take_record(record)

    @property
    def possible(self) -> bool:
        """Whether such packets are possible: not if every picture is coded as a whole frame."""
        return not self._sps or not all(sps.frames_only for sps in self._sps.values())

    def take(self, data: memoryview, record: bytes = b"") -> bool:
        """Return whether a packet is a second field. Call it for every packet, in the order of the file.

        Args:
            data: The packet.
            record: New decoder configuration that comes with the packet.
        """
        self._take_record(record)
        field = None
        with suppress(BitstreamError, KeyError):  # damaged
            field = self._field(data[:_MOST_PACKET_BYTES])
        # The two fields have the same frame number, and opposite parity.
        second = field is not None and self._first == (field[0], 1 - field[1])
        self._first = None if second else field
        return second

    def _field(self, data: memoryview) -> tuple[int, int] | None:
        """Return the frame number of a packet's first field, and 1 for a bottom field; None for a whole frame."""
        size = self._length_size
        for unit in nal_units_with_lengths(data, size) if size else nal_units(bytes(data)):
            self._take_unit(unit)
            if unit[0] & 31 in _SLICES:
                return self._field_of(BitReader(rbsp(bytes(unit[:_MOST_HEADER_BYTES])), "a slice header"))
        return None

    def _field_of(self, bits: BitReader) -> tuple[int, int] | None:
        bits.ue(), bits.ue()
        sps = self._sps[self._pps[bits.ue()].sps_id]
        if sps.frames_only:
            return None
        if sps.separate_planes:
            bits.read(2)
        number = bits.read(sps.frame_number_bits)
        return (number, bits.read(1)) if bits.flag() else None

    def _take_record(self, record: bytes) -> None:
        self._length_size = nal_length_size(record, "h264") or self._length_size
        with suppress(BitstreamError):
            for unit in parameter_sets(record, "h264"):
                self._take_unit(unit)

    def _take_unit(self, unit: memoryview) -> None:
        """Remember a parameter set."""
        if unit[0] & 31 == NAL_SPS:
            sps = Sps.read(BitReader(rbsp(bytes(unit)), "a parameter set"))
            self._sps[sps.id] = sps
        elif unit[0] & 31 == NAL_PPS:
            pps = Pps.parse(bytes(unit[:_MOST_HEADER_BYTES]))
            self._pps[pps.id] = pps
