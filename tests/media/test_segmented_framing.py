"""A long framing in segments: the same frames as in one pass, and the same bytes whatever was finished before."""

from __future__ import annotations

import hashlib
import logging
from fractions import Fraction
from pathlib import Path

import pytest
from tests.clips import ffmpeg
from tests.media.beats import beeps, flashes, make_beats
from tests.media.segmented_jobs import ENCODE, Jobs, check_leftovers

from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.functions import process_framing
from reel_modal.media import probe
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest, SpeedSegment

__all__ = ["check_leftovers"]

LOSSLESS = EncodeOptions(encoder="libx264", preset="ultrafast", quality=0, smart=False)


def moving(seconds: int) -> tuple[CropKeyframe, ...]:
    """Return a crop that moves over the picture, so that frames are made one by one."""
    return tuple(
        CropKeyframe(time_seconds=Fraction(time), x=x, y=4, width=32, height=24)
        for time, x in ((0, 0), (seconds, 24))
    )


def speeds(*speed: str) -> tuple[SpeedSegment, ...]:
    """Return consecutive segments of nine seconds of the source, with these speeds."""
    return tuple(
        SpeedSegment(start_seconds=Fraction(9 * number), end_seconds=Fraction(9 * number + 9), speed=Fraction(each))
        for number, each in enumerate(speed)
    )


SIZE = (48, 36)
SOURCE = "testsrc2=size=64x48:rate=10:duration=30"
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "30", "-bf", "2", "-pix_fmt", "yuv420p")
GAPS = ("-vf", "select='mod(n,7)*mod(n,5)'", "-fps_mode", "passthrough")
CASES: dict[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "whole": ((), {}),
    "trimmed": ((), {"trim_start_seconds": Fraction("3.05"), "trim_end_seconds": Fraction("27.31")}),
    "repeated": ((), {"segments": speeds("0.5", "1", "0.7")}),
    "blended": ((), {"segments": speeds("0.5", "1.3", "0.25"), "slow_motion": "blend"}),
    "faster": ((), {"segments": speeds("2", "1.5", "0.3"), "rate": Fraction(24)}),
    "uneven": (GAPS, {}),
    "uneven and blended": (GAPS, {"segments": speeds("0.4", "1", "0.6"), "slow_motion": "blend"}),
    "past the end": ((), {"trim_start_seconds": Fraction(15), "segments": speeds("1", "1", "0.5")}),
}


def pictures(path: Path) -> list[str]:
    with FrameReader(path, pixel_format="yuv420p") as reader:
        return [hashlib.md5(frame.data, usedforsecurity=False).hexdigest() for frame in reader]


@pytest.mark.parametrize("case", CASES)
def test_framing_in_segments_has_the_frames_of_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    options, fields = CASES[case]
    clip = tmp_path / "in.mp4"
    ffmpeg("-f", "lavfi", "-i", SOURCE, *options, *X264, clip)
    jobs = Jobs(tmp_path, clip, FramingRequest, crop=moving(30), output_size=SIZE, encode=LOSSLESS, **fields)
    with caplog.at_level(logging.INFO, logger="reel_modal.functions.segmented"):
        expected, result = jobs.run()
    assert [message for message in caplog.messages if "in one piece" in message] == []
    assert len(jobs.rendered) > 1
    for path in jobs.segments[1::2]:
        path.unlink()
    assert jobs.run()[0] == expected
    made = pictures(jobs.output)
    monkeypatch.setattr(process_framing, "_in_segments", lambda *_: None)
    _, in_one_pass = jobs.run()
    assert (result.frames, result.fps, result.duration_seconds) == (
        in_one_pass.frames,
        in_one_pass.fps,
        in_one_pass.duration_seconds,
    )
    assert result.degraded == in_one_pass.degraded
    assert made == pictures(jobs.output)


def test_framing_resumes_with_the_same_bytes_and_sound_in_sync(tmp_path: Path) -> None:
    clip = make_beats(tmp_path / "in.mp4", Fraction(10), seconds=30)
    jobs = Jobs(
        tmp_path,
        clip,
        FramingRequest,
        crop=moving(30),
        output_size=SIZE,
        encode=ENCODE,
        segments=speeds("0.5", "1", "1.5"),
    )
    expected, _ = jobs.run(stored=False)
    assert jobs.run()[0] == expected
    count = len(jobs.segments)
    assert jobs.rendered == list(range(count))
    for path in jobs.segments[::2]:
        path.unlink()
    assert jobs.run()[0] == expected
    assert jobs.rendered == list(range(0, count, 2))
    media = probe(jobs.output, scan=True)
    assert (media.constant_rate, media.start_seconds) == (True, 0)
    for heard, seen in zip(beeps(jobs.output), flashes(jobs.output), strict=True):
        assert abs(heard - float(seen)) < 0.06


def test_framing_trim_of_a_file_that_is_fetched_in_part_is_one_piece(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the bytes would depend on whether the store is a folder."""
    clip = tmp_path / "in.mkv"
    ffmpeg("-f", "lavfi", "-i", SOURCE, *X264, clip)
    jobs = Jobs(
        tmp_path,
        clip,
        FramingRequest,
        crop=moving(30),
        output_size=SIZE,
        encode=ENCODE,
        trim_end_seconds=Fraction(20),
    )
    with caplog.at_level(logging.INFO, logger="reel_modal.functions.segmented"):
        jobs.run()
    (said,) = (message for message in caplog.messages if "in one piece" in message)
    assert said.endswith("only the kept part of such a file is fetched")
    assert jobs.segments == []
