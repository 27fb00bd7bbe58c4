"""Parse H.264 access units, parameter sets and `avcC` boxes, as far as a splice needs them.

Sources: ITU-T H.264 (08/2021), 7.3 and annexes A and E.1; ISO/IEC 14496-15 (2022), 5.3. Works on bytes and does
not import libav.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Self

from reel_modal._smart_render.h264.bitstream import BitReader, rbsp
from reel_modal.errors import SpliceError
from reel_modal.media.frames import PixelFormat

__all__ = [
    "IDR_SLICE",
    "LAST_PPS_ID",
    "LAST_SPS_ID",
    "SEI",
    "SLICE",
    "AccessUnit",
    "ParameterSets",
    "Sps",
    "iter_nal_units",
    "set_nal_length_size",
]

SLICE, IDR_SLICE, SEI, _SPS, _PPS = 1, 5, 6, 7, 8
# NAL unit types of enhancement layers, auxiliary pictures and data partitions, which are not supported.
_FOREIGN: Final = frozenset({2, 3, 4, 13, 14, 15, 19, 20, 21})
# Profiles whose sequence parameter sets contain chroma format and bit depth (7.3.2.1.1).
_HIGH: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
# x264's profile names: by `profile_idc` here, and by sample format below.
_LOW: Final = {66: "baseline", 77: "main"}
_PROFILES: Final[dict[tuple[int, int], tuple[PixelFormat, str]]] = {
    (1, 8): ("yuv420p", "high"),
    (1, 10): ("yuv420p10le", "high10"),
    (2, 8): ("yuv422p", "high422"),
    (2, 10): ("yuv422p10le", "high422"),
    (3, 8): ("yuv444p", "high444"),
    (3, 10): ("yuv444p10le", "high444"),
}
"""By chroma format and bits per sample: the pixel format, and the lowest profile that supports it."""

# Not in this set: profiles of scalable and stereo video, and CAVLC 4:4:4 Intra.
_PLAIN: Final = frozenset({66, 77, 100, 110, 122, 244})
LAST_SPS_ID: Final = 31
LAST_PPS_ID: Final = 255
# Limits of an avcC box (ISO/IEC 14496-15, 5.3.3.1).
_MOST_SPS: Final = 31
_MOST_PPS: Final = 255
_MOST_SET_BYTES: Final = 0xFFFF
_OWN_ASPECT: Final = 255
_MOST_CPBS: Final = 32
_MOST_REFERENCES: Final = 16


@dataclass(frozen=True, slots=True)
class PictureOrder:
    """How slice headers code the picture order count (7.3.3, 8.2.1).

    Attributes:
        kind: `pic_order_cnt_type`.
        lsb_bits: Kind 0: bits of `pic_order_cnt_lsb`.
        has_difference: Kind 1: whether slice headers contain `delta_pic_order_cnt`.
        bottom_offset: Kind 1: `offset_for_top_to_bottom_field`.
    """

    kind: int = 2
    lsb_bits: int = 0
    has_difference: bool = False
    bottom_offset: int = 0

    @classmethod
    def read(cls, bits: BitReader) -> Self:
        """Read the syntax elements from a sequence parameter set."""
        kind = bits.ue(2)
        if kind == 0:
            return cls(kind, bits.ue(12) + 4)
        if kind == 2:
            return cls(kind)
        has_difference = not bits.flag()
        bits.se()
        bottom_offset = bits.se()
        for _ in range(bits.ue(255)):
            bits.se()
        return cls(kind, 0, has_difference, bottom_offset)


@dataclass(frozen=True, slots=True)
class Sps:
    """The parsed contents of a sequence parameter set.

    Attributes:
        id: `seq_parameter_set_id`, 0 to 31.
        profile_idc: 66 baseline, 77 main, 100 high, and others.
        constraints: The eight bits after `profile_idc`: the constraint flags and two reserved bits.
        level_idc: Ten times the level.
        chroma_format: 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
        bit_depths: Bits per sample of luma and chroma.
        reference_frames: `max_num_ref_frames`.
        frames_only: Whether every picture is coded as a whole frame (`frame_mbs_only_flag`).
        mixes_fields: Whether macroblock pairs may be coded as fields (`mb_adaptive_frame_field_flag`).
        separate_planes: Whether Y, U and V are coded as three pictures (`separate_colour_plane_flag`).
        frame_number_bits: Bits of `frame_num` in a slice header.
        order: How slice headers code the picture order count.
        has_structure: Whether picture timing SEI messages contain `pic_struct` (`pic_struct_present_flag`).
        delay_bits: Bits of the two delays before `pic_struct`: of CPB removal and of DPB output.
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
    has_structure: bool = False
    delay_bits: tuple[int, int] = (0, 0)

    @classmethod
    def parse(cls, unit: bytes) -> Self:
        """Parse a NAL unit of type 7.

        Raises:
            SpliceError: The unit cannot be read.
        """
        bits = BitReader(rbsp(unit), "a parameter set")
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
        mixes, has_structure, delays = False, False, (0, 0)
        if not frames_only:
            mixes = bits.flag()
            has_structure, delays = _read_timing_structure(bits)
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
            has_structure=has_structure,
            delay_bits=delays,
        )

    @property
    def pixel_format(self) -> PixelFormat | None:
        """Pixel format of the frames; None if x264 cannot encode such frames."""
        return self._samples[0]

    @property
    def profile(self) -> str:
        """x264's profile name: baseline or main if it is one of these, else the lowest profile for the samples."""
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


