"""Trims without a crop: kept packets are copied, cut groups are re-encoded, the audio is exact."""

from __future__ import annotations

import dataclasses
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.clips import RECIPES, Clips
from tests.media.boxes import box, boxes, check_boxes, sample_durations
from tests.media.framed import FAITHFUL, FAST, framed
from tests.media.splices import packets, quiet, shown

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.media import probe
from reel_modal.media.frames import U8Array
from reel_modal.schema import EncodeOptions, RenderResult, SpeedSegment
from reel_modal.settings import Settings

RATE = 48000
# A constantly rising tone, so that no two parts are equal. PNS would add decoder-specific noise.
RISING = f"aevalsrc=0.5*sin(1200*t*t):d=4:s={RATE}"


def _rising(clips: Clips, path: Path) -> None:
    source = clips.get("pyramid.mp4")
    command = [
        find_ffmpeg(Settings.from_env()).path,
        "-v",
        "error",
        "-y",
        "-i",
        str(source),
        "-f",
        "lavfi",
        "-i",
        RISING,
    ]
    command += ["-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", "-aac_pns", "0", str(path)]
    subprocess.run(command, check=True, timeout=60)


RECIPES["rising.mp4"] = _rising


def trim(source: Path, folder: Path, start: str, end: str | None, **fields: object) -> tuple[RenderResult, Path]:
    return framed(
        source,
        folder,
        trim_start_seconds=Fraction(start),
        trim_end_seconds=None if end is None else Fraction(end),
        output_size=probe(source).size,
        **fields,
    )


def pictures(path: Path) -> list[U8Array]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def timed_pictures(path: Path) -> list[tuple[Fraction, U8Array]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [(Fraction(frame.pts or 0) * (frame.time_base or 1), frame.to_ndarray()) for frame in frames]


def samples(path: Path) -> np.ndarray:
    command = [find_ffmpeg(Settings.from_env()).path, "-v", "error", "-i", str(path), "-vn", "-f", "s16le", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout, np.int16)


@pytest.mark.parametrize(
    ("name", "start", "end", "first", "count"),
    [
        ("rising.mp4", "0", "2", 0, 50),
        ("rising.mp4", "0.5", "3.1", 13, 65),
        ("rising.mp4", "0.96", "1.92", 24, 24),
        ("rising.mp4", "0.97", None, 24, 76),
        ("rising.mp4", "1.2", "1.4", 30, 5),
        ("ntsc.mkv", "1", "3", 30, 60),
        ("cut.mp4", "0.3", "2", 8, 42),
        ("no_b.mp4", "0.2", "3.9", 5, 92),
        ("open_gop.mp4", "0", "2.2", 0, 55),
        ("fragmented.mp4", "0.5", "3.1", 13, 65),
        ("high422.mp4", "0.5", "3.1", 13, 65),
        ("top_first.mp4", "0.5", "3.1", 13, 65),
    ],
)
def test_trim_keeps_requested_frames(
    clips: Clips, tmp_path: Path, name: str, start: str, end: str | None, first: int, count: int
) -> None:
    source = clips.get(name)
    result, path = trim(source, tmp_path, start, end)
    if result.plan == "full":
        assert result.reason.endswith(("to be rendered anyway", "depend on one that does"))
        return
    assert (result.engine, result.frames, result.reason) == ("packet-copy", count, "")
    old, new = pictures(source)[first : first + count], pictures(path)
    same = [np.array_equal(a, b) for a, b in zip(old, new, strict=True)]
    assert sum(same) >= result.frames_copied > 0
    for before, after in zip(old, new, strict=True):
        error = np.mean((before.astype(float) - after.astype(float)) ** 2)
        assert error < 20  # it is some thousands for a different picture
    assert len(set(packets(path)) & set(packets(source))) == result.frames_copied
    assert sample_durations(path)[0][0] == count
    assert quiet(path) == ""
    check_boxes(path)
    output = probe(path, scan=True)
    assert (output.start_seconds, output.fps) == (0, probe(source).fps)


@pytest.mark.parametrize(("name", "start", "end"), [("rising.mp4", "0.53", "2.11"), ("ntsc.mkv", "1.01", "2.5")])
def test_trim_keeps_same_frames_as_full_render(clips: Clips, tmp_path: Path, name: str, start: str, end: str) -> None:
    smart, path = trim(clips.get(name), tmp_path, start, end)
    copied = pictures(path)
    full, path = trim(clips.get(name), tmp_path, start, end, encode=dataclasses.replace(FAITHFUL, smart=False))
    assert (smart.plan, full.plan, smart.frames) == ("smart", "full", full.frames)
    for one, other in zip(copied, pictures(path), strict=True):
        assert np.mean((one.astype(float) - other.astype(float)) ** 2) < 20


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("uneven.mp4", "0", "2"),
        ("uneven.mp4", "0.5", "3.1"),
        ("uneven.mp4", "1.92", "3"),
        ("uneven.mp4", "2.3", None),
        ("uneven.mkv", "0.51", "2.99"),
        ("standing.mp4", "0.3", "9.01"),
        ("standing.mp4", "1.5", "8"),
        ("standing.mp4", "1.5", None),
    ],
)
def test_trim_variable_rate_matches_source_at_each_time(
    clips: Clips, tmp_path: Path, name: str, start: str, end: str | None
) -> None:
    """The picture displayed at the start of the trim begins there, even if the source displays it earlier."""
    source = clips.get(name)
    result, path = trim(source, tmp_path, start, end)
    assert (result.engine, result.reason) == ("packet-copy", "")
    assert len(set(packets(path)) & set(packets(source))) == result.frames_copied > 0
    zero = probe(source).start_seconds
    old, new = [(at - zero, image) for at, image in timed_pictures(source)], timed_pictures(path)
    assert (len(new), new[0][0]) == (result.frames, 0)
    tick = Fraction(1, 1000) if source.suffix == ".mkv" else Fraction(0)
    for seconds, picture in new:
        expected = [image for at, image in old if at <= seconds + Fraction(start) + tick][-1]
        assert np.mean((expected.astype(float) - picture.astype(float)) ** 2) < 20
    length = (Fraction(end) if end else probe(source, scan=True).scan.duration_seconds) - Fraction(start)  # type: ignore[union-attr]
    assert result.duration_seconds == length
    # Every later picture keeps its time.
    times = [at - Fraction(start) for at, _ in old if Fraction(start) < at < Fraction(start) + length]
    actual_times = [at for at, _ in new[1 if new[0][0] not in times else 0 :]]
    assert all(abs(one - other) <= tick for one, other in zip(times, actual_times, strict=True))
    header = box(next(boxes(box(path.read_bytes(), b"moov"), b"trak")), b"tkhd")
    assert int.from_bytes(header[20:24], "big") == round(length * 1000)
    assert quiet(path) == ""
    check_boxes(path)


