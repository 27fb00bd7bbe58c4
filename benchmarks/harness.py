"""Runs contestants in turns, each in a process of its own, and compares medians within one run."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from tests.clips import real

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.functions.context import JobContext
from reel_modal.settings import Settings
from reel_modal.storage import PathStorage

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True)
class Sample:
    """One run: wall and CPU seconds after the imports, frames, and the most memory above the imports."""

    wall_seconds: float
    cpu_seconds: float
    frames: int
    peak_mb: float


def clip_1080p(seconds: int = 12) -> Path:
    """A 1080p30 clip with sound out of a real one, made once."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"bunny_1080p30_{seconds}s.mp4"
    if not path.exists():
        command = [find_ffmpeg(Settings()).path, "-loglevel", "error", "-y", "-stream_loop", "-1"]
        command += ["-i", str(real("bigbuckbunny.mp4")), "-t", str(seconds), "-vf", "scale=1920:1080:flags=lanczos"]
        command += [
            "-r",
            "30",
            "-c:v",
            "libx264",
            "-preset",
            "fast",
            "-crf",
            "18",
            "-c:a",
            "aac",
            "-ac",
            "2",
            str(path),
        ]
        subprocess.run(command, check=True)
    return path


def context_for(source: Path, folder: Path, output: str = "out.mp4") -> JobContext:
    """Return the context of a job that reads `source` where it is and writes `output` into `folder`."""
    return JobContext(
        storage=PathStorage(),
        workdir=folder,
        input_place=lambda _: str(source),
        output_place=lambda _: str(folder / output),
    )


def measured(work: Callable[[], int]) -> Sample:
    """Run `work`, which returns its frames, and measure it, without what it takes to load libraries."""
    for library in ("av", "cv2"):
        import_module(library)
    before = _memory_mb()
    started, cpu = time.monotonic(), _cpu_seconds()
    frames = work()
    return Sample(time.monotonic() - started, _cpu_seconds() - cpu, frames, _memory_mb() - before)


def contest(module: str, contestants: Sequence[str], rounds: int) -> dict[str, list[Sample]]:
    """Run `python -m module CONTESTANT` for each in turns; interleaving spreads the machine's noise evenly."""
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in contestants if turn % 2 == 0 else list(reversed(contestants)):
            done = subprocess.run([sys.executable, "-m", module, name], capture_output=True, text=True, check=True)
            samples[name].append(Sample(**json.loads(done.stdout.splitlines()[-1])))
            print(f"  round {turn + 1}: {name}: {samples[name][-1].wall_seconds:.2f} s", file=sys.stderr)
    return samples


def answer(sample: Sample) -> None:
    """Tell the contest what was measured."""
    print(json.dumps(asdict(sample)))


def median(samples: Sequence[Sample], what: str) -> float:
    """The median of one figure."""
    return statistics.median(getattr(sample, what) for sample in samples)


def fps(samples: Sequence[Sample]) -> float:
    """Median frames a second of wall time."""
    return statistics.median(sample.frames / sample.wall_seconds for sample in samples)


def cpu_ms(samples: Sequence[Sample]) -> float:
    """Median CPU milliseconds a frame, this process and its ffmpegs together."""
    return statistics.median(1000 * sample.cpu_seconds / sample.frames for sample in samples)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
