"""What finished jobs took, and what that says of the next one.

Pure arithmetic; it must not know where timings are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import median
from types import MappingProxyType
from typing import Final, Self

from reel_modal.errors import ConfigError
from reel_modal.progress.plan import DEFAULT_SPREAD, LONGEST_SECONDS, UNKNOWN_SPREAD, ProgressPlan, WorkPhase
from reel_modal.schema import RenderResult

__all__ = [
    "HERE",
    "Estimate",
    "JobTiming",
    "Line",
    "StartupEstimate",
    "check_work",
    "fit_line",
    "published_startup",
    "published_work",
    "spread_of",
    "typical_published_work",
    "typical_work",
    "units_of",
    "work_from",
]

HERE: Final = "local"
"""Stands for the GPU of jobs that run on this machine."""

_NEAR_SIZE_RATIO: Final = 2.0
_ENOUGH_NEAR: Final = 5
_APART: Final = 1.5
"""Two jobs tell fixed from proportional time when one is so many times the other."""

_ENOUGH_APART: Final = 3
_ASSUMED_JOBS: Final = 2
"""So many imagined jobs of the default spread count beside the real ones: three equal runs prove little."""

_MAD_TO_DEVIATION: Final = 1.4826
_SHORTEST_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTiming:
    """What one finished job took.

    Attributes:
        function: Such as `render_overlay`.
        gpu: Such as `T4`; `cpu` for a container without one, `local` for this machine.
        size: (width, height) of its frames in pixels.
        frames: How many it rendered; those that were copied take next to no time.
        startup_seconds: From the submission to the first line of the function.
        seconds_by_phase: Of the function's phases, in their order.
        cold: Whether a container had to be started for it; None where nobody knows, then the pause since the job
            before tells.
    """

    function: str
    gpu: str
    size: tuple[int, int]
    frames: int
    startup_seconds: float
    seconds_by_phase: Mapping[str, float] = field(default_factory=dict)
    cold: bool | None = None

    def __post_init__(self) -> None:
        if not self.function or not self.gpu:
            raise ConfigError("a timing needs the names of its function and its GPU")
        check_work(self.size, self.frames)
        for seconds in (self.startup_seconds, *self.seconds_by_phase.values()):
            if not 0 <= seconds <= LONGEST_SECONDS:
                raise ConfigError(f"{seconds!r} is no duration that a job can have taken")
        if self.work_seconds <= 0:
            raise ConfigError("the phases of a job must have taken more than 0 s")

    @classmethod
    def of(cls, result: RenderResult, *, gpu: str, startup_seconds: float, cold: bool | None = None) -> Self:
        """Return what the job of `result` took.

        Raises:
            ConfigError: A figure makes no sense, or nothing was rendered.
        """
        return cls(
            function=result.function,
            gpu=gpu,
            size=result.size,
            frames=result.frames - result.frames_copied,
            startup_seconds=startup_seconds,
            seconds_by_phase=result.seconds_by_phase,
            cold=cold,
        )

    @property
    def work_seconds(self) -> float:
        """Seconds of all phases together."""
        return sum(self.seconds_by_phase.values())

    @property
    def units(self) -> float:
        """Frames x megapixels: what the time of a video job goes with."""
        return units_of(self.size, self.frames)


@dataclass(frozen=True, slots=True)
class Line:
    """seconds = fixed_seconds + seconds_per_unit x units.

    Attributes:
        fixed_seconds: What every job takes, however short: a model that loads, a connection.
        seconds_per_unit: Of one megapixel of one frame.
    """

    fixed_seconds: float
    seconds_per_unit: float

    def at(self, units: float) -> float:
        """Return the seconds that `units` take."""
        return self.fixed_seconds + self.seconds_per_unit * units


@dataclass(frozen=True, slots=True)
class StartupEstimate:
    """How long a job takes to begin.

    Attributes:
        seconds: Median.
        spread: Robust standard deviation / median.
        jobs: How many were seen; 0 for a published figure.
    """

    seconds: float
    spread: float
    jobs: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """The phases of a job to come.

    Attributes:
        work: In their order.
        spread: Relative uncertainty of them together.
        jobs: Finished jobs that it rests on.
        near: How many of those had frames of about the same size.
    """

    work: tuple[WorkPhase, ...]
    spread: float
    jobs: int
    near: int


def work_from(timings: Sequence[JobTiming], size: tuple[int, int], frames: int) -> Estimate:
    """Return what `frames` frames of `size` will take by `timings`, of which there is at least one, newest first."""
    pixels = size[0] * size[1]
    near = [timing for timing in timings if _ratio(timing.size[0] * timing.size[1], pixels) <= _NEAR_SIZE_RATIO]
    used = near if len(near) >= _ENOUGH_NEAR else timings
    line = fit_line([(timing.units, timing.work_seconds) for timing in used])
    seconds = min(max(line.at(units_of(size, frames)), _SHORTEST_SECONDS), LONGEST_SECONDS / 2)
    return Estimate(
        _split(seconds, used),
        spread_of([timing.work_seconds / line.at(timing.units) for timing in used]),
        len(used),
        len(near),
    )


def typical_work(timings: Sequence[JobTiming]) -> Estimate:
    """Return what a job takes of which nothing is known but its function: the median of `timings`, at least one."""
    middle = median([timing.work_seconds for timing in timings])
    spread = spread_of([timing.work_seconds / middle for timing in timings])
    return Estimate(_split(middle, timings), spread, len(timings), 0)


def _split(seconds: float, timings: Sequence[JobTiming]) -> tuple[WorkPhase, ...]:
    """Return the phases of work that takes `seconds`, each with its mean share of the jobs before."""
    shares: dict[str, float] = {}
    for timing in timings:
        for name, spent in timing.seconds_by_phase.items():
            shares[name] = shares.get(name, 0.0) + spent / timing.work_seconds / len(timings)
    return tuple(WorkPhase(name, share * seconds) for name, share in shares.items())


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """Return the line through (units, seconds) that a few odd jobs do not move: slopes by Theil and Sen.

    Where the jobs are too much alike to tell fixed from proportional time, all of it is taken as proportional.

    Example:
        >>> fit_line([(10, 60), (20, 70), (40, 90), (80, 500), (100, 150)])
        Line(fixed_seconds=50.0, seconds_per_unit=1.0)
    """
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(sorted(points), 2) if x2 >= _APART * x1]
    if len(slopes) >= _ENOUGH_APART:
        slope = max(median(slopes), 0.0)
        fixed = median([y - slope * x for x, y in points])
        if fixed >= 0:
            return Line(fixed, slope)
    return Line(0.0, median([y / x for x, y in points]))


def spread_of(ratios: Sequence[float]) -> float:
    """Return the robust relative deviation of actual / expected, as sure as the number of jobs allows."""
    logs = [math.log(max(ratio, 1e-9)) for ratio in ratios]
    middle = median(logs)
    seen = _MAD_TO_DEVIATION * median([abs(value - middle) for value in logs])
    return (len(logs) * seen + _ASSUMED_JOBS * DEFAULT_SPREAD) / (len(logs) + _ASSUMED_JOBS)


def units_of(size: tuple[int, int], frames: int) -> float:
    """Return frames x megapixels."""
    return frames * size[0] * size[1] / 1e6


def check_work(size: tuple[int, int], frames: int) -> None:
    """Raise ConfigError where there is nothing to render."""
    if min(size) < 1 or frames < 1:
        raise ConfigError(f"{frames} frames of {size[0]} x {size[1]} are no job")


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


# Published timings of an editor that ran these three functions on Modal in 2026, T4 and CPU containers: an overlay of
# 2700 frames in 1080p took 47.6 s with few of them highlighted and 278 s with all, of which this is the geometric
# mean; framing 180 frames to 810 x 1440 16.6 s (CPU 10.9 s); an upscale to 2560 x 1440 by their fitted model. Their
# waits from dispatch to the first item were 5.5, 21.5 and 31.8 s: the first a warm container, the others cold ones.
_PUBLISHED: Final[Mapping[tuple[str, bool], Line]] = MappingProxyType(
    {
        ("render_overlay", True): Line(0.0, 0.0205),
        ("render_overlay", False): Line(0.0, 0.0205),
        ("process_framing", True): Line(0.0, 0.079),
        ("process_framing", False): Line(0.0, 0.052),
        ("apply_upscale", True): Line(50.0, 0.176),
    }
)
_PUBLISHED_COLD: Final = StartupEstimate(26.0, DEFAULT_SPREAD, 0)
_PUBLISHED_WARM: Final = StartupEstimate(5.5, DEFAULT_SPREAD, 0)
_PUBLISHED_HERE: Final = StartupEstimate(1.0, DEFAULT_SPREAD, 0)
_PUBLISHED_SPREAD: Final = 0.8
_PUBLISHED_RUNS: Final[Mapping[str, tuple[tuple[int, int], int]]] = MappingProxyType(
    {
        "render_overlay": ((1920, 1080), 2700),
        "process_framing": ((810, 1440), 180),
        "apply_upscale": ((2560, 1440), 180),
    }
)


def published_startup(gpu: str, *, cold: bool) -> StartupEstimate:
    """Return the startup of a job nobody has seen yet."""
    if gpu == HERE:
        return _PUBLISHED_HERE
    return _PUBLISHED_COLD if cold else _PUBLISHED_WARM


def published_work(function: str, gpu: str, size: tuple[int, int], frames: int) -> Estimate:
    """Return the phases of a job nobody has seen yet; of an unknown function, those of the default plan."""
    line = _PUBLISHED.get((function, gpu not in {"cpu", HERE}))
    plan = ProgressPlan.default()
    if line is not None:
        plan = ProgressPlan.from_benchmarks(startup_seconds=0, processing_seconds=line.at(units_of(size, frames)))
    return Estimate(plan.work, _PUBLISHED_SPREAD, 0, 0)


def typical_published_work(function: str, gpu: str) -> Estimate:
    """Return the same for a job of which nothing is known but its function: as long as the published ones."""
    size, frames = _PUBLISHED_RUNS.get(function, ((1, 1), 1))
    return replace(published_work(function, gpu, size, frames), spread=UNKNOWN_SPREAD)
