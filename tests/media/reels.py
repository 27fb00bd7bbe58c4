"""Reels of small clips whose frames and samples show where they come from."""

from __future__ import annotations

import subprocess
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from tests.clips import ffmpeg
from tests.run_function import run_function

from reel_modal import FramePipe, FrameReader
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.functions.context import JobContext
from reel_modal.schema import ReelRequest, RenderResult
from reel_modal.storage import Storage

# Also the frames that could be copied are rendered.
LOSSLESS = {"encoder": "libx264", "quality": 0, "preset": "ultrafast", "threads": 1, "smart": False}
RATE_HZ = 48000


def reel_request(
    clips: Sequence[dict[str, object]], *transitions: dict[str, object], **fields: object
) -> ReelRequest:
    """Return the request of a reel without loss."""
    return ReelRequest.parse(
        {
            "job_id": "j",
            "user_id": "u",
            "output_key": "reel.mp4",
            "store": {"input_scope": "global", "output_scope": "global"},
            "encode": LOSSLESS,
            "clips": clips,
            "transitions": transitions,
            **fields,
        }
    )


def assemble(folder: Path, request: ReelRequest, **context: object) -> RenderResult:
    """Run the job of `request` with the store `folder`; its temporary files are below `folder`."""
    workdir = folder / "work"
    workdir.mkdir(exist_ok=True)
    store = Storage.from_url(folder.as_uri())
    result = run_function(request, JobContext(storage=store, workdir=workdir, **context))  # type: ignore[arg-type]
    assert list(workdir.iterdir()) == []
    return result


def numbered(path: Path, first: int, count: int, *, fps: object = 25, size: tuple[int, int] = (64, 48)) -> Path:
    """Make a clip of flat frames; the luma of frame n is `first` + n, so that a frame names its clip and its place."""
    with FramePipe(
        path,
        size=size,
        fps=fps,
        pixel_format="yuv420p",
        encoder="libx264",
        quality=0,
        preset="ultrafast",  # type: ignore[arg-type]
    ) as pipe:
        height, width = size[1], size[0]
        for number in range(count):
            luma = np.full((height, width), first + number, np.uint8)
            chroma = np.full((height // 2, width // 2), 128, np.uint8)
            pipe.write((luma, chroma, chroma))
    return path


def lumas(path: Path) -> list[int]:
    """Return the luma at the center of each frame."""
    with FrameReader(path, pixel_format="yuv420p") as reader:
        return [int(frame.planes[0][frame.size[1] // 2, frame.size[0] // 2]) for frame in reader]


def with_samples(video: Path, target: Path, samples: np.ndarray) -> Path:
    """Copy a video with audio that is not compressed, float -1..1, (samples,) of one channel."""
    sound = target.with_suffix(".wav")
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    ffmpeg("-i", video, "-i", sound, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "pcm_s16le", target)
    return target


def samples_of(path: Path) -> np.ndarray:
    """Return the decoded audio of a file: float32, (samples,), mixed to one channel."""
    command = [
        find_ffmpeg().path,
        "-v",
        "error",
        "-i",
        str(path),
        "-f",
        "f32le",
        "-ac",
        "1",
        "-ar",
        str(RATE_HZ),
        "-",
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    return np.frombuffer(done.stdout, np.float32)


def level(samples: np.ndarray, start: object, end: object) -> float:
    """Return the root mean square of the samples from `start` to `end` seconds."""
    part = samples[round(Fraction(str(start)) * RATE_HZ) : round(Fraction(str(end)) * RATE_HZ)]
    return float(np.sqrt((part.astype(float) ** 2).mean()))
