"""The result of writing a video file."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from reel_modal.schema.degradation import Degradation

__all__ = ["PipeResult"]


@dataclass(frozen=True, slots=True)
class PipeResult:
    """A finished video file, and how it was encoded.

    Attributes:
        path: The finished file.
        frames: Number of frames, as counted in the file.
        size: (width, height) of the encoded video in pixels.
        fps: Exact frame rate.
        duration_seconds: frames / fps; if frames had timestamps, from the first frame to the end of the last in the
            file.
        bytes: Size of the file.
        encoder: ffmpeg's name of the encoder that was used.
        ffmpeg: Version, build and origin of the ffmpeg that ran the encoder; a hardware encoder may use a different
            ffmpeg. Empty if nothing was encoded.
        command: The encoding command line; of a file that was joined from parts, without the paths of the parts.
        degraded: Deviations from the request; empty if there are none.
        constant_rate: Whether frames are evenly spaced; false if they were written with their own timestamps.
    """

    path: Path
    frames: int
    size: tuple[int, int]
    fps: Fraction
    duration_seconds: Fraction
    bytes: int
    encoder: str
    ffmpeg: str
    command: tuple[str, ...]
    degraded: tuple[Degradation, ...] = ()
    constant_rate: bool = True