def _read_timing_structure(bits: BitReader) -> tuple[bool, tuple[int, int]]:
    """Read the rest of the SPS; return `pic_struct_present_flag` and the bits of the delays before `pic_struct`."""
    bits.read(1)
    if bits.flag():  # cropping
        for _ in range(4):
            bits.ue()
    if not bits.flag():  # no VUI (video usability information)
        return False, (0, 0)
    if bits.flag() and bits.read(8) == _OWN_ASPECT:
        bits.read(32)
    if bits.flag():  # overscan
        bits.read(1)
    if bits.flag():  # video signal type: range and colour description
        bits.read(4)
        if bits.flag():
            bits.read(24)
    if bits.flag():  # chroma sample location
        bits.ue(), bits.ue()
    if bits.flag():  # timing information
        bits.read(65)
    delays = [_delay_bits(bits) for _ in range(2) if bits.flag()]  # NAL and VCL HRD parameters
    if delays:
        bits.read(1)
    return bits.flag(), delays[-1] if delays else (0, 0)


def _delay_bits(bits: BitReader) -> tuple[int, int]:
    """Read HRD parameters (E.1.2); return the bits of the CPB removal delay and of the DPB output delay."""
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
    """The sequence and picture parameter sets of a track, as stored in an `avcC` box.

    Attributes:
        sps: Whole NAL units of type 7.
        pps: Whole NAL units of type 8.
        length_size: Bytes of the length before each NAL unit of a packet.
    """

    sps: tuple[bytes, ...]
    pps: tuple[bytes, ...]
    length_size: int = 4

    @classmethod
    def parse(cls, record: bytes) -> Self:
        """Parse an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1).

        Raises:
            SpliceError: The bytes are not such a record, or it holds unsupported NAL units.
        """
        if len(record) < 7 or record[0] != 1:
            raise SpliceError("its parameter sets are not in an avcC box")
        try:
            sps, place = _units(record, 6, record[5] & 31)
            pps, place = _units(record, place + 1, record[place])
        except IndexError as error:
            raise SpliceError("its avcC box is truncated") from error
        if not sps or not pps:
            raise SpliceError("its avcC box has no parameter sets")
        if {unit[0] & 31 for unit in sps} != {_SPS} or {unit[0] & 31 for unit in pps} != {_PPS}:
            raise SpliceError("its avcC box has unsupported parameter sets")
        return cls(tuple(sps), tuple(pps), (record[4] & 3) + 1)

    def with_units(self, units: Iterable[bytes]) -> Self:
        """Return these parameter sets together with `units`.

        Raises:
            SpliceError: Two different sets have the same id, or an avcC box cannot hold all sets.
        """
        sps = {_sps_id(unit): unit for unit in self.sps}
        pps = {_pps_id(unit): unit for unit in self.pps}
        for unit in units:
            if len(unit) > _MOST_SET_BYTES:
                raise SpliceError("one of its parameter sets is too long for an avcC box")
            by_id, number = (sps, _sps_id(unit)) if unit[0] & 31 == _SPS else (pps, _pps_id(unit))
            if by_id.setdefault(number, unit) != unit:
                raise SpliceError("its parameter sets change within the stream")
        if len(sps) > _MOST_SPS or len(pps) > _MOST_PPS:
            raise SpliceError("it has more parameter sets than an avcC box can hold")
        return replace(self, sps=tuple(sps.values()), pps=tuple(pps.values()))

    def free_id(self) -> int:
        """Return an id that no SPS and no PPS uses; x264 uses one id for both of its sets.

        Raises:
            SpliceError: Every id is in use.
        """
        used = {_sps_id(unit) for unit in self.sps} | {_pps_id(unit) for unit in self.pps}
        free = next((number for number in range(1, LAST_SPS_ID + 1) if number not in used), None)
        if free is None:
            raise SpliceError("it uses every possible id of a parameter set")
        return free

    def record(self) -> bytes:
        """Return the AVCDecoderConfigurationRecord, with the profile of the first SPS and the highest level."""
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
class AccessUnit:
    """The contents of one packet.

    Attributes:
        idr: Whether it is an IDR picture: no later packet refers to anything before it.
        sets: The parameter sets inside the packet.
    """

    idr: bool
    sets: tuple[bytes, ...]

    @classmethod
    def parse(cls, packet: memoryview, length_size: int) -> Self:
        """Parse the NAL units of `packet` (bytes), each stored after its length.

        Raises:
            SpliceError: The packet is not exactly one coded picture, or uses unsupported NAL units.
        """
        kinds, sets = set(), []
        for unit in iter_nal_units(packet, length_size):
            kind = unit[0] & 31
            kinds.add(kind)
            if kind in {_SPS, _PPS}:
                sets.append(bytes(unit))
        if kinds & _FOREIGN:
            raise SpliceError("it has unsupported layers or data partitions")
        if not kinds & {SLICE, IDR_SLICE} or {SLICE, IDR_SLICE} <= kinds:
            raise SpliceError("one of its packets is not exactly one coded picture")
        return cls(IDR_SLICE in kinds, tuple(sets))


