"""Whether the pictures of an interlaced stream are whole frames, and which of their two fields comes first.

Sources: ITU-T H.264 (08/2021), 7.3.2.2, 7.3.3, and annexes D.1 and D.2.3. Pure work on bytes; it must not know files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

from reel_modal.errors import SpliceError
from reel_modal.smart_render.bits import BitReader, payload_of
from reel_modal.smart_render.h264 import (
    IDR_SLICE,
    LAST_PPS_ID,
    LAST_SPS_ID,
    SEI,
    SLICE,
    ParameterSets,
    Sps,
    split_units,
)

__all__ = ["FieldHeaders", "FieldOrder", "one_order"]

FieldOrder: TypeAlias = Literal["frame", "tff", "bff"]
"""A picture that was taken at once; or two fields, of which the top or the bottom one was first."""

_PICTURE_TIMING: Final = 1
# `pic_struct`, table D-1; 5 to 8 show a field or a frame more than once.
_ORDERS: Final[Mapping[int, FieldOrder]] = {0: "frame", 3: "tff", 4: "bff"}
# No header that is read here is longer.
_MOST_HEADER_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class _Pps:
    """What a picture parameter set says of fields."""

    sps_id: int
    has_bottom_order: bool

    @classmethod
    def parse(cls, unit: bytes) -> tuple[int, Self]:
        """Return the id of a unit of type 8, and it."""
        bits = BitReader(payload_of(unit[:_MOST_HEADER_BYTES]), "a parameter set")
        number, sps_id = bits.ue(LAST_PPS_ID), bits.ue(LAST_SPS_ID)
        bits.read(1)
        return number, cls(sps_id, bits.flag())


@dataclass(frozen=True, slots=True)
class FieldHeaders:
    """Reads the headers of pictures by their parameter sets.

    Attributes:
        sps: By id.
        pps: By id.
    """

    sps: Mapping[int, Sps]
    pps: Mapping[int, _Pps]

    @classmethod
    def of(cls, sets: ParameterSets) -> Self:
        """Take the sets of a track."""
        every = [Sps.parse(unit) for unit in sets.sps]
        return cls({sps.id: sps for sps in every}, dict(_Pps.parse(unit) for unit in sets.pps))

    def order(self, packet: memoryview, length_size: int) -> FieldOrder:
        """Return how the picture in `packet` is to be shown; what it says of that goes before how it is coded.

        Args:
            packet: Of a stream whose parameter sets allow fields.
            length_size: Bytes of the length in front of each unit.

        Raises:
            SpliceError: It is one field or two of them, or shows a field again, or cannot be read.
        """
        timing = None
        for unit in split_units(packet, length_size):
            kind = unit[0] & 31
            if kind == SEI:
                timing = _picture_timing(payload_of(bytes(unit))) or timing
            elif kind in {SLICE, IDR_SLICE}:
                return self._order(bytes(unit[:_MOST_HEADER_BYTES]), timing)
        raise SpliceError("one of its packets is not one picture")

    def _order(self, slice_unit: bytes, timing: bytes | None) -> FieldOrder:
        """Read the header of a slice as far as its fields, and what was said of the picture's timing."""
        bits = BitReader(payload_of(slice_unit), "the header of a slice")
        bits.ue(), bits.ue()
        pps = self.pps.get(bits.ue())
        sps = None if pps is None else self.sps.get(pps.sps_id)
        if pps is None or sps is None:
            raise SpliceError("a picture refers to a parameter set that is not there")
        if sps.frames_only:
            return "frame"
        if sps.separate_planes:
            bits.read(2)
        bits.read(sps.frame_number_bits)
        if bits.flag():
            raise SpliceError("some of its pictures are coded as two fields, which x264 does not write")
        if timing is not None and sps.says_structure:
            return _said(timing, sps)
        if not sps.mixes_fields:
            return "frame"
        if slice_unit[0] & 31 == IDR_SLICE:
            bits.ue()
        # libav, too, takes the top field for the first one where nothing is said.
        return "bff" if _bottom_behind_top(bits, sps, pps) < 0 else "tff"


def _bottom_behind_top(bits: BitReader, sps: Sps, pps: _Pps) -> int:
    """Read how far the bottom field of a frame is behind the top one (8.2.1)."""
    if sps.order.kind == 0:
        bits.read(sps.order.lsb_bits)
        return bits.se() if pps.has_bottom_order else 0
    behind = sps.order.bottom_offset
    if sps.order.says_difference:
        bits.se()
        behind += bits.se() if pps.has_bottom_order else 0
    return behind


def one_order(orders: Iterable[FieldOrder]) -> FieldOrder:
    """Return the order that all pictures have.

    Raises:
        SpliceError: They differ.
    """
    found = set(orders)
    if len(found) != 1:
        raise SpliceError("its pictures change between frames and fields, or the order of their fields")
    return found.pop()


def _said(timing: bytes, sps: Sps) -> FieldOrder:
    bits = BitReader(timing, "the timing of a picture")
    bits.read(sum(sps.delay_bits))
    structure = bits.read(4)
    if structure not in _ORDERS:
        raise SpliceError("one of its pictures shows a field or a frame more than once")
    return _ORDERS[structure]


def _picture_timing(payload: bytes) -> bytes | None:
    """Return the message about the timing of the picture, None where there is none."""
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
