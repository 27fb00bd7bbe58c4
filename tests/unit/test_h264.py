"""What is read out of H.264: right where x264 wrote it, and no more than a SpliceError where nobody did."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import av
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.clips import Clips
from tests.media import splices

from reel_modal.errors import SpliceError
from reel_modal.smart_render.h264 import ParameterSets, PictureUnit, Sps, with_length_size


def record_of(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.extradata or b""


@pytest.mark.parametrize(
    ("name", "profile", "references", "depth"),
    [
        ("spliced.mp4", "high", 4, 8),
        ("baseline.mp4", "baseline", 1, 8),
        ("main.mp4", "main", 4, 8),
        ("sixteen_references.mp4", "high", 16, 8),
        ("intra.mp4", "high", 0, 8),
        ("high10.mp4", None, 4, 10),
        ("high422.mp4", None, 4, 8),
        ("interlaced.mp4", None, 4, 8),
    ],
)
def test_a_sequence_parameter_set_says_what_x264_was_told(
    clips: Clips, name: str, profile: str | None, references: int, depth: int
) -> None:
    assert name in splices.STRUCTURES
    (unit,) = ParameterSets.parse(record_of(clips.get(name))).sps
    sps = Sps.parse(unit)
    assert (sps.profile, sps.reference_frames, sps.bit_depths[0]) == (profile, references, depth)
    assert sps.frames_only == (name != "interlaced.mp4")


@pytest.mark.parametrize("name", ["spliced.mp4", "baseline.mp4", "main.mp4", "other_ids.mp4"])
def test_a_record_is_written_as_it_was_read(clips: Clips, name: str) -> None:
    record = record_of(clips.get(name))
    assert ParameterSets.parse(record).record() == record


def test_ids_that_are_used_are_not_given_out(clips: Clips) -> None:
    first = ParameterSets.parse(record_of(clips.get("spliced.mp4")))
    other = ParameterSets.parse(record_of(clips.get("other_ids.mp4")))
    assert (first.free_id(), other.free_id()) == (1, 2)
    both = first.with_units((*other.sps, *other.pps))
    assert (len(both.sps), len(both.pps), both.free_id()) == (2, 2, 2)
    assert both.with_units(first.sps) == both
    with pytest.raises(SpliceError, match="change in mid-stream"):
        both.with_units(ParameterSets.parse(record_of(clips.get("baseline.mp4"))).sps)


def test_lengths_are_rewritten(clips: Clips) -> None:
    packet = bytes.fromhex("00000002 65aa 00000001 41".replace(" ", ""))
    assert with_length_size(memoryview(packet), 4, 2) == bytes.fromhex("000265aa000141")
    long = (300).to_bytes(4, "big") + b"\x65" + bytes(299)
    with pytest.raises(SpliceError, match="too long"):
        with_length_size(memoryview(long), 4, 1)


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        ("00000002 06aa", "not one picture"),
        ("00000002 65aa 00000002 41aa", "not one picture"),
        ("00000002 65aa 00000002 74aa", "layers or partitions"),
        ("00000009 65aa", "breaks off"),
        ("00000000 65aa", "breaks off"),
        ("000000", "breaks off"),
    ],
)
def test_what_is_no_plain_picture_is_refused(packet: str, words: str) -> None:
    with pytest.raises(SpliceError, match=words):
        PictureUnit.parse(memoryview(bytes.fromhex(packet.replace(" ", ""))), 4)


@given(st.binary(max_size=80), st.sampled_from([1, 2, 4]))
@example(b"\x01\x64\x00\x0a\xff\xe1\x00\x04\x67\x64\x00\x0a\x01\x00\x01\x68", 4)
def test_whatever_a_stranger_writes_ends_in_a_splice_error(data: bytes, length_size: int) -> None:
    with suppress(SpliceError):
        ParameterSets.parse(b"\x01" + data).record()
    with suppress(SpliceError):
        Sps.parse(b"\x67\x64" + data)
    with suppress(SpliceError):
        ParameterSets.parse(b"\x01" + data).free_id()
    with suppress(SpliceError):
        PictureUnit.parse(memoryview(data), length_size)
