"""The few parts of an H.264 stream that a splice must know: which pictures stand alone, which parameter sets hold.

Sources: ITU-T H.264 (08/2021), 7.3 and annexes A and E.1; ISO/IEC 14496-15 (2022), 5.3. Pure work on bytes; it must
not know files, times or libav.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Self

from reel_modal.errors import SpliceError
from reel_modal.frames import PixelFormat
from reel_modal.smart_render.bits import BitReader, payload_of

__all__ = [
    "IDR_SLICE",
    "LAST_PPS_ID",
    "LAST_SPS_ID",
    "SEI",
    "SLICE",
    "ParameterSets",
    "PictureUnit",
    "Sps",
    "split_units",
    "with_length_size",
]

SLICE, IDR_SLICE, SEI, _SPS, _PPS = 1, 5, 6, 7, 8
# Enhancement layers, auxiliary pictures and partitioned slices: coded otherwise than what is spliced here.
_FOREIGN: Final = frozenset({2, 3, 4, 13, 14, 15, 19, 20, 21})
# Profiles whose sequence parameter sets say their chroma format and bit depth (7.3.2.1.1).
_HIGH: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
# x264's words for profiles: those of their own number, and one for each kind of samples.
_LOW: Final = {66: "baseline", 77: "main"}
_PROFILES: Final[dict[tuple[int, int], tuple[PixelFormat, str]]] = {
    (1, 8): ("yuv420p", "high"),
    (1, 10): ("yuv420p10le", "high10"),
    (2, 8): ("yuv422p", "high422"),
    (2, 10): ("yuv422p10le", "high422"),
    (3, 8): ("yuv444p", "high444"),
    (3, 10): ("yuv444p10le", "high444"),
}
"""By chroma format and bits of a sample: the frames' layout, and the least profile that has them."""

# The others are of scalable and stereo video, and CAVLC 4:4:4 Intra.
_PLAIN: Final = frozenset({66, 77, 100, 110, 122, 244})
LAST_SPS_ID: Final = 31
LAST_PPS_ID: Final = 255
# What an avcC box can hold (ISO/IEC 14496-15, 5.3.3.1).
_MOST_SPS: Final = 31
_MOST_PPS: Final = 255
_MOST_SET_BYTES: Final = 0xFFFF
_OWN_ASPECT: Final = 255
_MOST_CPBS: Final = 32
_MOST_REFERENCES: Final = 16


@dataclass(frozen=True, slots=True)
class PictureOrder:
    """How slices say when their picture is shown (7.3.3, 8.2.1).

    Attributes:
        kind: `pic_order_cnt_type`.
        lsb_bits: Of kind 0: the length of what they say.
        says_difference: Of kind 1: whether they say how far they are from where they are expected.
        bottom_offset: Of kind 1: how far the bottom field is expected behind the top one.
    """

    kind: int = 2
    lsb_bits: int = 0
    says_difference: bool = False
    bottom_offset: int = 0

    @classmethod
    def read(cls, bits: BitReader) -> Self:
        """Read it out of a sequence parameter set."""
        kind = bits.ue(2)
        if kind == 0:
            return cls(kind, bits.ue(12) + 4)
        if kind == 2:
            return cls(kind)
        says_difference = not bits.flag()
        bits.se()
        bottom_offset = bits.se()
        for _ in range(bits.ue(255)):
            bits.se()
        return cls(kind, 0, says_difference, bottom_offset)