def test_trim_variable_rate_audio_starts_at_requested_time(clips: Clips, tmp_path: Path) -> None:
    source = clips.get("standing.mp4")
    result, path = trim(source, tmp_path, "1.5", "8")
    assert result.plan == "smart"
    whole, output_samples = samples(source), samples(path)
    begin = round(1.5 * probe(source).audio[0].sample_rate_hz)
    # The first packet is decoded without its predecessor, which causes rounding differences.
    assert np.max(np.abs(output_samples[4096:60_000].astype(int) - whole[begin + 4096 : begin + 60_000])) <= 1


def test_trim_audio_starts_with_sample_of_first_frame(clips: Clips, tmp_path: Path) -> None:
    source = clips.get("rising.mp4")
    result, path = trim(source, tmp_path, "0.52", "3.12")
    assert result.plan == "smart"
    whole, output_samples = samples(source), samples(path)
    begin = round(0.52 * RATE)
    assert np.array_equal(output_samples[:100_000], whole[begin : begin + 100_000])
    assert abs(len(output_samples) / RATE - 2.6) < 0.025  # whole packets


def test_trim_clip_without_audio_has_no_audio(clips: Clips, tmp_path: Path) -> None:
    result, path = trim(clips.get("rising.mp4"), tmp_path, "0.52", "3.12", audio=False)
    assert (result.plan, probe(path).audio) == ("smart", ())


def test_trim_at_keyframes_encodes_nothing(clips: Clips, tmp_path: Path) -> None:
    source = clips.get("no_b.mp4")
    result, path = trim(source, tmp_path, "0.96", "2.88")
    assert (result.encoder, result.frames, result.frames_copied) == ("copy", 48, 48)
    assert shown(path) == shown(source)[24:72]
    assert packets(path) == packets(source)[24:72]


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("rising.mp4", {"output_size": (96, 54)}, "the request crops or resizes the clip"),
        ("rising.mp4", {"fps": Fraction(50)}, "the request changes its frame rate"),
        ("rising.mp4", {"rotation_degrees": 180}, "its frames are rotated"),
        ("rotated_180.mp4", {}, "its frames are rotated"),
        ("uneven.mp4", {"fps": Fraction(25)}, "its frame rate varies, and the request asks for a constant one"),
        ("anamorphic_spliced.mp4", {}, "the request crops or resizes the clip"),
        (
            "rising.mp4",
            {"encode": EncodeOptions(encoder="libx264", smart=False)},
            "the request disables smart rendering",
        ),
        (
            "rising.mp4",
            {"segments": (SpeedSegment(start_seconds=Fraction(1), end_seconds=Fraction(2), speed=Fraction(2)),)},
            "the request changes its speed",
        ),
    ],
)
def test_trim_with_other_edits_renders_in_full(
    clips: Clips, tmp_path: Path, name: str, fields: dict[str, object], reason: str
) -> None:
    source = clips.get(name)
    options = {"output_size": probe(source).size, "encode": FAST, **fields}
    result, _ = framed(source, tmp_path, trim_start_seconds=Fraction(0), trim_end_seconds=Fraction(3), **options)
    assert (result.plan, result.reason) == ("full", reason)
