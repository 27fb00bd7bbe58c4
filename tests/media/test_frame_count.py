"""Frames count as finished when the encoder has delivered them, unless the encoder is waiting for more."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from reel_modal._ffmpeg.frame_count import EncodedFrames, FrameCount
from reel_modal.errors import FFmpegError
from reel_modal.ffmpeg_pipe import FramePipe

HELD = 40
"""Frames that x264 holds with its preset `fast`, at least."""


def noise(count: int) -> list[np.ndarray]:
    dice = np.random.default_rng(1)
    return [dice.integers(0, 255, (180, 320, 3), np.uint8) for _ in range(count)]


def test_pipe_counts_no_frame_that_the_encoder_holds(tmp_path: Path) -> None:
    counts: list[int] = []
    with FramePipe(tmp_path / "out.mp4", size=(320, 180), fps=25, encoder="libx264", preset="veryslow") as pipe:
        pipe.count_with(counts.append)
        for frame in noise(HELD):
            pipe.write(frame)
        at_last_write = counts[-1]
    # All of them fit into the encoder, which has returned none; a pipe that is never full counts them after a while.
    assert at_last_write < HELD
    assert counts == sorted(counts)
    assert counts[-1] == HELD


def test_pipe_counting_may_stop_the_job(tmp_path: Path) -> None:
    def stop(frames: int) -> None:
        raise KeyboardInterrupt

    def render() -> None:
        with FramePipe(tmp_path / "out.mp4", size=(320, 180), fps=25, encoder="libx264") as pipe:
            pipe.count_with(stop)
            pipe.write(noise(1)[0])

    with pytest.raises(KeyboardInterrupt):
        render()
    assert list(tmp_path.iterdir()) == []


def test_pipe_error_does_not_contain_progress_lines(tmp_path: Path) -> None:
    pipe = FramePipe(tmp_path / "out.mp4", size=(320, 180), fps=25, encoder="libx264")

    def end_early() -> None:
        with pipe:
            for frame in noise(HELD):
                pipe.write(frame)
            assert pipe._process is not None
            os.kill(pipe._process.pid, signal.SIGTERM)

    with pytest.raises(FFmpegError) as caught:
        end_early()
    assert "frame=" not in caught.value.stderr_tail
    assert "progress=" not in caught.value.stderr_tail


class Hand:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def counted(*, frames: int, seconds_per_frame: float, blocked_share: float, held: int = HELD) -> list[int]:
    """Return the counts after each write."""
    clock, counts = Hand(), list[int]()
    count = FrameCount(clock)
    count.advance = counts.append
    for written in range(1, frames + 1):
        count.take(f"frame= {max(written - held, 0)}")
        count.wrote(written, blocked_share * seconds_per_frame * (written - 1))
        clock.now += seconds_per_frame
    return counts


def test_count_of_a_full_pipe_is_that_of_the_encoder() -> None:
    assert counted(frames=300, seconds_per_frame=0.05, blocked_share=1.0)[-1] == 300 - HELD


def test_count_of_an_empty_pipe_is_that_of_the_writes() -> None:
    assert counted(frames=300, seconds_per_frame=0.5, blocked_share=0.0)[-1] >= 299


def test_count_begins_with_what_the_encoder_has_delivered() -> None:
    # Forty frames enter within 0.1 s, before it is known who waits for whom.
    assert counted(frames=HELD, seconds_per_frame=0.0025, blocked_share=0.0)[-1] < 5


def test_count_never_goes_back() -> None:
    counts = list[int]()
    count = FrameCount(Hand())
    count.advance = counts.append
    count.take("frame=90")
    count.wrote(100, 0.0)
    count.encoded = 0
    count.wrote(101, 1000.0)
    assert counts == [90, 90]


def test_encoded_frames_takes_progress_and_returns_messages() -> None:
    sink = EncodedFrames()
    assert sink.take("[libx264 @ 0x1] frame=7 is broken") == "[libx264 @ 0x1] frame=7 is broken"
    assert [sink.take(line) for line in ("frame=12", "fps=25.10", "out_time=N/A", "speed= 1.2x")] == ["", "", "", ""]
    assert sink.encoded == 12
