"""H.264 headers: correct for x264's output, and at most a SpliceError for anything else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import av
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.clips import Clips
from tests.media import splices

from reel_modal._smart_render.h264.fields import FieldHeaders, FieldOrder, one_order
from reel_modal._smart_render.h264.parameter_sets import (
    SLICE,
    AccessUnit,
    ParameterSets,
    iter_nal_units,
    parse_sps,
    pixel_format_of,
    set_nal_length_size,
    x264_profile,
)
from reel_modal.errors import SpliceError
from reel_modal.media.bitstream import BitReader


def packets_of(path: Path) -> list[memoryview]:
    with av.open(str(path)) as container:
        return [memoryview(bytes(packet)) for packet in container.demux(video=0) if packet.size]


def record_of(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.extradata or b""


@pytest.mark.parametrize(
    ("name", "profile", "references", "pixel_format"),
    [
        ("spliced.mp4", "high", 4, "yuv420p"),
        ("baseline.mp4", "baseline", 1, "yuv420p"),
        ("main.mp4", "main", 4, "yuv420p"),
        ("sixteen_references.mp4", "high", 16, "yuv420p"),
        ("intra.mp4", "high", 0, "yuv420p"),
        ("high10.mp4", "high10", 4, "yuv420p10le"),
        ("high422.mp4", "high422", 4, "yuv422p"),
        ("high422_10.mp4", "high422", 4, "yuv422p10le"),
        ("high444.mp4", "high444", 4, "yuv444p"),
        ("lossless.mp4", "high", 1, "yuv420p"),
        ("monochrome.mp4", "", 4, None),
        ("top_first.mp4", "high", 4, "yuv420p"),
    ],
)
def test_sps_parse_matches_x264_settings(
    clips: Clips, name: str, profile: str, references: int, pixel_format: str | None
) -> None:
    assert name in splices.STRUCTURES
    (unit,) = ParameterSets.parse(record_of(clips.get(name))).sps
    sps = parse_sps(unit)
    assert (x264_profile(sps), sps.reference_frames, pixel_format_of(sps)) == (profile, references, pixel_format)
    assert sps.frames_only == (name != "top_first.mp4")


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("top_first.mp4", "tff"),
        ("bottom_first.mp4", "bff"),
        ("interlaced_422_10.mp4", "tff"),
        ("marked_interlaced.mp4", "frame"),
    ],
)
def test_field_order_from_pic_timing_equals_order_from_slices(clips: Clips, name: str, order: FieldOrder) -> None:
    sets = ParameterSets.parse(record_of(clips.get(name)))
    headers = FieldHeaders.of(sets)
    silent = replace(headers, sps={number: replace(sps, has_structure=False) for number, sps in headers.sps.items()})
    for packet in packets_of(clips.get(name)):
        assert headers.order(packet, sets.length_size) == order
        assert silent.order(packet, sets.length_size) == order


def test_field_order_separate_fields_are_refused(clips: Clips) -> None:
    """The bit is set in slices of frames, because x264 never writes separate fields."""
    sets = ParameterSets.parse(record_of(clips.get("top_first.mp4")))
    headers = FieldHeaders.of(sets)
    packet = bytearray(packets_of(clips.get("top_first.mp4"))[-1])
    for unit in iter_nal_units(memoryview(packet), sets.length_size):
        if unit[0] & 31 == SLICE:
            bits = BitReader(bytes(unit[1:9]), "it")
            bits.ue(), bits.ue(), bits.ue(), bits.read(headers.sps[0].frame_number_bits)
            position = 64 - bits.left
            unit[1 + position // 8] ^= 128 >> position % 8
    with pytest.raises(SpliceError, match="coded as two fields"):
        headers.order(memoryview(packet), sets.length_size)


@pytest.mark.parametrize("structure", [1, 2, 5, 6, 7, 8, 15])
def test_field_order_repeated_fields_are_refused(clips: Clips, structure: int) -> None:
    sets = ParameterSets.parse(record_of(clips.get("top_first.mp4")))
    slice_unit = next(
        bytes(unit)
        for unit in iter_nal_units(packets_of(clips.get("top_first.mp4"))[-1], sets.length_size)
        if unit[0] & 31 == SLICE
    )
    timing = bytes([6, 5, 1, 7, 1, 1, structure << 4, 128])  # after another SEI message
    units = (timing, slice_unit)
    packet = b"".join(len(unit).to_bytes(sets.length_size, "big") + unit for unit in units)
    with pytest.raises(SpliceError, match="repeats a field or a frame"):
        FieldHeaders.of(sets).order(memoryview(packet), sets.length_size)


def test_field_order_that_changes_is_refused() -> None:
    assert one_order(["tff", "tff"]) == "tff"
    with pytest.raises(SpliceError, match="field order"):
        one_order(["tff", "bff"])


@pytest.mark.parametrize(
    "name", ["spliced.mp4", "baseline.mp4", "main.mp4", "other_ids.mp4", "high422_10.mp4", "interlaced_422_10.mp4"]
)
def test_parameter_sets_record_round_trip_is_equal(clips: Clips, name: str) -> None:
    record = record_of(clips.get(name))
    assert ParameterSets.parse(record).record() == record


def test_parameter_sets_free_id_is_unused(clips: Clips) -> None:
    first = ParameterSets.parse(record_of(clips.get("spliced.mp4")))
    other = ParameterSets.parse(record_of(clips.get("other_ids.mp4")))
    assert (first.free_id(), other.free_id()) == (1, 2)
    both = first.with_units((*other.sps, *other.pps))
    assert (len(both.sps), len(both.pps), both.free_id()) == (2, 2, 2)
    assert both.with_units(first.sps) == both
    with pytest.raises(SpliceError, match="change within the stream"):
        both.with_units(ParameterSets.parse(record_of(clips.get("baseline.mp4"))).sps)


def test_set_nal_length_size_rewrites_length_prefixes(clips: Clips) -> None:
    packet = bytes.fromhex("00000002 65aa 00000001 41".replace(" ", ""))
    assert set_nal_length_size(memoryview(packet), 4, 2) == bytes.fromhex("000265aa000141")
    long = (300).to_bytes(4, "big") + b"\x65" + bytes(299)
    with pytest.raises(SpliceError, match="too long"):
        set_nal_length_size(memoryview(long), 4, 1)


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        ("00000002 06aa", "not exactly one coded picture"),
        ("00000002 65aa 00000002 41aa", "not exactly one coded picture"),
        ("00000002 65aa 00000002 74aa", "unsupported layers or data partitions"),
        ("00000009 65aa", "is truncated"),
        ("00000000 65aa", "is truncated"),
        ("000000", "is truncated"),
    ],
)
def test_access_unit_invalid_packet_is_refused(packet: str, words: str) -> None:
    with pytest.raises(SpliceError, match=words):
        AccessUnit.parse(memoryview(bytes.fromhex(packet.replace(" ", ""))), 4)


@given(st.binary(max_size=80), st.sampled_from([1, 2, 4]))
@example(b"\x01\x64\x00\x0a\xff\xe1\x00\x04\x67\x64\x00\x0a\x01\x00\x01\x68", 4)
def test_h264_parsers_arbitrary_bytes_raise_only_splice_error(data: bytes, length_size: int) -> None:
    with suppress(SpliceError):
        ParameterSets.parse(b"\x01" + data).record()
    with suppress(SpliceError):
        parse_sps(b"\x67\x64" + data)
    with suppress(SpliceError):
        ParameterSets.parse(b"\x01" + data).free_id()
    with suppress(SpliceError):
        sets = ParameterSets((b"\x67\x4d\0\x0a" + data[:40],), (b"\x68" + data[:10],), length_size)
        FieldHeaders.of(sets).order(memoryview(data), length_size)
    with suppress(SpliceError):
        AccessUnit.parse(memoryview(data), length_size)
