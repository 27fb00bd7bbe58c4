"""How true estimates are: jobs of five clips and three functions on this machine, before and after three others.

Each job runs in a worker process, as on a host. Its estimate is compared with the time from the submission to the
result: the first one with nothing recorded, the second after three jobs on shorter cuts of the same clip, as a host's
users render clips of one camera. Other work on the machine makes a job slower and no estimate wrong, so a run
waits for a quiet moment. If none comes, compare with the time that its CPU seconds take on 90 % of the cores; the
three jobs are recorded with such times as well.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import median

from reel_modal import FunctionRegistry, Settings, TimingHistory, probe
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._jobs.estimates import Estimate, estimate
from reel_modal._jobs.timing_recorder import measured_model
from reel_modal.cli.demo import sample_clip
from reel_modal.media import MediaInfo
from reel_modal.schema import (
    CropKeyframe,
    EncodeOptions,
    FramingRequest,
    HighlightKeyframe,
    HighlightRegion,
    OverlayRequest,
    RenderResult,
    StoreOptions,
    UpscaleRequest,
)
from reel_modal.schema.requests import VideoRequest
from reel_modal.settings import usable_cores

__all__ = ["main", "predictions", "table"]

_SAMPLES = (("bikes.mp4", 3.0, 640), ("bigbuckbunny.mp4", 2.5, 640), ("carphone_pristine.mp4", 4.0, 176))
_MADE = (
    ("testsrc2.mp4", "testsrc2=s=480x270:r=30", 3.0),
    ("mandelbrot.mp4", "mandelbrot=s=270x480:r=25", 3.0),
)
_SHARES = (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4))
_X264 = EncodeOptions(encoder="libx264")
_SCOPES = StoreOptions(input_scope="global", output_scope="global")
_QUIET_SHARE = 0.15
_BUSY_SHARE = 0.9
_PATIENCE_SECONDS = float(os.environ.get("PATIENCE_SECONDS", "30"))


@dataclass(frozen=True, slots=True)
class Run:
    """One finished job.

    Attributes:
        seconds: From the submission to the result.
        cpu_seconds: CPU time of all its processes.
        others: Share of the cores that other work used in the meantime.
        result: Its result.
    """

    seconds: float
    cpu_seconds: float
    others: float
    result: RenderResult

    @property
    def alone_seconds(self) -> float:
        """Time that its CPU seconds take on 90 % of the cores."""
        return self.cpu_seconds / (_BUSY_SHARE * usable_cores())


@dataclass(frozen=True, slots=True)
class Prediction:
    """One job: its estimates before and after three others, which are recorded in both ways, and what it took."""

    clip: str
    before: Estimate
    after: Estimate
    after_alone: Estimate
    run: Run

    def errors(self) -> tuple[float, float, float, float]:
        """Return the relative errors: before and after by the clock, then both by CPU seconds."""
        taken, alone = self.run.seconds, self.run.alone_seconds
        pairs = [(self.before, taken), (self.after, taken), (self.before, alone), (self.after_alone, alone)]
        before, after, before_alone, after_alone = (abs(each.seconds - seconds) / seconds for each, seconds in pairs)
        return before, after, before_alone, after_alone


def main() -> list[str]:
    """Return the table, line by line."""
    with tempfile.TemporaryDirectory() as folder:
        return table(asyncio.run(predictions(Path(folder))))


def table(found: Sequence[Prediction]) -> list[str]:
    """Return one line for each job, and the median errors."""
    lines = [
        "| function | clip | before | after | took | other work | errors | by CPU: after | took | errors |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        errors = [f"{error:.0%}" for error in each.errors()]
        lines.append(
            f"| `{each.before.function}` | {each.clip} | {each.before.seconds:.2f} s | {each.after.seconds:.2f} s"
            f" | {each.run.seconds:.2f} s | {each.run.others:.0%} | {errors[0]}, {errors[1]}"
            f" | {each.after_alone.seconds:.2f} s | {each.run.alone_seconds:.2f} s | {errors[2]}, {errors[3]} |"
        )
    before, after, before_alone, after_alone = (
        _summary(errors) for errors in zip(*(f.errors() for f in found), strict=True)
    )
    busy = median(each.run.others for each in found)
    summary = (
        f"Median error of {len(found)} jobs before any job {before}, after three {after}, while other work used"
        f" {busy:.0%} of the cores; by CPU seconds {before_alone} and {after_alone}."
    )
    return [*lines, "", summary]


def _summary(errors: Sequence[float]) -> str:
    return f"{median(errors):.0%} (largest {max(errors):.0%})"


async def predictions(folder: Path, functions: Collection[str] = ()) -> list[Prediction]:
    """Run the jobs of all functions, or of some, and return what was expected and what they took."""
    found = []
    for clip in _clips(folder):
        for request in _requests(clip, probe(clip)):
            if functions and request.job_id not in functions:
                continue
            found.append(await _predicted(request, clip, folder))
            done = found[-1]
            figures = [round(value, 2) for value in (done.before.seconds, done.after.seconds, done.run.seconds)]
            alone = [round(value, 2) for value in (done.after_alone.seconds, done.run.alone_seconds, done.run.others)]
            errors = [round(error, 2) for error in done.errors()]
            print(done.before.function, done.clip, figures, alone, errors, file=sys.stderr, flush=True)
    return found


def _clips(folder: Path) -> Iterator[Path]:
    for name, seconds, width in _SAMPLES:
        yield _encoded(folder / name, seconds, "-i", str(sample_clip().with_name(name)), "-vf", f"scale={width}:-2")
    for name, source, seconds in _MADE:
        yield _encoded(folder / name, seconds, "-f", "lavfi", "-i", source)


def _encoded(target: Path, seconds: float, *source: str) -> Path:
    """Return the first seconds of a source, encoded at this path."""
    command = [find_ffmpeg().path, "-loglevel", "error", "-y", *source, "-t", f"{seconds:.3f}"]
    subprocess.run([*command, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", target], check=True)
    return target


def _requests(clip: Path, media: MediaInfo) -> Iterator[VideoRequest]:
    width, height = media.size
    keys = {"user_id": "u", "input_key": clip.name, "output_key": "out.mp4", "store": _SCOPES, "encode": _X264}
    keyframe = HighlightKeyframe(
        time_seconds=Fraction(0), x=width / 2, y=height / 2, radius_x=width / 8, radius_y=height / 8
    )
    region = HighlightRegion(id="a", start_seconds=Fraction(0), end_seconds=Fraction(1000), keyframes=(keyframe,))
    yield OverlayRequest(job_id="overlay", regions=(region,), **keys)
    crops = tuple(
        CropKeyframe(time_seconds=Fraction(time), x=x, y=0, width=width / 3, height=height)
        for time, x in ((0, 0), (20, width / 2))
    )
    yield FramingRequest(job_id="framing", crop=crops, output_size=(270, 480), **keys)
    yield UpscaleRequest(job_id="upscale", scale=2, provider="cpu", **keys)


async def _predicted(request: VideoRequest, clip: Path, folder: Path) -> Prediction:
    settings, media = Settings(store_url=folder.as_uri()), probe(clip)
    history, alone = (TimingHistory(folder / f"{request.job_id}-{clip.stem}.{name}") for name in ("clock", "cpu"))
    before = estimate(request, media, settings=settings, history=history)
    scan = probe(clip, scan=True).scan
    assert scan is not None
    for index, share in enumerate(_SHARES):
        cut = _encoded(folder / f"{clip.stem}-{index}.mp4", float(share * scan.duration_seconds), "-i", str(clip))
        of_cut = replace(request, input_key=cut.name)
        expected = estimate(of_cut, probe(cut), settings=settings, history=alone)
        _record_alone(await _timed(of_cut, f"cut-{index}", settings, history), expected, alone)
    after, after_alone = (estimate(request, media, settings=settings, history=each) for each in (history, alone))
    run = await _timed(request, "whole", settings, TimingHistory("off"))
    return Prediction(clip.stem, before, after, after_alone, run)


def _record_alone(run: Run, expected: Estimate, history: TimingHistory) -> None:
    """Record a job with the times that its CPU seconds take."""
    share = run.alone_seconds / run.seconds
    phases = {name: share * seconds for name, seconds in run.result.seconds_by_phase.items()}
    result = replace(run.result, seconds_by_phase=phases)
    startup = max(0.0, run.alone_seconds - sum(phases.values()))
    history.learn(result, gpu="local", startup_seconds=startup, cold=True, model=measured_model(result, expected))


async def _timed(request: VideoRequest, job: str, settings: Settings, history: TimingHistory) -> Run:
    await asyncio.to_thread(_wait_for_quiet)
    request = replace(request, job_id=f"{request.job_id}-{job}", output_key=f"out/{request.job_id}-{job}.mp4")
    meter, started, own = _Others(), time.monotonic(), _own_seconds()
    async with FunctionRegistry(settings, history=history) as registry:
        result = await registry.run(request)
        seconds, others = time.monotonic() - started, meter.share()
    assert isinstance(result, RenderResult)
    return Run(seconds, _own_seconds() - own, others, result)


def _wait_for_quiet() -> None:
    """Wait until other work uses little of the cores; give up after a while."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        meter = _Others()
        time.sleep(0.5)
        if meter.share() <= _QUIET_SHARE:
            return


class _Others:
    """Measures the share of the cores that other processes use, from construction on."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def share(self) -> float:
        """Return the share, 0 to 1."""
        seconds = (time.monotonic() - self._started) * usable_cores()
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return max(0.0, others / seconds)


def _busy_seconds() -> float:
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usages)


if __name__ == "__main__":
    print("\n".join(main()))
