"""Find an ffmpeg that decodes a video on an NVIDIA GPU, by decoding one frame instead of using name lists."""

from __future__ import annotations

import contextlib
import subprocess
from typing import Final

from reel_modal._ffmpeg.binary import Binary, FFmpeg, binaries, check_binary
from reel_modal._ffmpeg.process import QUIET
from reel_modal.errors import FFmpegNotFoundError
from reel_modal.media import MediaInfo
from reel_modal.media.open import input_arguments
from reel_modal.settings import Settings

__all__ = ["DOWNLOAD", "NVDEC", "nvdec_ffmpeg"]

NVDEC: Final = ("-hwaccel", "cuda", "-hwaccel_output_format", "cuda", "-extra_hw_frames", "4")
"""ffmpeg's options before an input that is decoded on the GPU; its frames stay in GPU memory."""

DOWNLOAD: Final = ("hwdownload", "format=nv12|p010le")
"""Filters that download the frames. A frame that the GPU has not decoded is an error: no fallback to the CPU."""

_started: set[tuple[str, ...]] = set()


def nvdec_ffmpeg(media: MediaInfo, settings: Settings) -> FFmpeg | None:
    """Return the first available ffmpeg, in the order of `binaries`, that decodes `media` on the GPU; else None.

    Args:
        media: The video.
        settings: Which ffmpeg to use, the limits, and the stall timeout.
    """
    for binary in binaries(settings):
        if _decodes(binary, media, settings):
            with contextlib.suppress(FFmpegNotFoundError):  # it lacks another required feature
                return check_binary(binary)
    return None


def _decodes(binary: Binary, media: MediaInfo, settings: Settings) -> bool:
    """Decode and download one frame on the GPU, unless this trial has already succeeded."""
    trial = ("-filter_complex", f"[0:{media.stream_index}]{','.join(DOWNLOAD)}", "-frames:v", "1")
    source = (*NVDEC, *input_arguments(media.path, settings.limits))
    command = (binary.path, *QUIET, *source, *trial, "-f", "null", "-")
    if command in _started:
        return True
    try:
        result = subprocess.run(command, capture_output=True, timeout=settings.stall_seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    if result.returncode == 0:
        _started.add(command)
    return result.returncode == 0