@dataclass(frozen=True, slots=True)
class Sps:
    """What a sequence parameter set says.

    Attributes:
        id: 0 to 31.
        profile_idc: 66 baseline, 77 main, 100 high, and others.
        constraints: The eight bits behind it.
        level_idc: Ten times the level.
        chroma_format: 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
        bit_depths: Of luma and chroma.
        reference_frames: Most that are kept for reference.
        frames_only: Whether every picture is coded as a whole frame.
        mixes_fields: Whether parts of a frame may be coded as two fields.
        separate_planes: Whether Y, U and V are coded as three pictures.
        frame_number_bits: Length of `frame_num` in a slice.
        order: How it says there when it is shown.
        says_structure: Whether pictures say which of their fields is first.
        delay_bits: Lengths of the two delays in front of it.
    """

    id: int
    profile_idc: int
    constraints: int
    level_idc: int
    chroma_format: int
    bit_depths: tuple[int, int]
    reference_frames: int
    frames_only: bool
    mixes_fields: bool = False
    separate_planes: bool = False
    frame_number_bits: int = 4
    order: PictureOrder = PictureOrder()
    says_structure: bool = False
    delay_bits: tuple[int, int] = (0, 0)

    @classmethod
    def parse(cls, unit: bytes) -> Self:
        """Read a unit of type 7.

        Raises:
            SpliceError: It cannot be read.
        """
        bits = BitReader(payload_of(unit), "a parameter set")
        profile, constraints, level, number = bits.read(8), bits.read(8), bits.read(8), bits.ue(LAST_SPS_ID)
        chroma, depths, separate = 1, (8, 8), False
        if profile in _HIGH:
            chroma = bits.ue(3)
            separate = chroma == 3 and bits.flag()
            depths = (8 + bits.ue(6), 8 + bits.ue(6))
            bits.read(1)
            if bits.flag():
                _pass_scaling_lists(bits, 12 if chroma == 3 else 8)
        frame_number_bits = bits.ue(12) + 4
        order = PictureOrder.read(bits)
        references = bits.ue(_MOST_REFERENCES)
        bits.read(1)
        bits.ue(), bits.ue()
        frames_only = bits.flag()
        mixes, says_structure, delays = False, False, (0, 0)
        if not frames_only:
            mixes = bits.flag()
            says_structure, delays = _said_of_fields(bits)
        return cls(
            id=number,
            profile_idc=profile,
            constraints=constraints,
            level_idc=level,
            chroma_format=chroma,
            bit_depths=depths,
            reference_frames=references,
            frames_only=frames_only,
            mixes_fields=mixes,
            separate_planes=separate,
            frame_number_bits=frame_number_bits,
            order=order,
            says_structure=says_structure,
            delay_bits=delays,
        )

    @property
    def pixel_format(self) -> PixelFormat | None:
        """The layout of its frames, as far as x264 codes them as it does; None where it does not."""
        return self._samples[0]

    @property
    def profile(self) -> str:
        """x264's word for the profile of such frames: high and beyond is the least that has them."""
        return _LOW.get(self.profile_idc) or self._samples[1]

    @property
    def _samples(self) -> tuple[PixelFormat | None, str]:
        luma, chroma = self.bit_depths
        if self.separate_planes or luma != chroma or self.profile_idc not in _PLAIN:
            return None, ""
        return _PROFILES.get((self.chroma_format, luma), (None, ""))


def _pass_scaling_lists(bits: BitReader, count: int) -> None:
    for index in range(count):
        if not bits.read(1):
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.se()) % 256
            last = following or last


def _said_of_fields(bits: BitReader) -> tuple[bool, tuple[int, int]]:
    """Read on to the end: whether pictures say which field is first, and how long the delays in front of that are."""
    bits.read(1)
    if bits.flag():  # cropping
        for _ in range(4):
            bits.ue()
    if not bits.flag():  # no usability information
        return False, (0, 0)
    if bits.flag() and bits.read(8) == _OWN_ASPECT:
        bits.read(32)
    if bits.flag():  # overscan
        bits.read(1)
    if bits.flag():  # range and colours
        bits.read(4)
        if bits.flag():
            bits.read(24)
    if bits.flag():  # places of chroma
        bits.ue(), bits.ue()
    if bits.flag():  # lengths of ticks
        bits.read(65)
    delays = [_delay_bits(bits) for _ in range(2) if bits.flag()]  # of whole streams, and of their pictures
    if delays:
        bits.read(1)
    return bits.flag(), delays[-1] if delays else (0, 0)


def _delay_bits(bits: BitReader) -> tuple[int, int]:
    """Read the parameters of a buffer (E.1.2)."""
    count = bits.ue(_MOST_CPBS - 1) + 1
    bits.read(8)
    for _ in range(count):
        bits.ue(), bits.ue(), bits.read(1)
    bits.read(5)
    delays = bits.read(5) + 1, bits.read(5) + 1
    bits.read(5)
    return delays


