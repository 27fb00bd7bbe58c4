"""Estimate the time and cost of a job before its submission, and refuse jobs that exceed their limits.

An estimate runs nothing. It uses only the headers of the clip, the request, recorded timings and the rates.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from reel_modal._costs.rates import Rates, load_rates
from reel_modal._jobs.parallel import MOST_OF_TIMEOUT, Parallel, WorkerChoice, fits_timeout
from reel_modal._jobs.worker_rows import (
    SegmentedJob,
    WorkerRow,
    longest_load,
    longest_read_seconds,
    place_of,
    price_of,
    rows_of,
)
from reel_modal._progress.history import TimingHistory
from reel_modal._progress.plan import WorkPhase
from reel_modal._progress.timing_model import LOCAL
from reel_modal._segments import segment_grid
from reel_modal.errors import (
    JobTooLongError,
    OverBudgetError,
)
from reel_modal.functions.catalog import AnyFunction, all_functions, function_of
from reel_modal.functions.declaration import Work
from reel_modal.functions.rendered_format import as_rendered
from reel_modal.functions.resources import Resources
from reel_modal.functions.segment_processes import segments_at_once
from reel_modal.functions.specs import COORDINATOR_SUFFIX, SEGMENTS_SUFFIX, FunctionSpec, spec_from_env
from reel_modal.media import MediaInfo
from reel_modal.progress import ProgressPlan
from reel_modal.schema.requests import Request, VideoRequest
from reel_modal.settings import Settings

__all__ = ["Contributor", "Estimate", "estimate", "estimate_of", "work_of"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contributor:
    """One part of the expected time of a job.

    Attributes:
        name: For example, `startup` or `render`.
        seconds: Expected duration.
        why: Main factor of the duration, as text.
    """

    name: str
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected time and cost of a job.

    Attributes:
        function: Name of the function.
        gpu: GPU of one machine, for example `T4`; `cpu` for a container without a GPU, `local` for this machine.
        seconds: Time from the submission to the end.
        spread: Relative uncertainty of `seconds`: two jobs of three take `low_seconds` to `high_seconds`.
        work_seconds: Time of the function itself, which counts towards its timeout; on several machines, of its
            longest call.
        dollars: Expected cost in US dollars; 0 on this machine.
        timeout_seconds: Timeout of the function, or of a worker's calls; None on this machine, which has no timeout.
        frames: Number of frames of the output.
        frames_rendered: Number of frames that are rendered; the others are copied from the source.
        size: (width, height) of the output in pixels.
        fps: Frame rate of the output.
        contributors: Parts of `seconds`, the longest first.
        source: Basis of the estimate, as text.
        plan: The same estimate as a plan for `Job.progress`.
        workers: Number of machines that render at once; see `parallel`.
        rows: Time and cost on each number of machines, from one to the largest that is useful and that the function
            may use. There is only one if the output is a single segment or is rendered in one piece, or on this
            machine.
    """

    function: str
    gpu: str
    seconds: float
    spread: float
    work_seconds: float
    dollars: float
    timeout_seconds: float | None
    frames: int
    frames_rendered: int
    size: tuple[int, int]
    fps: Fraction
    contributors: tuple[Contributor, ...]
    source: str
    plan: ProgressPlan = field(repr=False)
    workers: int = 1
    rows: tuple[WorkerRow, ...] = field(default=(), repr=False)

    @property
    def low_seconds(self) -> float:
        """Lower bound: one job in six takes less."""
        return self.seconds / (1 + self.spread)

    @property
    def high_seconds(self) -> float:
        """Upper bound: one job in six takes more."""
        return self.seconds * (1 + self.spread)

    def parallel(self, parallel: Parallel, budget_usd: float | None = None) -> Estimate:
        """Return the estimate for the number of machines to use within limits.

        On this machine, up to `max_workers` processes render the output, and no other limit applies: the backend
        starts as many as there are cores for, and the estimate remains that of one.

        Args:
            parallel: The limits.
            budget_usd: Largest allowed cost in US dollars of any job; None sets no limit.

        Raises:
            JobTooLongError: No number of machines meets the deadline, or keeps each call within 80 % of its timeout;
                the message says what would be possible.
            OverBudgetError: Those that do cost too much; the message says what they cost.

        Example:
            >>> fast = estimate(request, probe("clip.mp4")).parallel(Parallel(deadline_seconds=120))
            >>> fast.workers, fast.dollars
        """
        if self.timeout_seconds is None:
            return replace(self, workers=parallel.max_workers or 1)
        row = WorkerChoice(self.function, self.rows, parallel, budget_usd).row()
        return self if row.workers == 1 else self._on(row)

    def _on(self, row: WorkerRow) -> Estimate:
        """Return the estimate for the number of machines of `row`."""
        startup, work = self.plan.phases[-2:]
        why = f"{self.frames} frames of {self.size[0]} x {self.size[1]} on {row.workers} machines"
        plan = ProgressPlan.weighted(
            startup_seconds=row.phases["startup"],
            work=[WorkPhase(name, seconds) for name, seconds in row.phases.items() if name != "startup"],
            startup_spread=startup.spread,
            work_spread=work.spread,
            source=row.source,
        )
        return replace(
            self,
            gpu=row.gpu,
            seconds=row.seconds,
            spread=_spread_of(plan),
            work_seconds=row.call_seconds,
            dollars=row.dollars,
            timeout_seconds=row.timeout_seconds,
            contributors=_contributors(row.phases, why),
            source=row.source,
            plan=plan,
            workers=row.workers,
        )

    @property
    def headroom_seconds(self) -> float | None:
        """Seconds of the timeout that remain after the work; None if the job has no timeout."""
        return None if self.timeout_seconds is None else self.timeout_seconds - self.work_seconds

    def check(self, budget_usd: float | None = None) -> None:
        """Raise an error if the job exceeds a limit.

        Args:
            budget_usd: Largest allowed cost in US dollars; None sets no limit.

        Raises:
            JobTooLongError: The job needs more than 80 % of its function's timeout; the message says how much fits.
            OverBudgetError: The job costs more than the budget; the message says how much fits.
        """
        if self.timeout_seconds is not None and self.work_seconds > MOST_OF_TIMEOUT * self.timeout_seconds:
            allowed = MOST_OF_TIMEOUT * self.timeout_seconds
            variable = f"REEL_MODAL_{self.function.upper()}_TIMEOUT_SECONDS"
            raise JobTooLongError(
                f"{self.function} would need about {self.work_seconds:.0f} s of its timeout of"
                f" {self.timeout_seconds:.0f} s, and {allowed:.0f} s (80 %) are allowed: {self._longest()}."
                f" {self._fitting_part(allowed / self.work_seconds)}, or set"
                f" {variable}={math.ceil(self.work_seconds / MOST_OF_TIMEOUT)} and deploy again"
                f"{self._fitting_workers()}"
            )
        if budget_usd is not None and self.dollars > budget_usd:
            raise OverBudgetError(
                f"{self.function} would cost about ${self.dollars:.4f}, and the budget is ${budget_usd:.4f}"
                f" (REEL_MODAL_BUDGET_USD): {self._longest()}. {self._fitting_part(budget_usd / self.dollars)}"
            )

    def to_dict(self) -> dict[str, object]:
        """Return the estimate as a JSON-ready dict."""
        return {
            "function": self.function,
            "gpu": self.gpu,
            "seconds": self.seconds,
            "spread": self.spread,
            "low_seconds": self.low_seconds,
            "high_seconds": self.high_seconds,
            "work_seconds": self.work_seconds,
            "dollars": self.dollars,
            "timeout_seconds": self.timeout_seconds,
            "headroom_seconds": self.headroom_seconds,
            "frames": self.frames,
            "frames_rendered": self.frames_rendered,
            "workers": self.workers,
            "rows": [{"workers": row.workers, "seconds": row.seconds, "dollars": row.dollars} for row in self.rows],
            "width": self.size[0],
            "height": self.size[1],
            "contributors": [
                {"name": part.name, "seconds": part.seconds, "why": part.why} for part in self.contributors
            ],
            "source": self.source,
        }

    def to_text(self) -> str:
        """Return the estimate as a few lines of text."""
        time_range = f"{self.low_seconds:.1f} to {self.high_seconds:.1f}"
        lines = [
            f"{self.function} on {self.gpu}: about {self.seconds:.1f} s ({time_range}), ${self.dollars:.4f}",
            *(f"  {part.name:8} {part.seconds:8.1f} s  {part.why}".rstrip() for part in self.contributors),
        ]
        if self.timeout_seconds is not None:
            lines.append(f"  of a timeout of {self.timeout_seconds:.0f} s, {self.headroom_seconds:.0f} s are left")
        return "\n".join([*lines, f"  based on {self.source}", *self._table()])

    def _table(self) -> list[str]:
        """Return the lines of the rows: one, two, four, … machines, the largest number and that of this estimate."""
        if len(self.rows) == 1:
            return []
        shown = {self.workers, self.rows[-1].workers, *(2**power for power in range(len(self.rows).bit_length()))}
        lines = ["  machines      time      cost"]
        for row in self.rows:
            if row.workers in shown:
                marks = "  this estimate" if row.workers == self.workers else ""
                marks += "" if fits_timeout(row) else "  above 80 % of a timeout"
                lines.append(f"  {row.workers:8} {row.seconds:7.0f} s  ${row.dollars:.4f}{marks}")
        return lines

    @property
    def _all_rendered(self) -> bool:
        return self.frames_rendered == self.frames

    def _longest(self) -> str:
        part = next(part for part in self.contributors if part.name != "startup")
        return f"{part.seconds:.0f} s are for {part.name} ({part.why})" if part.why else f"most is for {part.name}"

    def _fitting_workers(self) -> str:
        row = next((row for row in self.rows if fits_timeout(row)), None)
        return "" if row is None else f", or use several machines: parallel=Parallel(max_workers={row.workers})"

    def _fitting_part(self, share: float) -> str:
        frames = max(1, int(self.frames_rendered * share))
        seconds = f"{float(frames / self.fps):.1f} s of {'output' if self._all_rendered else 'changed video'}"
        return f"About {frames} frames of this size would fit, {seconds}, or all of it with {share:.0%} of the pixels"


