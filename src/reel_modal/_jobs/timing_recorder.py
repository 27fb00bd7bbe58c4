"""Plan and record the timings of one function's jobs.

`Job` knows no timings, and `TimingHistory` knows no jobs; this module connects them. A timings file that does not
answer within a second is skipped with a warning, so that it does not delay the job.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from reel_modal._jobs.estimates import Estimate
from reel_modal._progress.history import JobTiming, TimingHistory
from reel_modal._progress.timing_model import LOCAL, JobModel
from reel_modal._support.threads import run_in_thread
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.resources import Resources
from reel_modal.progress import ProgressPlan
from reel_modal.schema.results import RenderResult, Result

__all__ = ["TimingRecorder", "measured_model"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 1.0


class TimingRecorder:
    """Timings of one function on one GPU.

    Args:
        history: Stores the timings.
        function: The function.
        gpu: GPU under which they are stored: `T4`, `cpu` for a container without a GPU, `local` for this machine.
    """

    def __init__(self, history: TimingHistory, function: AnyFunction, gpu: str) -> None:
        self._history = history
        self._function = function
        self._gpu = gpu

    def on(self, resources: Resources | None) -> TimingRecorder | None:
        """Return the recorder of jobs with other resources; None if their timings would not be comparable."""
        if resources is None or self._gpu == LOCAL:
            return self
        if resources.changes_speed:
            return None
        return self if resources.gpu is None else TimingRecorder(self._history, self._function, resources.gpu)

    async def plan(self) -> ProgressPlan | None:
        """Return the plan of the next job; None if the history fails or does not answer in time.

        Cancellation: ends the wait.
        """
        # On this machine, a worker process is started for each job.
        cold = True if self._gpu == LOCAL else None
        name, published = self._function.name, self._function.published
        return await self._in_time(partial(self._history.plan, name, gpu=self._gpu, cold=cold, published=published))

    async def record(self, result: Result, seconds: float, expected: Estimate | None) -> None:
        """Record a job that has just finished, `seconds` after it could have started.

        A job on several machines is not recorded: its times are not those of a job on one machine.

        Args:
            result: Result of the job.
            seconds: Its duration, without the time in the queue.
            expected: Its estimate, which says how much work it was if its result does not.

        Cancellation: ends only the wait; the job is still recorded.
        """
        if expected is not None and expected.workers > 1:
            return
        startup = max(seconds - sum(result.seconds_by_phase.values()), 0.0)
        cold = True if self._gpu == LOCAL else result.cold_start
        if isinstance(result, RenderResult):
            model = measured_model(result, expected)
            learn = partial(
                self._history.learn, result, gpu=self._gpu, startup_seconds=startup, cold=cold, model=model
            )
        elif expected is not None and sum(result.seconds_by_phase.values()) > 0:
            timing = JobTiming(
                function=self._function.name,
                gpu=self._gpu,
                size=expected.size,
                frames=max(1, expected.frames_rendered),
                startup_seconds=startup,
                seconds_by_phase=result.seconds_by_phase,
                cold=cold,
                model=expected.model,
            )
            learn = partial(self._history.record, timing)
        else:
            return
        await self._in_time(learn)

    async def _in_time(self, work: Callable[[], T]) -> T | None:
        try:
            return await run_in_thread(work, _PATIENCE_SECONDS, purpose=f"access to {self._history.path}")
        except Exception:  # noqa: BLE001 - a job must not fail because of its timings
            _log.exception("the timings in %s could not be used", self._history.path)
            return None


def measured_model(result: RenderResult, expected: Estimate | None) -> JobModel | None:
    """Return the expectation of the cost model for the frames and bytes of a finished job; None without one.

    Args:
        result: Result of the job.
        expected: Its estimate.
    """
    if expected is None or expected.model is None:
        return None
    rendered = result.frames - result.frames_copied
    share = rendered / expected.frames_rendered if rendered > 0 and expected.frames_rendered > 0 else 1.0
    usage = result.usage
    return replace(
        expected.model,
        render_seconds=expected.model.render_seconds * share,
        bytes_in=usage.bytes_in if usage is not None and usage.bytes_in > 0 else expected.model.bytes_in,
        bytes_out=result.bytes,
    )
