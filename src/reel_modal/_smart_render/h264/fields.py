"""Read from H.264 headers whether a frame is progressive or interlaced, and which field is first.

Sources: ITU-T H.264 (08/2021), 7.3.3, and annexes D.1 and D.2.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from reel_modal._smart_render.h264.parameter_sets import (
    IDR_SLICE,
    SEI,
    SLICE,
    ParameterSets,
    as_splice_errors,
    iter_nal_units,
    parse_pps,
    parse_sps,
)
from reel_modal.errors import SpliceError
from reel_modal.media.bitstream import BitReader, rbsp
from reel_modal.media.h264_headers import Pps, Sps

__all__ = ["FieldHeaders", "FieldOrder", "one_order"]

FieldOrder: TypeAlias = Literal["frame", "tff", "bff"]
"""A progressive frame, or an interlaced frame with the top or the bottom field first."""

_PICTURE_TIMING: Final = 1
# `pic_struct`, table D-1; 5 to 8 repeat a field or a frame.
_ORDERS: Final[Mapping[int, FieldOrder]] = {0: "frame", 3: "tff", 4: "bff"}
# Upper bound for a slice header up to the picture order counts.
_MOST_HEADER_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class FieldHeaders:
    """Reader of field orders, with the parameter sets that the slice headers refer to.

    Attributes:
        sps: Sequence parameter sets by id.
        pps: Picture parameter sets by id.
    """

    sps: Mapping[int, Sps]
    pps: Mapping[int, Pps]

    @classmethod
    def of(cls, sets: ParameterSets) -> Self:
        """Parse the parameter sets of a track."""
        every_sps, every_pps = map(parse_sps, sets.sps), map(parse_pps, sets.pps)
        return cls({sps.id: sps for sps in every_sps}, {pps.id: pps for pps in every_pps})

    def order(self, packet: memoryview, length_size: int) -> FieldOrder:
        """Return the field order of the picture in `packet`; `pic_struct` takes precedence over how it is coded.

        Args:
            packet: A packet of a stream whose parameter sets allow fields.
            length_size: Bytes of the length before each NAL unit.

        Raises:
            SpliceError: The picture is coded as fields, repeats a field or a frame, or cannot be read.
        """
        timing = None
        for unit in iter_nal_units(packet, length_size):
            kind = unit[0] & 31
            if kind == SEI:
                timing = _picture_timing(rbsp(bytes(unit))) or timing
            elif kind in {SLICE, IDR_SLICE}:
                with as_splice_errors():
                    return self._order(bytes(unit[:_MOST_HEADER_BYTES]), timing)
        raise SpliceError("one of its packets is not exactly one coded picture")

    def _order(self, slice_unit: bytes, timing: bytes | None) -> FieldOrder:
        """Return the field order from a slice header and the picture timing SEI message, if any."""
        bits = BitReader(rbsp(slice_unit), "a slice header")
        bits.ue(), bits.ue()
        pps = self.pps.get(bits.ue())
        sps = None if pps is None else self.sps.get(pps.sps_id)
        if pps is None or sps is None:
            raise SpliceError("one of its frames refers to a missing parameter set")
        if sps.frames_only:
            return "frame"
        if sps.separate_planes:
            bits.read(2)
        bits.read(sps.frame_number_bits)
        if bits.flag():
            raise SpliceError("some of its frames are coded as two fields, which x264 does not support")
        if timing is not None and sps.has_structure:
            return _order_in_timing(timing, sps)
        if not sps.mixes_fields:
            return "frame"
        if slice_unit[0] & 31 == IDR_SLICE:
            bits.ue()
        # Equal order counts leave the field order open; like libav, assume top field first.
        return "bff" if _bottom_minus_top(bits, sps, pps) < 0 else "tff"


def _bottom_minus_top(bits: BitReader, sps: Sps, pps: Pps) -> int:
    """Read the picture order count of the bottom field minus that of the top field (8.2.1)."""
    if sps.order.kind == 0:
        bits.read(sps.order.lsb_bits)
        return bits.se() if pps.has_bottom_order else 0
    difference = sps.order.bottom_offset
    if sps.order.has_difference:
        bits.se()
        difference += bits.se() if pps.has_bottom_order else 0
    return difference


def one_order(orders: Iterable[FieldOrder]) -> FieldOrder:
    """Return the field order that all pictures share.

    Raises:
        SpliceError: The orders differ.
    """
    distinct = set(orders)
    if len(distinct) != 1:
        raise SpliceError("its frames change between progressive and interlaced, or change their field order")
    return distinct.pop()


def _order_in_timing(timing: bytes, sps: Sps) -> FieldOrder:
    bits = BitReader(timing, "the timing SEI of a picture")
    bits.read(sum(sps.delay_bits))
    structure = bits.read(4)
    if structure not in _ORDERS:
        raise SpliceError("one of its packets repeats a field or a frame")
    return _ORDERS[structure]


def _picture_timing(payload: bytes) -> bytes | None:
    """Return the payload of the picture timing SEI message, or None if the SEI has none."""
    place = 0
    while place + 2 < len(payload):
        numbers = []
        for _ in range(2):
            number = 0
            while place < len(payload) and payload[place] == 255:
                number, place = number + 255, place + 1
            if place >= len(payload):
                return None
            numbers.append(number + payload[place])
            place += 1
        kind, size = numbers
        if kind == _PICTURE_TIMING:
            return payload[place : place + size]
        place += size
    return None
