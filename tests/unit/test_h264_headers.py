"""H.264 headers written by an independent writer, and x264's headers compared with libav's reading."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import Clips
from tests.h264_bits import Bits
from tests.media import splices

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._smart_render.h264.fields import FieldHeaders, FieldOrder
from reel_modal._smart_render.h264.parameter_sets import ParameterSets, parse_sps
from reel_modal.errors import SpliceError
from reel_modal.media.bitstream import BitReader, rbsp
from reel_modal.media.h264_headers import PictureOrder, Sps
from reel_modal.settings import Settings

HIGH = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 144)


def write_hrd(bits: Bits, cpbs: int, lengths: tuple[int, int]) -> None:
    bits.ue(cpbs - 1).u(8, 0x35)
    for number in range(cpbs):
        bits.ue(number, 1000 + number).u(1, number % 2)
    bits.u(5, 23).u(5, lengths[0] - 1).u(5, lengths[1] - 1).u(5, 24)


@st.composite
def sequence_sets(draw: st.DrawFn) -> tuple[bytes, Sps]:
    """Draw a sequence parameter set of any kind and its expected fields."""
    profile = draw(st.sampled_from((66, 77, 88, *HIGH)))
    number = draw(st.integers(0, 31))
    constraints, level = draw(st.integers(0, 255)), draw(st.integers(1, 62))
    bits = Bits().u(8, profile).u(8, constraints).u(8, level).ue(number)
    chroma, depths, separate = 1, (8, 8), False
    if profile in HIGH:
        chroma = draw(st.integers(0, 3))
        bits.ue(chroma)
        separate = chroma == 3 and _flag(draw, bits)
        depths = (draw(st.integers(8, 14)), draw(st.integers(8, 14)))
        bits.ue(depths[0] - 8, depths[1] - 8).u(1, 1)
        for index in range((12 if chroma == 3 else 8) if _flag(draw, bits) else 0):
            if _flag(draw, bits):
                _scaling_list(draw, bits, 16 if index < 6 else 64)
    frame_number_bits = draw(st.integers(4, 16))
    bits.ue(frame_number_bits - 4)
    order = _order(draw, bits)
    references = draw(st.integers(0, 16))
    bits.ue(references).u(1, 1).ue(119, 67)
    frames_only = _flag(draw, bits)
    size = (16 * 120, 16 * 68 * (1 if frames_only else 2))
    mixes = not frames_only and _flag(draw, bits)
    bits.u(1, 1)
    if _flag(draw, bits):  # cropping
        bits.ue(0, draw(st.integers(0, 8)), 0, draw(st.integers(0, 8)))
    structure, delays = _vui(draw, bits) if _flag(draw, bits) else (False, (0, 0))
    if frames_only:
        structure, delays = False, (0, 0)
    sps = Sps(
        id=number,
        profile_idc=profile,
        constraints=constraints,
        level_idc=level,
        chroma_format=chroma,
        bit_depths=depths,
        reference_frames=references,
        coded_size=size,
        frames_only=frames_only,
        mixes_fields=mixes,
        separate_planes=separate,
        frame_number_bits=frame_number_bits,
        order=order,
        has_structure=structure,
        delay_bits=delays,
    )
    return bits.unit(0x67), sps


def _scaling_list(draw: st.DrawFn, bits: Bits, length: int) -> None:
    """Write all entries; or some, then a 0, after which the last entry is repeated."""
    entries = draw(st.lists(st.integers(1, 255), max_size=length))
    stops = [0] if len(entries) < length else []
    for last, entry in pairwise([8, *entries, *stops]):
        bits.se((entry - last + 128) % 256 - 128)


def _order(draw: st.DrawFn, bits: Bits) -> PictureOrder:
    kind = draw(st.integers(0, 2))
    bits.ue(kind)
    if kind == 0:
        length = draw(st.integers(4, 16))
        bits.ue(length - 4)
        return PictureOrder(0, length)
    if kind == 2:
        return PictureOrder(2)
    always_zero, bottom = draw(st.booleans()), draw(st.integers(-9, 9))
    offsets = draw(st.lists(st.integers(-300, 300), max_size=255))
    bits.u(1, always_zero).se(draw(st.integers(-9, 9)), bottom).ue(len(offsets)).se(*offsets)
    return PictureOrder(1, 0, not always_zero, bottom)


def _flag(draw: st.DrawFn, bits: Bits) -> bool:
    """Draw a flag, write it and return it."""
    flag = draw(st.booleans())
    bits.u(1, flag)
    return flag


def _vui(draw: st.DrawFn, bits: Bits) -> tuple[bool, tuple[int, int]]:
    """Write VUI parameters (Annex E.1.1); return pic_struct_present_flag and the lengths of the delays."""
    aspect = draw(st.sampled_from([None, 1, 16, 255]))
    bits.u(1, aspect is not None)
    if aspect is not None:
        bits.u(8, aspect)
        if aspect == 255:
            bits.u(16, 4).u(16, 3)
    if _flag(draw, bits):  # overscan
        bits.u(1, 1)
    if _flag(draw, bits):  # video signal type
        bits.u(3, 5).u(1, 1)
        if _flag(draw, bits):
            bits.u(8, 1).u(8, 1).u(8, 1)
    if _flag(draw, bits):  # chroma sample location
        bits.ue(draw(st.integers(0, 5)), draw(st.integers(0, 5)))
    if _flag(draw, bits):  # timing
        bits.u(32, 1001).u(32, 60000).u(1, 1)
    lengths = (draw(st.integers(1, 32)), draw(st.integers(1, 32)))
    buffers = 0
    for _ in range(2):
        if _flag(draw, bits):
            write_hrd(bits, draw(st.integers(1, 32)), lengths)
            buffers += 1
    if buffers:
        bits.u(1, 0)
    structure = _flag(draw, bits)
    if _flag(draw, bits):  # bitstream restriction
        bits.u(1, 1).ue(2, 1, 9, 9, 2, 4)
    return structure, lengths if buffers else (0, 0)


@given(sequence_sets())
def test_sps_parse_any_kind_equals_written_fields(case: tuple[bytes, Sps]) -> None:
    unit, wanted = case
    assert parse_sps(unit) == wanted


@given(sequence_sets(), st.data())
def test_sps_truncated_or_changed_is_parsed_or_refused(case: tuple[bytes, Sps], data: st.DataObject) -> None:
    unit = bytearray(case[0][: data.draw(st.integers(1, len(case[0])))])
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(0, len(unit) - 1))
        unit[position] ^= 1 << data.draw(st.integers(0, 7))
    unit[0] = 0x67
    with suppress(SpliceError):
        sets = ParameterSets((bytes(unit),), (b"\x68\xce\x38\x80",))
        assert ParameterSets.parse(sets.record()).sps == sets.sps
        FieldHeaders.of(sets).order(memoryview(b"\0\0\0\x05\x65" + bytes(unit[:4])), 4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((32, 0, 0, 0), "value 32; H.264 allows at most 31"),
        ((0, 13, 0, 0), "value 13; H.264 allows at most 12"),
        ((0, 0, 3, 0), "value 3; H.264 allows at most 2"),
        ((0, 0, 0, 13), "value 13; H.264 allows at most 12"),
        ((0, 0, 0, 2**32), "cannot be read"),
    ],
)
def test_sps_values_above_h264s_maximum_are_refused(values: Sequence[int], words: str) -> None:
    with pytest.raises(SpliceError, match=words):
        parse_sps(Bits().u(8, 77).u(8, 0).u(8, 30).ue(*values).unit(0x67))


def field_sps(order: PictureOrder, *, separate: bool = False) -> Sps:
    return Sps(
        id=0,
        profile_idc=244 if separate else 100,
        constraints=0,
        level_idc=40,
        chroma_format=3 if separate else 1,
        bit_depths=(8, 8),
        reference_frames=4,
        coded_size=(1920, 1088),
        frames_only=False,
        mixes_fields=True,
        separate_planes=separate,
        frame_number_bits=7,
        order=order,
    )


@pytest.mark.parametrize(
    ("order", "behind", "separate", "wanted"),
    [
        (PictureOrder(0, 6), -1, False, "bff"),
        (PictureOrder(0, 6), 1, False, "tff"),
        (PictureOrder(0, 6), -1, True, "bff"),
        (PictureOrder(0, 6), None, False, "tff"),
        (PictureOrder(1, 0, has_difference=False, bottom_offset=-1), None, False, "bff"),
        (PictureOrder(1, 0, has_difference=True, bottom_offset=1), -2, False, "bff"),
        (PictureOrder(1, 0, has_difference=True, bottom_offset=-1), 2, False, "tff"),
        (PictureOrder(1, 0, has_difference=True, bottom_offset=-1), None, True, "bff"),
        (PictureOrder(2), None, False, "tff"),
    ],
)
@pytest.mark.parametrize("idr", [True, False])
def test_field_order_is_that_of_the_earlier_field(
    order: PictureOrder, behind: int | None, separate: bool, wanted: FieldOrder, idr: bool
) -> None:
    """Slices give the order in three ways, by picture order count type."""
    pps = Bits().ue(3, 0).u(1, 1).u(1, behind is not None).unit(0x68)
    bits = Bits().ue(0, 7, 3)
    bits.u(2 if separate else 0, 1)
    bits.u(7, 77).u(1, 0)
    if idr:
        bits.ue(5)
    if order.kind == 0:
        bits.u(order.lsb_bits, 33)
    elif order.has_difference:
        bits.se(3)
    if behind is not None and (order.kind == 0 or order.has_difference):
        bits.se(behind)
    unit = bits.u(32, 0xFFFFFFFF).unit(0x65 if idr else 0x61)
    headers = FieldHeaders({0: field_sps(order, separate=separate)}, FieldHeaders.of(_sets(pps)).pps)
    assert headers.order(memoryview(len(unit).to_bytes(4, "big") + unit), 4) == wanted


def _sets(pps: bytes) -> ParameterSets:
    return ParameterSets(
        (Bits().u(8, 77).u(8, 0).u(8, 30).ue(0, 0, 2, 1).u(1, 0).ue(1, 1).u(4, 12).unit(0x67),), (pps,)
    )


def test_field_order_of_progressive_sps_is_frame() -> None:
    pps = Bits().ue(0, 0).u(2, 0).unit(0x68)
    unit = Bits().ue(0, 7, 0).u(32, 0xFFFFFFFF).unit(0x65)
    assert FieldHeaders.of(_sets(pps)).order(memoryview(len(unit).to_bytes(4, "big") + unit), 4) == "frame"


@given(st.binary(max_size=60))
def test_rbsp_removes_emulation_prevention_bytes(data: bytes) -> None:
    bits = Bits().u(8 * len(data), int.from_bytes(data, "big")) if data else Bits()
    assert rbsp(bits.unit(0x67)) == data + b"\x80"


@given(st.lists(st.integers(0, 2**32 - 2)), st.lists(st.integers(-(2**31) + 1, 2**31 - 1)))
def test_bit_reader_exp_golomb_equals_written_numbers(unsigned: list[int], signed: list[int]) -> None:
    reader = BitReader(rbsp(Bits().ue(*unsigned).se(*signed).unit(0x67)), "it")
    assert [reader.ue() for _ in unsigned] == unsigned
    assert [reader.se() for _ in signed] == signed


def test_parameter_sets_above_record_limits_are_refused() -> None:
    sps, pps = _sets(b"\x68\xce\x38\x80").sps, [Bits().ue(number, 0).u(2, 0).unit(0x68) for number in range(256)]
    sets = ParameterSets(sps, (pps[0],))
    assert len(ParameterSets.parse(sets.with_units(pps[:255]).record()).pps) == 255
    with pytest.raises(SpliceError, match="more parameter sets"):
        sets.with_units(pps)
    with pytest.raises(SpliceError, match="too long"):
        sets.with_units([pps[1] + bytes(0x10000)])
    with pytest.raises(SpliceError, match="at most 255"):
        sets.with_units([Bits().ue(256, 0).u(2, 0).unit(0x68)])


def test_parameter_sets_record_with_other_units_is_refused() -> None:
    record = bytearray(_sets(b"\x68\xce\x38\x80").record())
    record[8] = 0x6F
    with pytest.raises(SpliceError, match="unsupported parameter sets"):
        ParameterSets.parse(bytes(record))


def trace_headers(path: Path) -> dict[str, int]:
    """Return the fields of the first parameter sets as libav's trace_headers prints them."""
    command = [find_ffmpeg(Settings()).path, "-i", str(path), "-map", "0:v", "-c", "copy", "-frames:v", "1"]
    command += ["-bsf:v", "trace_headers", "-f", "null", "-"]
    words = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr
    found: dict[str, int] = {}
    for name, value in re.findall(r"\d+ +(\w+)(?:\[\d+\])* +[01]+ = (-?\d+)$", words, re.MULTILINE):
        found.setdefault(name, int(value))
    return found