@dataclass(frozen=True, slots=True)
class ParameterSets:
    """The sequence and picture parameter sets of a track, as an `avcC` box holds them.

    Attributes:
        sps: Whole units of type 7.
        pps: Whole units of type 8.
        length_size: Bytes of the length in front of each unit of a packet.
    """

    sps: tuple[bytes, ...]
    pps: tuple[bytes, ...]
    length_size: int = 4

    @classmethod
    def parse(cls, record: bytes) -> Self:
        """Read an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1).

        Raises:
            SpliceError: It is none, or holds what is not spliced here.
        """
        if len(record) < 7 or record[0] != 1:
            raise SpliceError("its parameter sets are not in an avcC box")
        try:
            sps, place = _units(record, 6, record[5] & 31)
            pps, place = _units(record, place + 1, record[place])
        except IndexError as error:
            raise SpliceError("its avcC box breaks off") from error
        if not sps or not pps:
            raise SpliceError("its avcC box has no parameter sets")
        if {unit[0] & 31 for unit in sps} != {_SPS} or {unit[0] & 31 for unit in pps} != {_PPS}:
            raise SpliceError("its avcC box holds what is no parameter set of a plain picture")
        return cls(tuple(sps), tuple(pps), (record[4] & 3) + 1)

    def with_units(self, units: Iterable[bytes]) -> Self:
        """Return these and the parameter sets among `units`.

        Raises:
            SpliceError: One of them has the id of another and is not the same, or an avcC box does not take them all.
        """
        sps = {_sps_id(unit): unit for unit in self.sps}
        pps = {_pps_id(unit): unit for unit in self.pps}
        for unit in units:
            if len(unit) > _MOST_SET_BYTES:
                raise SpliceError("one of its parameter sets is too long for an avcC box")
            known, number = (sps, _sps_id(unit)) if unit[0] & 31 == _SPS else (pps, _pps_id(unit))
            if known.setdefault(number, unit) != unit:
                raise SpliceError("its parameter sets change in mid-stream")
        if len(sps) > _MOST_SPS or len(pps) > _MOST_PPS:
            raise SpliceError("it has more parameter sets than an avcC box takes")
        return replace(self, sps=tuple(sps.values()), pps=tuple(pps.values()))

    def free_id(self) -> int:
        """Return an id that neither kind of set has yet; x264 gives both of its own the same.

        Raises:
            SpliceError: There is none.
        """
        used = {_sps_id(unit) for unit in self.sps} | {_pps_id(unit) for unit in self.pps}
        free = next((number for number in range(1, LAST_SPS_ID + 1) if number not in used), None)
        if free is None:
            raise SpliceError("it uses every id that a parameter set can have")
        return free

    def record(self) -> bytes:
        """Return the AVCDecoderConfigurationRecord: the profile of the first set, the highest level of all."""
        read = [Sps.parse(unit) for unit in self.sps]
        first, constraints = read[0], 255
        for sps in read:
            constraints &= sps.constraints
        level = max(sps.level_idc for sps in read)
        head = bytes([1, first.profile_idc, constraints, level, 252 | (self.length_size - 1), 224 | len(self.sps)])
        body = _listed(self.sps) + bytes([len(self.pps)]) + _listed(self.pps)
        if first.profile_idc not in _HIGH:
            return head + body
        luma, chroma = first.bit_depths
        return head + body + bytes([252 | first.chroma_format, 248 | (luma - 8), 248 | (chroma - 8), 0])


@dataclass(frozen=True, slots=True)
class PictureUnit:
    """What is in one packet.

    Attributes:
        idr: Whether nothing behind it refers to anything before it.
        sets: Parameter sets that travel in it.
    """

    idr: bool
    sets: tuple[bytes, ...]

    @classmethod
    def parse(cls, packet: memoryview, length_size: int) -> Self:
        """Look at the units of `packet` (bytes), each behind its length.

        Raises:
            SpliceError: It is no picture, or coded in a way that is not spliced here.
        """
        kinds, sets = set(), []
        for unit in split_units(packet, length_size):
            kind = unit[0] & 31
            kinds.add(kind)
            if kind in {_SPS, _PPS}:
                sets.append(bytes(unit))
        if kinds & _FOREIGN:
            raise SpliceError("it has layers or partitions besides plain pictures")
        if not kinds & {SLICE, IDR_SLICE} or {SLICE, IDR_SLICE} <= kinds:
            raise SpliceError("one of its packets is not one picture")
        return cls(IDR_SLICE in kinds, tuple(sets))


def with_length_size(packet: memoryview, length_size: int, wanted: int) -> bytes:
    """Return `packet` with lengths of `wanted` bytes instead of `length_size`.

    Raises:
        SpliceError: A unit is too long for that.
    """
    if length_size == wanted:
        return bytes(packet)
    units = list(split_units(packet, length_size))
    if any(len(unit) >> (8 * wanted) for unit in units):
        raise SpliceError(f"a picture is too long for lengths of {wanted} bytes")
    return b"".join(len(unit).to_bytes(wanted, "big") + bytes(unit) for unit in units)


def split_units(packet: memoryview, length_size: int) -> Iterator[memoryview]:
    """Yield the units of `packet`, without the lengths in front of them.

    Raises:
        SpliceError: It breaks off.
    """
    place = 0
    while place < len(packet):
        length = int.from_bytes(packet[place : place + length_size], "big")
        place += length_size
        if not 0 < length <= len(packet) - place:
            raise SpliceError("one of its packets breaks off")
        yield packet[place : place + length]
        place += length


def _units(record: bytes, place: int, count: int) -> tuple[list[bytes], int]:
    units = []
    for _ in range(count):
        end = place + 2 + (record[place] << 8 | record[place + 1])
        if end > len(record) or end == place + 2:
            raise SpliceError("its avcC box breaks off")
        units.append(record[place + 2 : end])
        place = end
    return units, place


def _listed(units: Iterable[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def _sps_id(unit: bytes) -> int:
    return Sps.parse(unit).id


def _pps_id(unit: bytes) -> int:
    return BitReader(payload_of(unit), "a parameter set").ue(LAST_PPS_ID)
