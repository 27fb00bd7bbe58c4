"""Timings of finished jobs, and estimates of the next job from them.

Pure arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import median
from typing import Final, Self

from reel_modal._progress.plan import DEFAULT_SPREAD, LONGEST_SECONDS, UNKNOWN_RELATIVE_STD, ProgressPlan, WorkPhase
from reel_modal.errors import ConfigError
from reel_modal.schema import RenderResult

__all__ = [
    "LOCAL",
    "TRANSFERS",
    "Estimate",
    "JobModel",
    "JobTiming",
    "Line",
    "PublishedTimings",
    "StartupEstimate",
    "check_work",
    "fit_line",
    "line_of",
    "published_startup",
    "published_work",
    "spread_around",
    "spread_of",
    "typical_published_work",
    "typical_work",
    "units_of",
    "work_from",
]

LOCAL: Final = "local"
"""Value of `gpu` for jobs that run on this machine."""

TRANSFERS: Final = ("fetch", "publish")
"""Phases whose time depends on the store."""

_NEAR_SIZE_RATIO: Final = 2.0
_ENOUGH_NEAR: Final = 5
_APART: Final = 1.5
"""Two jobs separate fixed from proportional time if one is at least this many times as large as the other."""

_ENOUGH_APART: Final = 3
_ASSUMED_JOBS: Final = 2
"""Number of assumed jobs with the default spread that count like real ones: three equal runs prove little."""

_MAD_TO_DEVIATION: Final = 1.4826
_UNKNOWN_SIZE_SPREAD: Final = 1.1
"""Least uncertainty of a job whose frames are unknown; a little less than that of a job of any function."""

_SHORTEST_SECONDS: Final = 0.001
_LEAST_RATIO: Final = 1e-9
"""Smallest ratio of actual to expected time; its inverse is the largest. More extreme ones count as these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobModel:
    """Expectation of one job by a cost model, before finished jobs are considered.

    Attributes:
        render_seconds: Time of the work, without transfers from and to the store; above 0.
        spread: Relative uncertainty of `render_seconds`.
        store: Store whose bandwidth is learned, such as `s3://bucket`; empty if files are read in place.
        bytes_in: Bytes of the input.
        bytes_out: Expected bytes of the output.
    """

    render_seconds: float
    spread: float
    store: str = ""
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTiming:
    """Timing of one finished job.

    Attributes:
        function: Name of the function.
        gpu: For example, `T4`; `cpu` for a container without a GPU, `local` for this machine.
        size: (width, height) of its frames in pixels.
        frames: Number of rendered frames; copied frames take almost no time.
        startup_seconds: Time from the submission to the first line of the function.
        seconds_by_phase: Time of each phase of the function, in order.
        cold: Whether a container had to be started for it. If None (unknown), the pause since the previous job
            decides.
        model: Expectation of the cost model for this job, with its measured bytes; None if there was none.
    """

    function: str
    gpu: str
    size: tuple[int, int]
    frames: int
    startup_seconds: float
    seconds_by_phase: Mapping[str, float] = field(default_factory=dict)
    cold: bool | None = None
    model: JobModel | None = None

    def __post_init__(self) -> None:
        if not self.function or not self.gpu:
            raise ConfigError("a timing needs the names of its function and its GPU")
        check_work(self.size, self.frames)
        for seconds in (self.startup_seconds, *self.seconds_by_phase.values()):
            if not 0 <= seconds <= LONGEST_SECONDS:
                raise ConfigError(f"{seconds!r} is not a valid duration of a job (0 to {LONGEST_SECONDS:g} s)")
        if self.work_seconds <= 0:
            raise ConfigError("the phases of a job must have taken more than 0 s")

    @classmethod
    def of(
        cls,
        result: RenderResult,
        *,
        gpu: str,
        startup_seconds: float,
        cold: bool | None = None,
        model: JobModel | None = None,
    ) -> Self:
        """Return the timing of the job of `result`.

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
            model=model,
        )

    @property
    def work_seconds(self) -> float:
        """Total time of all phases."""
        return sum(self.seconds_by_phase.values())

    @property
    def rendering_seconds(self) -> float:
        """Total time of all phases without transfers from and to the store; at least a millisecond."""
        phases = self.seconds_by_phase.items()
        return max(sum(seconds for name, seconds in phases if name not in TRANSFERS), _SHORTEST_SECONDS)

    @property
    def units(self) -> float:
        """Frames x megapixels, to which the duration of a video job is roughly proportional."""
        return units_of(self.size, self.frames)


@dataclass(frozen=True, slots=True)
class Line:
    """The line seconds = fixed_seconds + seconds_per_unit x units.

    Attributes:
        fixed_seconds: Time that every job takes, however short it is: to load a model, to open a connection.
        seconds_per_unit: Time per megapixel of one frame.
    """

    fixed_seconds: float
    seconds_per_unit: float

    def at(self, units: float) -> float:
        """Return the seconds for `units`."""
        return self.fixed_seconds + self.seconds_per_unit * units


@dataclass(frozen=True, slots=True)
class StartupEstimate:
    """Expected startup time of a job.

    Attributes:
        seconds: Median.
        spread: Robust standard deviation / median.
        jobs: Number of recorded jobs; 0 for a published figure.
    """

    seconds: float
    spread: float
    jobs: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected phases of a job.

    Attributes:
        work: The phases in their order.
        spread: Relative uncertainty of their total.
        jobs: Number of finished jobs on which it is based.
        near: Number of those with frames of about the same size.
    """

    work: tuple[WorkPhase, ...]
    spread: float
    jobs: int
    near: int