@pytest.mark.parametrize(
    "name",
    [
        *(
            "spliced.mp4",
            "baseline.mp4",
            "main.mp4",
            "pyramid.mp4",
            "other_ids.mp4",
            "high422_10.mp4",
            "lossless.mp4",
        ),
        *("top_first.mp4", "interlaced_422_10.mp4", "marked_interlaced.mp4", "anamorphic_spliced.mp4", "rgb.mp4"),
    ],
)
def test_parsed_headers_equal_libavs_trace(clips: Clips, name: str) -> None:
    assert name in splices.STRUCTURES
    fields = trace_headers(clips.get(name))
    with av.open(str(clips.get(name))) as container:
        sets = ParameterSets.parse(container.streams.video[0].codec_context.extradata or b"")
    sps, pps = parse_sps(sets.sps[0]), next(iter(FieldHeaders.of(sets).pps.values()))
    expected = {
        "seq_parameter_set_id": sps.id,
        "profile_idc": sps.profile_idc,
        "level_idc": sps.level_idc,
        "max_num_ref_frames": sps.reference_frames,
        "frame_mbs_only_flag": int(sps.frames_only),
        "log2_max_frame_num_minus4": sps.frame_number_bits - 4,
        "pic_order_cnt_type": sps.order.kind,
        "pic_parameter_set_id": pps.id,
        "bottom_field_pic_order_in_frame_present_flag": int(pps.has_bottom_order),
    }
    if sps.order.kind == 0:
        expected["log2_max_pic_order_cnt_lsb_minus4"] = sps.order.lsb_bits - 4
    if "chroma_format_idc" in fields:
        expected["chroma_format_idc"] = sps.chroma_format
        expected["bit_depth_luma_minus8"], expected["bit_depth_chroma_minus8"] = (bits - 8 for bits in sps.bit_depths)
    if not sps.frames_only:
        expected["mb_adaptive_frame_field_flag"] = int(sps.mixes_fields)
        expected["pic_struct_present_flag"] = int(sps.has_structure)
        if sps.delay_bits != (0, 0):
            expected["cpb_removal_delay_length_minus1"] = sps.delay_bits[0] - 1
            expected["dpb_output_delay_length_minus1"] = sps.delay_bits[1] - 1
    assert {key: fields[key] for key in expected} == expected
