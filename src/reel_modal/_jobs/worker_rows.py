"""Predict the time and cost of a segmented job for each number of machines. Pure arithmetic.

A coordinator on a small container starts, fetches the source, gives runs of segments to workers, and joins, checks
and publishes the output. A worker starts, and renders one run after another; for each, it fetches the source first.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from reel_modal._costs.rates import Rates
from reel_modal._progress.plan import ProgressPlan
from reel_modal._segments import Segment, segment_runs
from reel_modal.functions.specs import FunctionSpec

__all__ = ["SegmentedJob", "WorkerRow", "longest_load", "place_of", "price_of", "rows_of"]

_AROUND: Final = ("fetch", "verify", "publish")
"""Phases before and after the rendering."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """Expected time and cost of a job on a number of machines.

    Attributes:
        workers: Number of machines that render at once; 1 renders the whole job in one call, without a coordinator.
        dollars: Cost in US dollars.
        call_seconds: Time of the longest call of a machine, which counts towards its timeout.
        timeout_seconds: That timeout; None on this machine, which has none.
        gpu: GPU of each machine, for example `T4`; `cpu` if it has none, `local` for this machine.
        phases: Seconds of each phase from the submission to the end, in order; the first one is `startup`.
        source: Basis of the figures, as text.
    """

    workers: int
    dollars: float
    call_seconds: float
    timeout_seconds: float | None
    gpu: str
    phases: Mapping[str, float] = field(repr=False)
    source: str = field(repr=False)

    @property
    def seconds(self) -> float:
        """Time from the submission to the end."""
        return sum(self.phases.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentedJob:
    """Figures of a job, from which its time and cost on two or more machines follow.

    Attributes:
        grid: The segments of its output.
        start_seconds: Start of a container that is cold, as each of them is.
        fetch_seconds: Fetch of the source, by the coordinator and for each run of segments.
        fixed_seconds: Time before the first frame of a run, for example to load a network.
        frame_seconds: Time of one frame on a worker, whose cores are all in use.
        at_once: Number of segments that a worker renders at once.
        verify_seconds: Join and check of the output.
        publish_seconds: Publication of the output.
        worker: Resources of a worker.
        worker_usd: Price of a worker in US dollars per second.
        coordinator_usd: Price of the coordinator in US dollars per second.
        source: Basis of the figures, as text.
    """

    grid: Sequence[Segment]
    start_seconds: float
    fetch_seconds: float
    fixed_seconds: float
    frame_seconds: float
    verify_seconds: float
    publish_seconds: float
    worker: FunctionSpec
    worker_usd: float
    coordinator_usd: float
    source: str
    at_once: int = 1

    @classmethod
    def of(
        cls,
        grid: Sequence[Segment],
        plan: ProgressPlan,
        shortest: ProgressPlan,
        *,
        worker: FunctionSpec,
        worker_usd: float,
        coordinator_usd: float,
        at_once: int = 1,
    ) -> Self:
        """Return the figures that follow from the plans of two jobs on one machine like a worker.

        Args:
            grid: The segments of the output, of at least two frames.
            plan: Plan of the job, with a cold start.
            shortest: Plan of a job with one frame; the difference is the time of the other frames.
            worker: See `SegmentedJob`.
            worker_usd: See `SegmentedJob`.
            coordinator_usd: See `SegmentedJob`.
            at_once: See `SegmentedJob`.
        """
        frames = sum(segment.frames for segment in grid)
        fetch, verify, publish = (_seconds_of(name, plan) for name in _AROUND)
        rendering = plan.processing_seconds - fetch - verify - publish
        least = shortest.processing_seconds - sum(_seconds_of(name, shortest) for name in _AROUND)
        frame_seconds = max(0.0, rendering - least) / (frames - 1)
        return cls(
            grid=grid,
            start_seconds=plan.startup_seconds,
            fetch_seconds=fetch,
            fixed_seconds=max(0.0, rendering - frame_seconds * frames),
            frame_seconds=frame_seconds,
            verify_seconds=verify,
            publish_seconds=publish,
            worker=worker,
            worker_usd=worker_usd,
            coordinator_usd=coordinator_usd,
            source=plan.source,
            at_once=at_once,
        )

    def calls(self, workers: int) -> list[float]:
        """Return the seconds of the call of each run of segments, in the order in which they are started."""
        before_first_frame = self.fetch_seconds + self.fixed_seconds
        runs = segment_runs(self.grid, workers, self.at_once)
        return [before_first_frame + self._frames_of(run) * self.frame_seconds for run in runs]

    def _frames_of(self, run: Segment) -> float:
        """Return the number of frames that a worker whose cores are all in use renders in the time of `run`."""
        if self.at_once == 1:
            return run.frames
        first, end = (bisect_left(self.grid, edge, key=lambda one: one.first) for edge in (run.first, run.end))
        return self.at_once * longest_load([one.frames for one in self.grid[first:end]], self.at_once)

    def row(self, workers: int) -> WorkerRow:
        """Return the row of `workers` machines, 2 or more."""
        calls, idle_seconds = self.calls(workers), self.worker.scaledown_window_seconds
        phases = {
            "startup": self.start_seconds,
            "fetch": self.fetch_seconds,
            "render": self.start_seconds + longest_load(calls, workers),
            "verify": self.verify_seconds,
            "publish": self.publish_seconds,
        }
        # Each container starts once, and waits for another call before it ends; Modal bills both.
        worker_seconds = workers * (self.start_seconds + idle_seconds) + sum(calls)
        coordinator_seconds = sum(phases.values()) + idle_seconds
        return WorkerRow(
            workers=workers,
            dollars=self.worker_usd * worker_seconds + self.coordinator_usd * coordinator_seconds,
            call_seconds=max(calls),
            timeout_seconds=self.worker.timeout_seconds,
            gpu=place_of(self.worker),
            phases=phases,
            source=f"{self.source}; predicted for {workers} machines",
        )


def _seconds_of(name: str, plan: ProgressPlan) -> float:
    return sum(phase.seconds for phase in plan.work if phase.name == name)


def place_of(spec: FunctionSpec) -> str:
    """Return the name under which the timings of a function on Modal are recorded: its GPU types, or `cpu`."""
    return ",".join(spec.gpu) or "cpu"


def price_of(spec: FunctionSpec, rates: Rates, *, in_region: bool = False) -> float:
    """Return the price of a function's container in US dollars per second, with the first of its GPU types."""
    gpu = next(iter(spec.gpu), None)
    return rates.usd_per_second(gpu=gpu, cpu=spec.cpu, memory_mb=spec.memory_mb, in_region=in_region)


def rows_of(one: WorkerRow, job: SegmentedJob | None) -> tuple[WorkerRow, ...]:
    """Return the rows of a job: for one machine, and up to as many as its workers may be and can share segments.

    Args:
        one: The row of one machine.
        job: Its figures on several machines; None if its output is rendered in one piece.
    """
    if job is None:
        return (one,)
    most = min(-(-len(job.grid) // job.at_once), job.worker.max_containers)
    return (one, *(job.row(workers) for workers in range(2, most + 1)))


def longest_load(calls: Sequence[float], workers: int) -> float:
    """Return the longest time for which one worker is busy if each takes the next call that is left.

    Args:
        calls: Time of each call, in the order in which they are started.
        workers: Number of workers.
    """
    loads = [0.0] * workers
    for seconds in calls:
        heapq.heapreplace(loads, loads[0] + seconds)
    return max(loads)
