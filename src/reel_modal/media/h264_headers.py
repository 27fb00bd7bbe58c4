"""Parse the sequence and picture parameter sets of H.264.

Source: ITU-T H.264 (08/2021), 7.3.2.1.1, 7.3.2.2, and annexes E.1.1 and E.1.2. Opens no files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

from reel_modal.media.bitstream import BitReader, rbsp

__all__ = ["HIGH_PROFILES", "LAST_SPS_ID", "NAL_PPS", "NAL_SPS", "PictureOrder", "Pps", "Sps"]

NAL_SPS: Final = 7
NAL_PPS: Final = 8
LAST_SPS_ID: Final = 31
HIGH_PROFILES: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 144})
"""Values of `profile_idc` with which a sequence parameter set contains chroma format and bit depth (7.3.2.1.1).

As in libavcodec, which is the decoder: with High 4:4:4 of 2003 (144), and without three profiles of depth and
multi-resolution video (134, 135, 139), whose sequence parameter sets have another NAL unit type.
"""

_LAST_PPS_ID: Final = 255
_OWN_ASPECT: Final = 255
_MOST_CPBS: Final = 32
_MOST_REFERENCES: Final = 16
_MOST_PPS_BYTES: Final = 64
"""Upper bound for the part of a picture parameter set that is read here."""


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
        coded_size: (width, height) of the coded frames in pixels, before cropping.
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
    coded_size: tuple[int, int]
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
            BitstreamError: The unit is truncated, or contains a value that the standard does not allow.
        """
        bits = BitReader(rbsp(unit), "a parameter set")
        sps = cls.read(bits)
        if sps.frames_only:
            return sps
        mixes_fields = bits.flag()
        has_structure, delay_bits = _read_timing_structure(bits)
        return replace(sps, mixes_fields=mixes_fields, has_structure=has_structure, delay_bits=delay_bits)

    @classmethod
    def read(cls, bits: BitReader) -> Self:
        """Read the syntax elements up to `frame_mbs_only_flag`; decoders also accept units that are damaged later.

        Raises:
            BitstreamError: They are truncated, or contain a value that the standard does not allow.
        """
        profile, constraints, level, number = bits.read(8), bits.read(8), bits.read(8), bits.ue(LAST_SPS_ID)
        chroma, depths, separate = 1, (8, 8), False
        if profile in HIGH_PROFILES:
            chroma = bits.ue(3)
            separate = chroma == 3 and bits.flag()
            depths = (8 + bits.ue(6), 8 + bits.ue(6))
            bits.read(1)
            if bits.flag():
                _skip_scaling_lists(bits, 12 if chroma == 3 else 8)
        frame_number_bits = bits.ue(12) + 4
        order = PictureOrder.read(bits)
        references = bits.ue(_MOST_REFERENCES)
        bits.read(1)
        width, height = 16 * (bits.ue() + 1), 16 * (bits.ue() + 1)
        frames_only = bits.flag()
        return cls(
            id=number,
            profile_idc=profile,
            constraints=constraints,
            level_idc=level,
            chroma_format=chroma,
            bit_depths=depths,
            reference_frames=references,
            coded_size=(width, height if frames_only else 2 * height),
            frames_only=frames_only,
            separate_planes=separate,
            frame_number_bits=frame_number_bits,
            order=order,
        )


@dataclass(frozen=True, slots=True)
class Pps:
    """The syntax elements of a picture parameter set that slice headers depend on.

    Attributes:
        id: `pic_parameter_set_id`, 0 to 255.
        sps_id: `seq_parameter_set_id`, 0 to 31.
        has_bottom_order: `bottom_field_pic_order_in_frame_present_flag`.
    """

    id: int
    sps_id: int
    has_bottom_order: bool

    @classmethod
    def parse(cls, unit: bytes) -> Self:
        """Parse a NAL unit of type 8.

        Raises:
            BitstreamError: The unit is truncated, or contains a value that the standard does not allow.
        """
        bits = BitReader(rbsp(unit[:_MOST_PPS_BYTES]), "a parameter set")
        number, sps_id = bits.ue(_LAST_PPS_ID), bits.ue(LAST_SPS_ID)
        bits.read(1)
        return cls(number, sps_id, bits.flag())


def _skip_scaling_lists(bits: BitReader, count: int) -> None:
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
