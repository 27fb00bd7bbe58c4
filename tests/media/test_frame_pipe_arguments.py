"""FramePipe: arguments and frames that it refuses or adapts."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.media.pipes import BLACK, SIZE, check_leftovers

from reel_modal.errors import ConfigError, EncoderUnavailableError, FrameError, FrameTypeError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader

__all__ = ["check_leftovers"]


@pytest.mark.parametrize("name", ["h264_nonsense", "libx264rgb_typo"])
def test_pipe_unavailable_encoder_raises_before_first_frame(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(EncoderUnavailableError, match=f"'{name}' does not start") as caught,
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder=name),
    ):
        pytest.fail("the block was entered")
    assert caught.value.exit_status not in {0, None}
    assert name in caught.value.stderr_tail
    assert list(tmp_path.iterdir()) == []


def test_pipe_wrong_preset_raises_before_first_frame(tmp_path: Path) -> None:
    with (
        pytest.raises(EncoderUnavailableError, match="does not start"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", preset="warp"),
    ):
        pytest.fail("the block was entered")


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (np.zeros((48, 64, 3), np.float32), FrameTypeError, "frame 1 is an array of float32; it must be uint8"),
        (np.zeros((64, 48, 3), np.uint8), FrameError, r"frame 1 has shape \(64, 48, 3\); it must be \(48, 64, 3\)"),
        (np.zeros((48, 64, 4), np.uint8), FrameError, r"frame 1 has shape \(48, 64, 4\)"),
        (bytes(100), FrameError, "frame 1 has 100 bytes; bgr24 of 64x48 has 9216"),
        ([1, 2, 3], FrameTypeError, "frame 1 is a list"),
        (None, FrameTypeError, "frame 1 is a NoneType"),
    ],
)
def test_pipe_invalid_frame_is_named_and_pipe_stays_usable(
    tmp_path: Path, frame: object, error: type[Exception], words: str
) -> None:
    with FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe:
        pipe.write(BLACK)
        with pytest.raises(error, match=words):
            pipe.write(frame)  # type: ignore[arg-type]
        pipe.write(BLACK)
    assert pipe.result.frames == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": (0, 48)}, "at least 1 pixel"),
        ({"size": (64.0, 48)}, "whole numbers"),
        ({"fps": 0}, "above 0"),
        ({"fps": float("nan")}, "a finite number"),
        ({"pixel_format": "yuv999"}, "'yuv999' is not supported; use one of bgr24"),
        ({"size": (63, 47), "odd_size": "error"}, "63x47 is odd"),
        ({"size": (1, 47), "odd_size": "crop"}, "1x47 cannot be cropped"),
        ({"sample_aspect_ratio": 0}, "sample_aspect_ratio is 0; it must be above 0"),
        ({"sample_aspect_ratio": -1}, "sample_aspect_ratio is -1; it must be above 0"),
        ({"sample_aspect_ratio": float("nan")}, "sample_aspect_ratio is nan; it must be a finite number"),
        (
            {"audio_from": "clip.mp4", "audio_start_seconds": float("inf")},
            "audio_start_seconds is inf; it must be a finite",
        ),
        ({"metadata": {"title": "a\0b"}}, "is not a valid argument of ffmpeg"),
        ({"metadata": {"ti\0tle": "a"}}, "is not a valid argument of ffmpeg"),
        ({"encoder_options": {"g": 48}}, "48 is not a valid argument of ffmpeg"),
        ({"encoder": "lib\0x264"}, "is not a valid argument of ffmpeg"),
    ],
)
def test_pipe_invalid_arguments_refused_immediately(tmp_path: Path, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FramePipe(tmp_path / "out.mp4", **({"size": SIZE, "fps": 25} | arguments))  # type: ignore[arg-type]


def test_pipe_output_without_suffix_or_folder_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no suffix"):
        FramePipe(tmp_path / "out", size=SIZE, fps=25)
    with pytest.raises(ConfigError, match="does not exist; create it first"):
        FramePipe(tmp_path / "missing" / "out.mp4", size=SIZE, fps=25)
    with pytest.raises(ConfigError, match="null characters"):
        FramePipe(tmp_path / "o\0ut.mp4", size=SIZE, fps=25)


@pytest.mark.parametrize("name", ["-y.mp4", "a:b.mp4", "100%d.mp4", "übung [1].mp4", "http:x.mp4"])
def test_pipe_special_file_names_taken_literally(tmp_path: Path, name: str) -> None:
    with contextlib.chdir(tmp_path), FramePipe(name, size=SIZE, fps=25, encoder="libx264") as pipe:
        pipe.write(BLACK)
        pipe.write(BLACK)
    with contextlib.chdir(tmp_path), FrameReader(name) as reader:
        assert sum(1 for _ in reader) == 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("policy", "size"), [("pad", (162, 122)), ("crop", (160, 120))])
def test_pipe_odd_size_padded_to_even_with_note(tmp_path: Path, policy: str, size: tuple[int, int]) -> None:
    white = np.full((121, 161, 3), 255, np.uint8)
    with FramePipe(
        tmp_path / "out.mp4", size=(161, 121), fps=25, encoder="libx264", odd_size=policy, quality=1
    ) as pipe:
        for _ in range(3):
            pipe.write(white)
    assert pipe.result.size == size
    assert f"the odd size 161x121 was encoded as {size[0]}x{size[1]}" in str(pipe.result.degraded[0])
    with FrameReader(tmp_path / "out.mp4") as reader:
        for frame in reader:
            assert frame.image.shape == (size[1], size[0], 3)
            assert frame.image.min() > 245  # the repeated edge is not black


def test_pipe_used_twice_or_outside_block_raises(tmp_path: Path) -> None:
    pipe = FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264")
    with pytest.raises(ConfigError, match="inside the `with` block"):
        pipe.write(BLACK)
    with pipe:
        pipe.write(BLACK)
    with pytest.raises(ConfigError, match="inside the `with` block"):
        pipe.write(BLACK)
    with pytest.raises(ConfigError, match="writes only one file"), pipe:
        pytest.fail("the block was entered twice")


def test_pipe_times_mixed_or_decreasing_refused(tmp_path: Path) -> None:
    frame = np.zeros((48, 64), np.uint8)
    with FramePipe(tmp_path / "out.mkv", size=SIZE, fps=25, pixel_format="gray8", encoder="ffv1") as pipe:
        pipe.write(frame, seconds=Fraction(0))
        with pytest.raises(FrameError, match="frame 1 has no time, unlike earlier frames"):
            pipe.write(frame)
        with pytest.raises(FrameError, match="frame 1 is at 0 s; it must be after 0 s"):
            pipe.write(frame, seconds=Fraction(0))
        pipe.write(frame, seconds=Fraction(1, 3))
    assert pipe.result.frames == 2
    with FramePipe(tmp_path / "other.mkv", size=SIZE, fps=25, pixel_format="gray8", encoder="ffv1") as pipe:
        pipe.write(frame)
        with pytest.raises(FrameError, match="frame 1 has a time, unlike earlier frames"):
            pipe.write(frame, seconds=Fraction(1))