def estimate(
    request: object,
    media: MediaInfo,
    *,
    settings: Settings | None = None,
    history: TimingHistory | None = None,
    functions: Mapping[str, AnyFunction] | None = None,
    rates: Rates | None = None,
    resources: Resources | None = None,
) -> Estimate:
    """Return the expected time and cost of the job of `request`.

    Args:
        request: Request that would be submitted.
        media: Clip stored under its `input_key`, as returned by `probe`.
        settings: Select the place where the job would run; default: those of the environment.
        history: Timings of finished jobs; default: the file of the settings. Without any, published figures are used.
        functions: The declared functions by name; default those of this package and of installed packages.
        rates: Default: `load_rates()`.
        resources: Resources of the job on Modal in place of the deployed ones; see `JobOptions`.

    Raises:
        RequestError: The request does not fit the clip, or no function accepts it.
        ConfigError: The price of the GPU is unknown, the function cannot have the resources, or an environment
            variable is not valid.

    Example:
        >>> print(estimate(request, probe("clip.mp4")).to_text())
    """
    settings = settings or Settings.from_env()
    history = history or TimingHistory(settings.timings)
    function = function_of(request, all_functions() if functions is None else functions)
    return estimate_of(function, request, media, settings=settings, history=history, rates=rates, resources=resources)


