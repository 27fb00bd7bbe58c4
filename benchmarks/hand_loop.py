"""The loop that people write by hand, and the first app had: what others are measured against."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.encoders import encoder_arguments
from reel_modal.schema.options import ENCODER_THREADS
from reel_modal.settings import Settings

RADII = (200, 260)
ROW = 540
KEPT_LIGHT = 0.4


def hand_loop(clip: Path, output: Sequence[str], center_at: Callable[[float], int | None]) -> int:
    """OpenCV decodes, numpy selects, BGR bytes go through a flushed pipe; return the frames.

    Args:
        clip: What is read.
        output: ffmpeg's words behind the raw frames: encoder and file, or none.
        center_at: Says by the second in which column the ellipse is; None draws nothing.
    """
    capture = cv2.VideoCapture(str(clip))
    rate = capture.get(cv2.CAP_PROP_FPS)
    size = "x".join(str(int(capture.get(side))) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    command = [find_ffmpeg(Settings()).path, "-y", "-loglevel", "error", "-f", "rawvideo", "-vcodec", "rawvideo"]
    command += ["-s", size, "-pix_fmt", "bgr24", "-r", str(rate), "-i", "-", *output]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    if process.stdin is None:
        raise RuntimeError("no pipe")
    frames = 0
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        if (column := center_at(frames / rate)) is not None:
            mask = np.zeros(frame.shape[:2], dtype=np.uint8)
            cv2.ellipse(mask, (column, ROW), RADII, 0, 0, 360, 255, -1)
            dark = (frame * KEPT_LIGHT).astype(np.uint8)
            frame = np.where(mask[:, :, None] > 0, frame, dark)
        process.stdin.write(frame.tobytes())
        process.stdin.flush()
        frames += 1
    process.stdin.close()
    if process.wait() != 0:
        raise RuntimeError("ffmpeg failed")
    return frames


def x264_arguments(preset: str) -> tuple[str, ...]:
    """Return the encoder options of the library: as many threads, and the same bytes on every run."""
    return encoder_arguments("libx264", quality=23, preset=preset, threads=ENCODER_THREADS)


def encoded(clip: Path, preset: str, output: Path) -> tuple[str, ...]:
    """Return ffmpeg's words for x264 beside the clip's own sound."""
    picture = ("-c:v", "libx264", "-preset", preset, "-crf", "23", "-pix_fmt", "yuv420p")
    return ("-i", str(clip), "-map", "0:v", "-map", "1:a?", *picture, "-c:a", "copy", str(output))