def set_nal_length_size(packet: memoryview, length_size: int, new_size: int) -> bytes:
    """Return `packet` with NAL unit lengths of `new_size` bytes instead of `length_size`.

    Raises:
        SpliceError: A NAL unit is too long for `new_size` bytes.
    """
    if length_size == new_size:
        return bytes(packet)
    units = list(iter_nal_units(packet, length_size))
    if any(len(unit) >> (8 * new_size) for unit in units):
        raise SpliceError(f"a frame is too long for lengths of {new_size} bytes")
    return b"".join(len(unit).to_bytes(new_size, "big") + bytes(unit) for unit in units)


def iter_nal_units(packet: memoryview, length_size: int) -> Iterator[memoryview]:
    """Yield the NAL units of `packet`, without the lengths before them.

    Raises:
        SpliceError: The packet is truncated.
    """
    place = 0
    while place < len(packet):
        length = int.from_bytes(packet[place : place + length_size], "big")
        place += length_size
        if not 0 < length <= len(packet) - place:
            raise SpliceError("one of its packets is truncated")
        yield packet[place : place + length]
        place += length


def _units(record: bytes, place: int, count: int) -> tuple[list[bytes], int]:
    units = []
    for _ in range(count):
        end = place + 2 + (record[place] << 8 | record[place + 1])
        if end > len(record) or end == place + 2:
            raise SpliceError("its avcC box is truncated")
        units.append(record[place + 2 : end])
        place = end
    return units, place


def _listed(units: Iterable[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def _sps_id(unit: bytes) -> int:
    return Sps.parse(unit).id


def _pps_id(unit: bytes) -> int:
    return BitReader(rbsp(unit), "a parameter set").ue(LAST_PPS_ID)
