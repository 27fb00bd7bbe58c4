"""Whether an NVIDIA GPU decodes a video here: found out by decoding one frame, never by a list of names.

It must not know who wants the frames.
"""

from __future__ import annotations

import subprocess
from typing import Final

from reel_modal.config import Settings
from reel_modal.media import MediaInfo, find_ffmpeg
from reel_modal.media.ffmpeg_process import QUIET
from reel_modal.media.untrusted import input_arguments

__all__ = ["DOWNLOAD", "NVDEC", "nvdec_starts"]

NVDEC: Final = ("-hwaccel", "cuda", "-hwaccel_output_format", "cuda", "-extra_hw_frames", "4")
"""ffmpeg's options before an input that is decoded on the GPU; its frames stay there."""

DOWNLOAD: Final = ("hwdownload", "format=nv12|p010le")
"""The filters that fetch them. A frame that the GPU has not decoded is an error here, never a slower way."""


def nvdec_starts(media: MediaInfo, settings: Settings) -> bool:
    """Return whether the GPU decodes `media`.

    Args:
        media: The video.
        settings: Which ffmpeg, limits, and how long it may stall.

    Raises:
        FFmpegNotFoundError: There is no ffmpeg.
    """
    trial = ("-filter_complex", f"[0:{media.stream_index}]{','.join(DOWNLOAD)}", "-frames:v", "1")
    source = (*NVDEC, *input_arguments(media.path, settings.limits))
    command = (find_ffmpeg(settings).path, *QUIET, *source, *trial, "-f", "null", "-")
    try:
        done = subprocess.run(command, capture_output=True, timeout=settings.stall_seconds, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
