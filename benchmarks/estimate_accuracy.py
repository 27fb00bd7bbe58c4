"""How true estimates are: three jobs of real clips finish on this machine, and the fourth is predicted.

The three are shorter cuts of the same clip, as a host's users render clips of one camera; the fourth is all of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import median

from tests.run_function import run_function

from reel_modal._jobs.estimates import estimate
from reel_modal._progress.timing_model import LOCAL
from reel_modal.cli.demo import sample_clip
from reel_modal.functions.catalog import all_functions, function_of
from reel_modal.functions.context import JobContext
from reel_modal.media import MediaInfo, probe
from reel_modal.progress import TimingHistory
from reel_modal.schema import (
    CropKeyframe,
    EncodeOptions,
    FramingRequest,
    HighlightKeyframe,
    HighlightRegion,
    OverlayRequest,
    RenderResult,
    UpscaleRequest,
)
from reel_modal.schema.requests import VideoRequest
from reel_modal.settings import Settings
from reel_modal.storage import ExistingObject, FolderStorage

__all__ = ["main"]

_CLIPS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
_SHARES = (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4))
_LARGEST_UPSCALED_PIXELS = 400 * 300
_X264 = EncodeOptions(encoder="libx264")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One job: what was expected, and what it took."""

    function: str
    clip: str
    expected_seconds: float
    seconds: float

    @property
    def error(self) -> float:
        """Relative, of what it took."""
        return abs(self.expected_seconds - self.seconds) / self.seconds


def main() -> list[str]:
    """Return the table, line by line."""
    lines, predictions = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in _CLIPS:
            clip = sample_clip().with_name(name)
            for request in _requests(clip, probe(clip)):
                predictions.append(_predicted(request, clip, Path(folder)))
                done = predictions[-1]
                lines.append(
                    f"{done.function:16} {done.clip:22} expected {done.expected_seconds:6.2f} s,"
                    f" took {done.seconds:6.2f} s: {done.error:.0%}"
                )
    errors = [done.error for done in predictions]
    return [
        *lines,
        f"median error {median(errors):.0%}, largest {max(errors):.0%}, of {len(errors)} jobs after three each",
    ]


def _requests(clip: Path, media: MediaInfo) -> Iterator[VideoRequest]:
    width, height = media.size
    keys = {"job_id": "j", "user_id": "u", "input_key": f"in{clip.suffix}", "output_key": "out.mp4"}
    keyframe = HighlightKeyframe(
        time_seconds=Fraction(0), x=width / 2, y=height / 2, radius_x=width / 8, radius_y=height / 8
    )
    region = HighlightRegion(id="a", start_seconds=Fraction(0), end_seconds=Fraction(1000), keyframes=(keyframe,))
    yield OverlayRequest(**keys, regions=(region,), encode=_X264)
    crops = tuple(
        CropKeyframe(time_seconds=Fraction(time), x=x, y=0, width=width / 3, height=height)
        for time, x in ((0, 0), (20, width / 2))
    )
    yield FramingRequest(**keys, crop=crops, output_size=(270, 480), encode=_X264)
    if width * height <= _LARGEST_UPSCALED_PIXELS:
        yield UpscaleRequest(**keys, scale=2, provider="cpu", encode=_X264)


def _predicted(request: VideoRequest, clip: Path, folder: Path) -> Prediction:
    name, settings = function_of(request, all_functions()).name, Settings()
    history = TimingHistory(folder / f"{name}-{clip.stem}.sqlite3")
    length = probe(clip, scan=True).scan
    assert length is not None
    for index, share in enumerate(_SHARES):
        cut = _cut(clip, share * length.duration_seconds, folder / f"{clip.stem}-{index}{clip.suffix}")
        result, seconds = _timed(replace(request, input_key=cut.name), cut.parent, settings)
        # As a registry learns: what no phase counts is the start.
        startup = max(0.0, seconds - sum(result.seconds_by_phase.values()))
        history.learn(result, gpu=LOCAL, startup_seconds=startup, cold=True)
    expected = estimate(request, probe(clip), settings=settings, history=history).seconds
    _, seconds = _timed(replace(request, input_key=clip.name), clip.parent, settings)
    return Prediction(name, clip.name, expected, seconds)


def _cut(clip: Path, seconds: Fraction, target: Path) -> Path:
    """Return the beginning of the clip, encoded like it."""
    if not target.exists():
        import subprocess

        from reel_modal._ffmpeg.binary import find_ffmpeg

        command = [find_ffmpeg().path, "-loglevel", "error", "-y", "-i", clip, "-t", f"{float(seconds):.3f}"]
        subprocess.run([*command, "-c:v", "libx264", "-c:a", "aac", target], check=True)
    return target


def _timed(request: VideoRequest, folder: Path, settings: Settings) -> tuple[RenderResult, float]:
    with tempfile.TemporaryDirectory() as workdir:
        storage = _Reading(folder, Path(workdir))
        work = Path(workdir, "work")
        work.mkdir()
        begun = time.monotonic()
        result = run_function(request, JobContext(storage=storage, workdir=work, settings=settings))
        return result, time.monotonic() - begun


class _Reading(FolderStorage):
    """Reads from one folder and publishes into another."""

    def __init__(self, source: Path, target: Path) -> None:
        super().__init__(source)
        self._target = FolderStorage(target)

    def publish(self, source: Path, key: str, *, existing: ExistingObject = "replace") -> int:
        """See `Storage.publish`."""
        return self._target.publish(source, key, existing=existing)
