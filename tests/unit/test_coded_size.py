"""The guard against large frames reads each H.264 parameter set as libav does, or as a larger size."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path

import av
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.clips import Clips, ffmpeg
from tests.h264_bits import Bits
from tests.media import splices

from reel_modal.errors import InvalidMediaError
from reel_modal.media.bitstream import TruncatedError
from reel_modal.media.coded_size import CodedSizeGuard, coded_sizes
from reel_modal.settings import MediaLimits

SIDE = 3200
BLOCKS = SIDE // 16
CLIP = "baseline.mp4"
assert CLIP in splices.STRUCTURES
LIMITS = MediaLimits(max_width_px=1280, max_height_px=1280, max_frame_pixels=1280 * 720)
PPS = Bits().ue(0, 0).u(2, 0).ue(0, 0, 0).u(3, 0).se(0, 0, 0).u(3, 0).unit(0x68)
SLICE = Bits().ue(0, 7, 0).u(32, 0).u(32, 0xFFFFFFFF).unit(0x65)


def start(profile: int = 66, *, high: bool = False) -> Bits:
    bits = Bits().u(8, profile).u(8, 0).u(8, 51).ue(0)
    return bits.ue(1, 0, 0).u(2, 0) if high else bits


def sized(bits: Bits, width: int = BLOCKS, height: int = BLOCKS) -> Bits:
    """Add the size in blocks of 16 pixels."""
    return bits.ue(1).u(1, 0).ue(width - 1, height - 1)


def whole(bits: Bits) -> bytes:
    """Return the unit of a stream without fields, cropping and VUI."""
    return sized(bits).u(4, 0b1100).unit(0x67)


def long_code(zeros: int) -> Bits:
    """Return 63 bits that begin with more zeros than H.264 allows."""
    return Bits().u(63, 1 << (62 - zeros))


def with_offsets(*offsets: str) -> Bits:
    """Return the start of a parameter set with these codes as `offset_for_ref_frame`."""
    bits = start().ue(0, 1).u(1, 1).se(0, 0).ue(len(offsets))
    bits.text += "".join(offsets)
    return bits


def decoded_size(unit: bytes) -> tuple[int, int]:
    """Return the size with which libav decodes slices after `unit`; (0, 0) if it refuses the unit."""
    context = av.CodecContext.create("h264", "r")
    context.thread_count = 1
    with suppress(av.error.FFmpegError):
        context.decode(av.Packet(b"".join(b"\0\0\1" + each for each in (unit, PPS, SLICE))))
    return context.width, context.height


def pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


UNITS = {
    "high": whole(start(100, high=True).ue(0, 2)),
    "old_high_444": whole(start(144, high=True).ue(0, 2)),
    "multi_resolution": whole(start(134).ue(0, 2)),
    "zeros_in_offset": whole(with_offsets(long_code(40).text)),
    "most_offsets": whole(with_offsets(*[Bits().se(2**30 + 1).text] * 255)),
}


@pytest.mark.parametrize("name", UNITS)
def test_coded_sizes_unusual_unit_equals_decoder(name: str) -> None:
    size = decoded_size(UNITS[name])
    assert size[0] == SIDE
    assert coded_sizes(UNITS[name], "h264") == [size]


CUT = bytes.fromhex("67420033da")
"""A parameter set that ends before its size, which libav then reads from the bytes that follow."""


def test_coded_sizes_unit_without_prevention_contains_decoders() -> None:
    """Libav refuses what it reads without these bytes, and then reads them too."""
    unit = bytes.fromhex("67420033d49600001855b20000000376f4d64200c8019190")
    assert decoded_size(unit) == (SIDE, SIDE)
    assert (SIDE, SIDE) in coded_sizes(unit, "h264")


def test_coded_sizes_unit_ends_at_zeros_and_two() -> None:
    with pytest.raises(TruncatedError):
        coded_sizes(CUT + b"\0\0\2" + b"\xff" * 8, "h264")


@st.composite
def damaged_units(draw: st.DrawFn) -> bytes:
    """Draw a parameter set of which bits are changed and bytes are removed or added."""
    profile = draw(st.sampled_from((66, 77, 100, 110, 134, 135, 138, 139, 144, 244)))
    bits = start(profile, high=draw(st.booleans())).ue(draw(st.integers(0, 12)))
    offsets = [Bits().se(value).text for value in draw(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), max_size=4))]
    offsets += [long_code(draw(st.integers(32, 61))).text for _ in range(draw(st.integers(0, 2)))]
    if offsets:
        bits.ue(1).u(1, 1).se(0, 0).ue(len(offsets))
        bits.text += "".join(draw(st.permutations(offsets)))
    else:
        bits.ue(2)
    sized(bits, draw(st.integers(1, 400)), draw(st.integers(1, 400))).u(4, draw(st.integers(0, 15)))
    unit = bytearray(bits.unit(0x67))
    for _ in range(draw(st.integers(0, 3))):
        position = draw(st.integers(1, len(unit) - 1))
        unit[position] ^= 1 << draw(st.integers(0, 7))
    position = draw(st.integers(1, len(unit)))
    unit[position:position] = draw(st.sampled_from((b"", b"\0\0\3", b"\3", b"\0\0\2")))
    return bytes(unit[: draw(st.integers(4, len(unit)))])


@given(damaged_units())
@example(CUT)
def test_coded_sizes_damaged_unit_at_least_decoders(unit: bytes) -> None:
    with suppress(TruncatedError):  # the guard refuses the file
        largest = max(map(pixels, coded_sizes(unit, "h264")), default=0)
        assert pixels(decoded_size(unit)) <= largest


def prefixed(unit: bytes) -> bytes:
    return len(unit).to_bytes(4, "big") + unit


@pytest.mark.parametrize(
    "packet",
    [prefixed(UNITS["high"]), prefixed(b"\x09\x10\0\0\1" + UNITS["high"]), bytes(4) + prefixed(UNITS["high"])],
    ids=["first", "after_start_code_in_unit", "after_empty_unit"],
)
def test_guard_large_parameter_set_in_packet_is_refused(clips: Clips, packet: bytes) -> None:
    path = clips.get(CLIP)
    with av.open(str(path)) as container:
        guard = CodedSizeGuard(container.streams.video[0], path, LIMITS)
        for accepted in container.demux(video=0):
            guard.check(accepted)
        with pytest.raises(InvalidMediaError, match=f"declares {SIDE}x{SIDE}"):
            guard.check(av.Packet(packet))


@pytest.fixture
def raw_stream(clips: Clips, tmp_path: Path) -> Path:
    """Return a file whose packets have start codes."""
    path = tmp_path / "raw.h264"
    ffmpeg("-i", clips.get(CLIP), "-c", "copy", path)
    return path


@pytest.mark.parametrize(("following", "refused"), [(b"\0\0\1" + PPS, True), (b"", False)])
def test_guard_sps_without_size_is_refused_before_others(raw_stream: Path, following: bytes, refused: bool) -> None:
    """At the end of a packet, as in a truncated file, decoders read nothing else."""
    with av.open(str(raw_stream)) as container:
        guard = CodedSizeGuard(container.streams.video[0], raw_stream, LIMITS)
        packet = av.Packet(b"\0\0\1" + CUT + following)
        with pytest.raises(InvalidMediaError, match="truncated") if refused else nullcontext():
            guard.check(packet)


def test_guard_sps_in_list_of_pps_is_refused(clips: Clips) -> None:
    path = clips.get(CLIP)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        record = bytearray(stream.codec_context.extradata or b"")
        place = 6 + 2 + int.from_bytes(record[6:8], "big")
        record[place] += 1
        large = len(UNITS["high"]).to_bytes(2, "big") + UNITS["high"]
        record[place + 1 : place + 1] = large
        stream.codec_context.extradata = bytes(record)
        with pytest.raises(InvalidMediaError, match=f"declares {SIDE}x{SIDE}"):
            CodedSizeGuard(stream, path, LIMITS)
