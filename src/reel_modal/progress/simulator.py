"""Progress of a job that says nothing of itself: the plan, played against the clock.

It must know neither jobs nor events.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Final, Self

from reel_modal.errors import ConfigError, JobCancelledError, RemoteError
from reel_modal.progress.clocks import SYSTEM_CLOCK, Clock
from reel_modal.progress.plan import Curve, ProgressPlan, asymptotic
from reel_modal.progress.updates import ProgressUpdate, Status

__all__ = [
    "DEFAULT_INTERVAL_SECONDS",
    "DEFAULT_PLAN",
    "ProgressSimulator",
    "SimulatedProgress",
    "check_interval",
    "failure_message",
]

DEFAULT_INTERVAL_SECONDS: Final = 0.5
DEFAULT_PLAN: Final = ProgressPlan.default()


class SimulatedProgress:
    """The plan as a sequence of updates that never goes back, whatever the clock does; pure and synchronous.

    Args:
        plan: What is expected.
        curve: How the last phase fills.
        started_at: The clock's reading when the job began.
    """

    __slots__ = ("_curve", "_elapsed", "_expected_seconds", "_highest", "_plan", "_sequence", "_started_at")

    def __init__(self, plan: ProgressPlan, curve: Curve, *, started_at: float) -> None:
        self._plan = plan
        self._curve = curve
        self._started_at = started_at
        self._expected_seconds = plan.startup_seconds + plan.processing_seconds
        self._elapsed = 0.0
        self._highest = 0.0
        self._sequence = 0

    def next(self, now: float) -> ProgressUpdate:
        """Return what to show at `now`; the first time it is the plan's first row, whatever the time."""
        self._move_to(now)
        if self._sequence == 1:
            phase, percent = self._plan.phases[0], self._plan.phases[0].start
        else:
            phase, percent = self._plan.at(self._elapsed, self._curve)
        self._highest = max(self._highest, percent)
        left = self._expected_seconds - self._elapsed
        # By position: this is the one line that runs twice a second for every job of a host.
        return ProgressUpdate(
            self._highest,
            phase.message,
            "processing",
            phase.name,
            "simulated",
            self._elapsed,
            left if left > 0 else None,  # later than the plan: nobody knows
            self._sequence,
        )

    def saving(self, now: float) -> ProgressUpdate:
        """Return the update of the plan's saving row: the work is done."""
        saving = self._plan.saving
        self._highest = saving.start  # a plan sees to it that this is no way back
        return self._closing(now, saving.message, "processing", saving.name, saving.seconds)

    def complete(self, now: float) -> ProgressUpdate:
        """Return the last update of a job that went well."""
        self._highest = 100.0
        return self._closing(now, self._plan.complete_message, "complete", "complete", 0.0)

    def failed(self, now: float, error: BaseException) -> ProgressUpdate:
        """Return the last update of a job that did not."""
        return self._closing(now, failure_message(error, self._plan), "error", "error", None)

    def _move_to(self, now: float) -> None:
        elapsed = now - self._started_at
        self._elapsed = max(self._elapsed, elapsed)
        self._sequence += 1

    def _closing(self, now: float, message: str, status: Status, phase: str, eta: float | None) -> ProgressUpdate:
        self._move_to(now)
        return ProgressUpdate(self._highest, message, status, phase, "simulated", self._elapsed, eta, self._sequence)


class ProgressSimulator(AsyncIterator[ProgressUpdate]):
    """An endless stream of updates by the plan alone, for work that says nothing of itself.

    It waits between two updates only while somebody asks for the next one; it owns no task, so a consumer simply
    stops. The first update comes at once and is the plan's first row.

    Args:
        plan: What is expected; default the table of the first apps on Modal.
        curve: How the last phase fills: `asymptotic`, or `linear_with_cap` as those apps had it.
        clock: Where the time comes from; a `ManualClock` in tests.
        interval_seconds: Between two updates, above 0. Twice a second keeps a bar alive.

    Raises:
        ConfigError: The interval is not above 0.

    Cancellation: ends the wait for the next update; the stream can go on afterwards.

    Example:
        >>> async def show() -> None:
        ...     async for update in ProgressSimulator(interval_seconds=0.01):
        ...         print(update.percent, update.message)
        ...         break
        >>> asyncio.run(show())
        5 Sending to cloud GPU...
    """

    __slots__ = ("_clock", "_closed", "_curve", "_interval_seconds", "_plan", "_progress")

    def __init__(
        self,
        plan: ProgressPlan | None = None,
        *,
        curve: Curve = asymptotic,
        clock: Clock = SYSTEM_CLOCK,
        interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
    ) -> None:
        self._plan = plan or DEFAULT_PLAN
        self._curve = curve
        self._clock = clock
        self._interval_seconds = check_interval(interval_seconds)
        self._progress: SimulatedProgress | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def aclose(self) -> None:
        """End the stream, as `contextlib.aclosing` asks for; there is nothing that would run on without it."""
        self._closed = True

    async def __anext__(self) -> ProgressUpdate:
        if self._closed:
            raise StopAsyncIteration
        if self._progress is None:
            # The time runs from the first update on, not from the construction.
            now = self._clock.monotonic()
            self._progress = SimulatedProgress(self._plan, self._curve, started_at=now)
            return self._progress.next(now)
        await self._clock.sleep(self._interval_seconds)
        return self._progress.next(self._clock.monotonic())


def check_interval(seconds: float) -> float:
    """Return `seconds` when it can be an interval; raise ConfigError when not."""
    if not 0 < seconds < math.inf:
        raise ConfigError(f"interval_seconds is {seconds!r}; it must be a finite number above 0")
    return seconds


def failure_message(error: BaseException, plan: ProgressPlan) -> str:
    """Return the sentence for the person who waits; never the error's own text, which is for logs."""
    if isinstance(error, RemoteError):
        return error.user_message
    if isinstance(error, asyncio.CancelledError):
        return JobCancelledError.user_message
    return plan.failed_message
