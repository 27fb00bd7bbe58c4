"""Frames that are read from a keyframe in the middle equal those of one pass over the whole file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clips import Clips, ffmpeg, real

from reel_modal._ffmpeg.frame_slots import SpanError, count_slots, shown_ticks
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.functions.exact_source import ExactSource
from reel_modal.media import MediaInfo, probe, rated
from reel_modal.settings import Settings

SETTINGS = Settings.from_env()
LIMITS = SETTINGS.limits
SOURCE = ("-f", "lavfi", "-i", "testsrc2=size=128x96:rate=30:duration=4")
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
SAME = "log-level=none:pools=1:keyint=20:min-keyint=20:bframes=3"
VARIABLE = ("-fps_mode", "passthrough", "-enc_time_base", "1:90000")
MADE = {
    "closed.mp4": (*X264, "-g", "20", "-bf", "3"),
    "open_gop.mp4": (*X264, "-x264-params", "open-gop=1:keyint=12:bframes=3"),
    "jitter.mp4": ("-vf", "settb=1/90000,setpts='N*3000+mod(N*7919,900)'", *VARIABLE, *X264, "-g", "20"),
    "gaps.mp4": ("-vf", "select='mod(n,7)*mod(n,5)'", *VARIABLE, *X264, "-g", "20"),
    "hevc.mp4": (*X265, "-x265-params", f"{SAME}:open-gop=0"),
    "hevc_open_gop.mp4": (*X265, "-x265-params", f"{SAME}:open-gop=1:b-adapt=0"),
    "hevc_leading.mp4": (*X265, "-x265-params", f"{SAME}:open-gop=0:radl=2"),
    "hevc_pyramid.mkv": (*X265, "-x265-params", f"{SAME}:open-gop=0:b-pyramid=1:bframes=4:repeat-headers=1:slices=2"),
    "hevc_10bit.mov": (*X265, "-pix_fmt", "yuv420p10le", "-x265-params", f"{SAME}:open-gop=0"),
    "hevc_gaps.mp4": ("-vf", "select='mod(n,7)*mod(n,5)'", *VARIABLE, *X265, "-x265-params", f"{SAME}:open-gop=0"),
    "gaps.mkv": ("-vf", "select='mod(n,7)*mod(n,5)'", *VARIABLE, *X264, "-g", "20"),
}
MADE_BEFORE = ("milliseconds.mkv", "10bit.mp4", "444.mp4", "full_range.mp4", "vfr.mp4", "turned_90.mp4", "59_94.mp4")
RATES = (None, Fraction(24000, 1001), Fraction(25), Fraction(60), Fraction(15))


@pytest.fixture(scope="module")
def files(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("spans")
    found = {name: clips.get(name) for name in MADE_BEFORE} | {"bikes.mp4": real("bikes.mp4")}
    for name, options in MADE.items():
        found[name] = folder / name
        ffmpeg(*SOURCE, *options, found[name])
    return found


@lru_cache
def source(path: Path) -> MediaInfo:
    return rated(probe(path, settings=SETTINGS), LIMITS)


def digests(reader: FrameReader) -> list[tuple[Fraction, str]]:
    with reader:
        return [(frame.pts_seconds, hashlib.md5(frame.data, usedforsecurity=False).hexdigest()) for frame in reader]


@lru_cache
def whole(path: Path, fps: Fraction) -> list[tuple[Fraction, str]]:
    media = source(path)
    return digests(FrameReader(media, pixel_format="yuv420p", fps=fps, decoder="in_process", settings=SETTINGS))


@given(
    name=st.sampled_from([*MADE, *MADE_BEFORE, "bikes.mp4"]),
    rate=st.sampled_from(RATES),
    part=st.tuples(st.floats(0, 1), st.integers(1, 40)),
)
@settings(max_examples=80)
def test_span_has_the_frames_of_one_pass(
    files: dict[str, Path], name: str, rate: Fraction | None, part: tuple[float, int]
) -> None:
    media = source(files[name])
    fps = rate or media.fps
    expected = whole(files[name], fps)
    exact = ExactSource.of(media)
    count = count_slots(media, fps, media.start_seconds, LIMITS)
    assert count == len(expected)
    first = round(part[0] * (count - 1))
    shown = shown_ticks(exact.ticks, media, fps, count)[first : first + part[1]]
    reader = exact.reader(
        shown,
        pixel_format="yuv420p",
        settings=SETTINGS,
        first_seconds=media.start_seconds + first / fps,
        interval_seconds=1 / fps,
    )
    assert digests(reader) == expected[first : first + part[1]]


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("hevc.mp4", range(0, 120, 20)),
        ("hevc_pyramid.mkv", range(0, 120, 20)),
        ("hevc_open_gop.mp4", [0]),  # the others are CRA pictures, with leading pictures that refer to earlier ones
        ("hevc_leading.mp4", [0]),  # leading pictures are shown before the IDR picture that they follow
    ],
)
def test_hevc_is_decoded_from_idr_pictures_alone(files: dict[str, Path], name: str, entries: Sequence[int]) -> None:
    exact = ExactSource.of(source(files[name]))
    assert exact.keyframes == [exact.ticks[number] for number in entries]


def test_hevc_trim_far_from_the_kept_part_raises(files: dict[str, Path]) -> None:
    media = source(files["hevc.mp4"])
    with pytest.raises(SpanError, match="far from the kept part"):
        ExactSource.of(media, (Fraction(18), Fraction(20)))


def test_hevc_damaged_packet_raises(files: dict[str, Path], tmp_path: Path) -> None:
    media = source(files["hevc.mp4"])
    data = bytearray(media.path.read_bytes())
    with av.open(str(media.path)) as container:
        packet = [each for each in container.demux(video=0) if each.size][41]
    assert packet.pos is not None
    hole = slice(packet.pos + packet.size // 4, packet.pos + packet.size)
    data[hole] = bytes(hole.stop - hole.start)
    damaged = tmp_path / "in.mp4"
    damaged.write_bytes(data)
    exact = ExactSource.of(source(damaged))
    reader = exact.reader(exact.ticks[40:60], pixel_format="yuv420p", settings=SETTINGS)
    with pytest.raises(SpanError, match="one of its packets is damaged"):
        digests(reader)


def test_span_of_a_frame_that_does_not_exist_raises(files: dict[str, Path]) -> None:
    media = source(files["closed.mp4"])
    exact = ExactSource.of(media)
    shown = [exact.ticks[25], exact.ticks[25] + 1, exact.ticks[30]]
    reader = exact.reader(shown, pixel_format="yuv420p", settings=SETTINGS)
    with pytest.raises(SpanError, match="does not decode"):
        digests(reader)


def test_slots_that_depend_on_rounding_raise(files: dict[str, Path]) -> None:
    media = replace(source(files["closed.mp4"]), time_base=Fraction(1, 90_000_000), start_seconds=Fraction(0))
    fps = Fraction(15)
    border = (Fraction(1, 2) - Fraction(1, 10_000)) / fps / media.time_base
    assert list(shown_ticks([0, round(border) - 1000], media, fps, 2)) == [round(border) - 1000] * 2
    assert list(shown_ticks([0, round(border) + 1000], media, fps, 2)) == [0, round(border) + 1000]
    with pytest.raises(SpanError, match="between two output frames"):
        shown_ticks([0, round(border)], media, fps, 2)