def work_from(timings: Sequence[JobTiming], size: tuple[int, int], frames: int) -> Estimate:
    """Return the expected phases for `frames` frames of `size`, from at least one timing, newest first."""
    pixels = size[0] * size[1]
    near = [timing for timing in timings if _ratio(timing.size[0] * timing.size[1], pixels) <= _NEAR_SIZE_RATIO]
    used = near if len(near) >= _ENOUGH_NEAR else timings
    line = line_of(used)
    seconds = min(max(line.at(units_of(size, frames)), _SHORTEST_SECONDS), LONGEST_SECONDS / 2)
    return Estimate(_split(seconds, used), spread_around(line, used), len(used), len(near))


def typical_work(timings: Sequence[JobTiming]) -> Estimate:
    """Return the expected phases if only the function is known: the median of `timings`, at least one.

    The next clip may be much shorter or longer than theirs, so the spread is a wide one.
    """
    middle = median([_measurable_seconds(timing) for timing in timings])
    spread = max(spread_of([_measurable_seconds(timing) / middle for timing in timings]), _UNKNOWN_SIZE_SPREAD)
    return Estimate(_split(middle, timings), spread, len(timings), 0)


def _split(seconds: float, timings: Sequence[JobTiming]) -> tuple[WorkPhase, ...]:
    """Split `seconds` into phases by their mean shares in `timings`."""
    shares: dict[str, float] = {}
    for timing in timings:
        for name, spent in timing.seconds_by_phase.items():
            shares[name] = shares.get(name, 0.0) + spent / timing.work_seconds / len(timings)
    return tuple(WorkPhase(name, share * seconds) for name, share in shares.items())


def line_of(timings: Sequence[JobTiming]) -> Line:
    """Return the line through the times of at least one job."""
    return fit_line([(timing.units, _measurable_seconds(timing)) for timing in timings])


def spread_around(line: Line, timings: Sequence[JobTiming]) -> float:
    """Return the spread of `timings` around `line`, which must be above 0 for each of them."""
    return spread_of([_measurable_seconds(timing) / line.at(timing.units) for timing in timings])


