"""What host applications use in their own tests: clips made on the spot, a backend of scripts, a clock by hand.

It must load neither modal nor OpenCV.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from reel_modal.config import Settings
from reel_modal.errors import FFmpegError
from reel_modal.frames import frame_rate
from reel_modal.in_memory import InMemoryBackend, Script, Submitted
from reel_modal.media import find_ffmpeg
from reel_modal.media.ffmpeg_process import QUIET
from reel_modal.media.untrusted import file_url
from reel_modal.progress.clocks import ManualClock

__all__ = ["InMemoryBackend", "ManualClock", "Script", "Submitted", "make_clip"]

_LONGEST_SECONDS = 300.0


def make_clip(
    path: str | Path,
    *,
    size: tuple[int, int] = (320, 180),
    fps: Fraction | float | str = 25,
    seconds: float = 1.0,
    audio_seconds: float | None = None,
    pixel_format: str = "yuv420p",
    encoder: Sequence[str] = ("-c:v", "libx264", "-preset", "ultrafast"),
    options: Sequence[str] = (),
    settings: Settings | None = None,
) -> Path:
    """Make a clip with a moving test picture and, where asked for, a 440 Hz tone; return its path.

    Args:
        path: Where to; the suffix chooses the container.
        size: (width, height) in pixels.
        fps: Frames a second.
        seconds: Length of the picture.
        audio_seconds: Length of the tone; None makes no sound.
        pixel_format: ffmpeg's name of the format to encode.
        encoder: ffmpeg's options of the video encoder.
        options: More output options of ffmpeg.
        settings: Which ffmpeg.

    Raises:
        FFmpegError: ffmpeg refused; with its words.

    Example:
        >>> make_clip("clip.mp4", seconds=2, audio_seconds=2)
        PosixPath('clip.mp4')
    """
    path = Path(path)
    rate = frame_rate(fps)
    picture = f"testsrc2=size={size[0]}x{size[1]}:rate={rate.numerator}/{rate.denominator}:duration={seconds}"
    command = [find_ffmpeg(settings).path, *QUIET, "-y", "-f", "lavfi", "-i", picture]
    if audio_seconds is not None:
        command += ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={audio_seconds}"]
    command += [*encoder, "-pix_fmt", pixel_format, *options, file_url(path)]
    done = subprocess.run(command, capture_output=True, timeout=_LONGEST_SECONDS, check=False)
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise FFmpegError(
            "the clip could not be made", command=command, exit_status=done.returncode, stderr_tail=words
        )
    return path
