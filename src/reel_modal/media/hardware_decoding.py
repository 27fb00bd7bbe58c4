"""Which ffmpeg decodes a video on an NVIDIA GPU: found by decoding one frame, never by a list of names."""

from __future__ import annotations

import contextlib
import subprocess
from typing import Final

from reel_modal.config import Settings
from reel_modal.errors import FFmpegNotFoundError
from reel_modal.media import FFmpeg, MediaInfo
from reel_modal.media.ffmpeg_binary import Binary, binaries, check_binary
from reel_modal.media.ffmpeg_process import QUIET
from reel_modal.media.untrusted import input_arguments

__all__ = ["DOWNLOAD", "NVDEC", "nvdec_ffmpeg"]

NVDEC: Final = ("-hwaccel", "cuda", "-hwaccel_output_format", "cuda", "-extra_hw_frames", "4")
"""ffmpeg's options before an input that is decoded on the GPU; its frames stay there."""

DOWNLOAD: Final = ("hwdownload", "format=nv12|p010le")
"""The filters that fetch them. A frame that the GPU has not decoded is an error here, never a slower way."""

_started: set[tuple[str, ...]] = set()


def nvdec_ffmpeg(media: MediaInfo, settings: Settings) -> FFmpeg | None:
    """Return the first ffmpeg at hand, in the order of `binaries`, with which the GPU decodes `media`, None if none.

    Args:
        media: The video.
        settings: Which ffmpeg, limits, and how long it may stall.
    """
    for binary in binaries(settings):
        if _decodes(binary, media, settings):
            with contextlib.suppress(FFmpegNotFoundError):  # it cannot do the rest
                return check_binary(binary)
    return None


def _decodes(binary: Binary, media: MediaInfo, settings: Settings) -> bool:
    """Decode one frame on the GPU and fetch it, unless that has been done."""
    trial = ("-filter_complex", f"[0:{media.stream_index}]{','.join(DOWNLOAD)}", "-frames:v", "1")
    source = (*NVDEC, *input_arguments(media.path, settings.limits))
    command = (binary.path, *QUIET, *source, *trial, "-f", "null", "-")
    if command in _started:
        return True
    try:
        done = subprocess.run(command, capture_output=True, timeout=settings.stall_seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    if done.returncode == 0:
        _started.add(command)
    return done.returncode == 0
