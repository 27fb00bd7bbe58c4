"""Generated clips for tests: a moving pattern and a tone."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.process import QUIET
from reel_modal.errors import FFmpegError
from reel_modal.media.frames import frame_rate
from reel_modal.media.open import file_url
from reel_modal.settings import Settings

__all__ = ["make_clip"]

_LONGEST_SECONDS: Final = 300.0


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
    """Make a clip with a moving test pattern and an optional 440 Hz tone; return its path.

    Args:
        path: Output file; the suffix selects the container.
        size: (width, height) in pixels.
        fps: Frames per second.
        seconds: Length of the video.
        audio_seconds: Length of the tone; None makes a clip without audio.
        pixel_format: ffmpeg's name of the pixel format to encode.
        encoder: ffmpeg options of the video encoder.
        options: Further ffmpeg output options.
        settings: Selects the ffmpeg.

    Raises:
        FFmpegError: ffmpeg failed; the error contains its stderr.

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
        stderr = done.stderr.decode("utf-8", "replace").strip()
        raise FFmpegError(
            "the clip could not be created", command=command, exit_status=done.returncode, stderr_tail=stderr
        )
    return path