def estimate_of(
    function: AnyFunction,
    request: object,
    media: MediaInfo,
    *,
    settings: Settings,
    history: TimingHistory,
    rates: Rates | None = None,
    resources: Resources | None = None,
) -> Estimate:
    """Return the same as `estimate` for a known function, which takes `request`."""
    name, spec = function.name, spec_from_env(function.spec)
    in_region = resources is not None and resources.region is not None
    if resources is not None and settings.modal_enabled:
        spec = resources.applied_to(spec)
    submitted = function.to_request(request)
    if isinstance(submitted, VideoRequest):
        media = as_rendered(media, submitted.encode)
    gpu = place_of(spec) if settings.modal_enabled else LOCAL
    work = work_of(function, request, media, settings, on_gpu=settings.modal_enabled and bool(spec.gpu))
    size, frames = work.size, work.frames
    rendered = frames if work.frames_rendered is None else min(work.frames_rendered, frames)
    cold = None if settings.modal_enabled else True
    payload, published = submitted.to_dict(), function.published
    if settings.modal_enabled and published is not None and _encodes_exactly(submitted, spec):
        published = published.faster(_speed_up(function, work, segments_at_once(function, payload, spec.cpu)))
    plan = history.plan(name, gpu=gpu, size=size, frames=max(1, rendered), cold=cold, published=published)
    startup, work_seconds = plan.startup_seconds, plan.processing_seconds
    why = f"{frames if rendered == frames else f'{rendered} of {frames}'} frames of {size[0]} x {size[1]}"
    phases = {"startup": startup} | {phase.name: phase.seconds for phase in plan.work}
    dollars, timeout, segmented = 0.0, None, None
    if settings.modal_enabled:
        rates, timeout = rates or load_rates(), spec.timeout_seconds
        dollars = price_of(spec, rates, in_region=in_region) * (startup + work_seconds)
        segmented = _segmented(function, work, payload, history=history, rates=rates, resources=resources)
    return Estimate(
        function=name,
        gpu=gpu,
        seconds=startup + work_seconds,
        spread=_spread_of(plan),
        work_seconds=work_seconds,
        dollars=dollars,
        timeout_seconds=timeout,
        frames=frames,
        frames_rendered=rendered,
        size=size,
        fps=work.fps,
        contributors=_contributors(phases, why),
        source=plan.source,
        plan=plan,
        rows=rows_of(WorkerRow(1, dollars, work_seconds, timeout, gpu, phases, plan.source), segmented),
    )