def _measurable_seconds(timing: JobTiming) -> float:
    """Return the time of all phases, at least a millisecond: the rate of a much shorter time is rounded to 0."""
    return max(timing.work_seconds, _SHORTEST_SECONDS)


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """Return the Theil-Sen line through (units, seconds), which a few outliers do not move.

    If the jobs are too similar to separate fixed from proportional time, all time counts as proportional.

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
    """Return the robust relative deviation of actual / expected; the fewer jobs, the closer to `DEFAULT_SPREAD`."""
    logs = [math.log(min(max(ratio, _LEAST_RATIO), 1 / _LEAST_RATIO)) for ratio in ratios]
    middle = median(logs)
    observed = _MAD_TO_DEVIATION * median([abs(value - middle) for value in logs])
    return (len(logs) * observed + _ASSUMED_JOBS * DEFAULT_SPREAD) / (len(logs) + _ASSUMED_JOBS)


def units_of(size: tuple[int, int], frames: int) -> float:
    """Return frames x megapixels."""
    return frames * size[0] * size[1] / 1e6


def check_work(size: tuple[int, int], frames: int) -> None:
    """Raise ConfigError if there is nothing to render."""
    if min(size) < 1 or frames < 1:
        raise ConfigError(f"{frames} frames of {size[0]} x {size[1]} are not a valid job; both must be at least 1")


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


@dataclass(frozen=True, slots=True)
class PublishedTimings:
    """Timings of a function before any job has finished, from a publication or from the function's author.

    Attributes:
        on_gpu: Time of the work in a container with a GPU, without transfers from and to the store; None if unknown.
        on_cpu: The same without a GPU, and on this machine.
        typical_size: (width, height) in pixels of the frames of a typical job.
        typical_frames: Number of frames of a typical job.
    """

    on_gpu: Line | None = None
    on_cpu: Line | None = None
    typical_size: tuple[int, int] = (1920, 1080)
    typical_frames: int = 300

    def line(self, gpu: str) -> Line | None:
        """Return the time of the work on `gpu`; None if unknown."""
        return self.on_cpu if gpu in {"cpu", LOCAL} else self.on_gpu


# An editor ran three functions on Modal in 2026, on T4 and CPU containers. The waits from dispatch to the first item
# were 5.5, 21.5 and 31.8 s: the first on a warm container, the others cold.
_PUBLISHED_COLD: Final = StartupEstimate(26.0, DEFAULT_SPREAD, 0)
_PUBLISHED_WARM: Final = StartupEstimate(5.5, DEFAULT_SPREAD, 0)
# A worker process needs 0.4 CPU seconds for its imports (2026-11-30), and sends its first event a little later.
_PUBLISHED_LOCAL: Final = StartupEstimate(0.5, DEFAULT_SPREAD, 0)
_PUBLISHED_SPREAD: Final = 0.8


def published_startup(gpu: str, *, cold: bool) -> StartupEstimate:
    """Return the published startup time, for a function without recorded jobs."""
    if gpu == LOCAL:
        return _PUBLISHED_LOCAL
    return _PUBLISHED_COLD if cold else _PUBLISHED_WARM


def published_work(published: PublishedTimings | None, gpu: str, size: tuple[int, int], frames: int) -> Estimate:
    """Return the phases of a function without recorded jobs; without published timings, those of the default plan."""
    line = None if published is None else published.line(gpu)
    plan = ProgressPlan.default()
    if line is not None:
        plan = ProgressPlan.from_benchmarks(startup_seconds=0, processing_seconds=line.at(units_of(size, frames)))
    return Estimate(plan.work, _PUBLISHED_SPREAD, 0, 0)


def typical_published_work(published: PublishedTimings | None, gpu: str) -> Estimate:
    """Return the same if only the function is known: the phases of a typical job."""
    size, frames = ((1, 1), 1) if published is None else (published.typical_size, published.typical_frames)
    return replace(published_work(published, gpu, size, frames), spread=UNKNOWN_RELATIVE_STD)
