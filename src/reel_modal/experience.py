"""What a host has learned of one function: the plan of its next job, and the lesson of each that has finished.

It stands between `Job`, which knows no timings, and `TimingHistory`, which knows no jobs. It must not hold a job up:
a file that does not answer is left to itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from reel_modal.backends.across_loops import run_in_thread
from reel_modal.progress import ProgressPlan
from reel_modal.progress.timing_history import TimingHistory
from reel_modal.progress.timings import HERE
from reel_modal.schema import RenderResult

__all__ = ["Experience"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 1.0


class Experience:
    """The timings of one function in one place.

    Args:
        history: Where they are kept.
        function: Such as `render_overlay`.
        gpu: Under which they are kept: such as `T4`, `cpu` for a container without one, `local` for this machine.
    """

    def __init__(self, history: TimingHistory, function: str, gpu: str) -> None:
        self._history = history
        self._function = function
        self._gpu = gpu

    async def plan(self) -> ProgressPlan | None:
        """Return what the next job is expected to take; None when the file does not answer in time.

        Cancellation: ends the wait.
        """
        # A worker process of this machine is started for each job.
        cold = True if self._gpu == HERE else None
        return await self._in_time(partial(self._history.plan, self._function, gpu=self._gpu, cold=cold))

    async def learn(self, result: RenderResult, seconds: float) -> None:
        """Remember a job that has just finished, `seconds` after it could have begun.

        Cancellation: ends the wait; the job is remembered all the same.
        """
        startup = max(seconds - sum(result.seconds_by_phase.values()), 0.0)
        cold = True if self._gpu == HERE else result.cold_start
        await self._in_time(partial(self._history.learn, result, gpu=self._gpu, startup_seconds=startup, cold=cold))

    async def _in_time(self, work: Callable[[], T]) -> T | None:
        call = await run_in_thread(work, _PATIENCE_SECONDS)
        if not call.done():
            _log.warning("the timings in %s did not answer within %g s", self._history.path, _PATIENCE_SECONDS)
            return None
        try:
            return call.result()
        except Exception:  # noqa: BLE001 - whatever it is, no job fails for its timings
            _log.exception("the timings in %s could not be used", self._history.path)
            return None