def _encodes_exactly(request: Request[Any], spec: FunctionSpec) -> bool:
    """Return whether one machine encodes by x264, so that its segments can be joined."""
    return not spec.gpu or (isinstance(request, VideoRequest) and request.encode.encoder == "libx264")


def _speed_up(function: AnyFunction, work: Work, at_once: int) -> float:
    """Return how many times as fast a machine is that renders `at_once` segments of an output at once."""
    if function.segments is None or not work.in_segments or at_once == 1:
        return 1.0
    grid = segment_grid(work.frames, work.fps, function.segments.seconds)
    return work.frames / longest_load([segment.frames for segment in grid], at_once)


def _segmented(
    function: AnyFunction,
    work: Work,
    payload: Mapping[str, object],
    *,
    history: TimingHistory,
    rates: Rates,
    resources: Resources | None,
) -> SegmentedJob | None:
    """Return the figures of a job on several machines; None if its output is rendered in one piece."""
    if function.segments is None or not work.in_segments or work.frames < 2:
        return None
    name, specs = function.name, function.deployed_specs()
    worker, coordinator = specs[name + SEGMENTS_SUFFIX], specs[name + COORDINATOR_SUFFIX]
    in_region = resources is not None and resources.region is not None
    if resources is not None and (own := resources.for_calls(gpu=bool(worker.gpu))) is not None:
        worker = own.applied_to(worker)
    gpu, at_once = place_of(worker), segments_at_once(function, payload, worker.cpu)
    # Recorded jobs were as fast as their machine is with all of its cores.
    published = None if function.published is None else function.published.faster(at_once)

    def plan(frames: int) -> ProgressPlan:
        return history.plan(name, gpu=gpu, size=work.size, frames=frames, cold=True, published=published)

    return SegmentedJob.of(
        segment_grid(work.frames, work.fps, function.segments.seconds),
        plan(work.frames),
        plan(1),
        longest_read_seconds=math.inf
        if history.has_jobs(name, gpu)
        else longest_read_seconds(work.size, work.frames),
        worker=worker,
        worker_usd=price_of(worker, rates, in_region=in_region),
        coordinator_usd=price_of(coordinator, rates),
        at_once=at_once,
    )


def _spread_of(plan: ProgressPlan) -> float:
    """Return the relative uncertainty of the whole time of a plan."""
    std_seconds = math.hypot(*(phase.seconds * phase.spread for phase in plan.phases))
    return std_seconds / (plan.startup_seconds + plan.processing_seconds)


def _contributors(phases: Mapping[str, float], why: str) -> tuple[Contributor, ...]:
    """Return the phases, the longest first; `why` explains the rendering."""
    parts = [Contributor(name, seconds, why if name == "render" else "") for name, seconds in phases.items()]
    return tuple(sorted(parts, key=lambda part: -part.seconds))


def work_of(function: AnyFunction, request: object, media: MediaInfo, settings: Settings, *, on_gpu: bool) -> Work:
    """Return the amount of work of a job, as far as this host can determine it.

    A function that does not estimate its work is expected to make one frame of each frame of its input, in segments
    if its declaration has a `SegmentSpec`.

    Raises:
        RequestError: The request does not fit the clip.
    """
    if function.estimate is not None:
        return function.estimate(request, media, settings=settings, on_gpu=on_gpu)
    frames = media.frames_at(media.fps) or 1
    return Work(media.size, frames, media.fps, in_segments=function.segments is not None)
