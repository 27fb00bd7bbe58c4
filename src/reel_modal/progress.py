"""Progress of a job: `ProgressSimulator` follows a plan; `track` and `track_call` follow one awaitable or call.

This module also exports the public names of `reel_modal._progress`, such as `progress_of` for measured events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Literal, Self, TypeVar

from reel_modal._progress.estimator import ProgressBlender
from reel_modal._progress.events import ProgressEvent
from reel_modal._progress.history import JobTiming, TimingHistory, TimingSummary
from reel_modal._progress.plan import Curve, PlannedPhase, ProgressPlan, WorkPhase, asymptotic, linear_with_cap
from reel_modal._progress.saving import SavingStage, failure_of
from reel_modal._progress.simulation import DEFAULT_INTERVAL_SECONDS, DEFAULT_PLAN, SimulatedProgress, check_interval
from reel_modal._progress.stream import ProgressListener, progress_of
from reel_modal._progress.timing_model import JobModel, Line, PublishedTimings, StartupEstimate
from reel_modal._progress.updates import ProgressUpdate, WorkDone, describe, time_left
from reel_modal._support.clock import SYSTEM_CLOCK, Clock, ManualClock, SystemClock, wait_for_tick
from reel_modal._support.portal import run_in_this_thread
from reel_modal._support.tasks import OwnedTask
from reel_modal.errors import ReelModalError

__all__ = [
    "Clock",
    "Curve",
    "JobModel",
    "JobTiming",
    "Line",
    "ManualClock",
    "PlannedPhase",
    "ProgressBlender",
    "ProgressEvent",
    "ProgressListener",
    "ProgressPlan",
    "ProgressSimulator",
    "ProgressUpdate",
    "PublishedTimings",
    "StartupEstimate",
    "SystemClock",
    "TimingHistory",
    "TimingSummary",
    "Tracking",
    "WorkDone",
    "WorkPhase",
    "asymptotic",
    "describe",
    "linear_with_cap",
    "progress_of",
    "time_left",
    "track",
    "track_call",
]

T = TypeVar("T")


class ProgressSimulator(AsyncIterator[ProgressUpdate]):
    """Endless stream of updates computed from a plan alone, for work that reports no progress.

    It sleeps only while the consumer awaits the next update and owns no task, so the consumer can simply stop. The
    first update comes immediately and is the plan's first row.

    Args:
        plan: The expected phases. Default: the table of the first apps on Modal.
        curve: Progress within the last phase, instead of the plan's own curve.
        clock: Time source; use a `ManualClock` in tests.
        interval_seconds: Time between two updates, above 0. Two updates per second keep a progress bar moving.

    Raises:
        ConfigError: The interval is not above 0.

    Cancellation: ends the wait for the next update; the stream can be used afterwards.

    Example:
        >>> async def show() -> None:
        ...     async for update in ProgressSimulator(interval_seconds=0.01):
        ...         print(update.percent, update.message)
        ...         break
        >>> asyncio.run(show())
        5 Sending the video...
    """

    __slots__ = ("_clock", "_closed", "_curve", "_interval_seconds", "_plan", "_progress")

    def __init__(
        self,
        plan: ProgressPlan | None = None,
        *,
        curve: Curve | None = None,
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
        """End the stream, for `contextlib.aclosing`; there are no resources to release."""
        self._closed = True

    async def __anext__(self) -> ProgressUpdate:
        if self._closed:
            raise StopAsyncIteration
        if self._progress is None:
            # The time starts with the first update, not with the construction.
            now = self._clock.monotonic()
            self._progress = SimulatedProgress(self._plan, self._curve, started_at=now)
            return self._progress.next(now)
        await self._clock.sleep(self._interval_seconds)
        return self._progress.next(self._clock.monotonic())


def track(
    awaitable: Awaitable[T],
    *,
    save: Callable[[T], Awaitable[object]] | None = None,
    plan: ProgressPlan | None = None,
    curve: Curve | None = None,
    clock: Clock = SYSTEM_CLOCK,
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
) -> Tracking[T]:
    """Run `awaitable` and return its updates: simulated from the plan while it runs, then saving, then complete.

    Args:
        awaitable: The work; it starts when the first update is requested.
        save: Stores the result between the updates `saving` and `complete`, so that "complete" is not shown before
            the result is durable.
        plan: The expected phases. Default: the table of the first apps on Modal.
        curve: Progress within the last phase, instead of the plan's own curve.
        clock: Time source; use a `ManualClock` in tests.
        interval_seconds: Time between two updates, above 0.

    Returns:
        An asynchronous iterator; after its last update, `.result` is the awaitable's result. If the work or the
        saving fails, the iterator yields one `error` update and then raises the exception.

    Raises:
        ConfigError: The interval is not above 0.

    Cancellation: cancelling the consumer, `aclose()`, or dropping the iterator cancels the awaitable too.

    Example:
        >>> async def export() -> str:
        ...     updates = track(asyncio.sleep(0, result="reel.mp4"))
        ...     async for update in updates:
        ...         print(update.percent, update.message)
        ...     return updates.result
        >>> asyncio.run(export())
        5 Sending the video...
        95 Saving the result...
        100 Done.
        'reel.mp4'
    """
    return Tracking(
        awaitable,
        save=save,
        plan=plan or DEFAULT_PLAN,
        curve=curve,
        clock=clock,
        interval_seconds=interval_seconds,
    )


def track_call(
    function: Callable[[], T],
    on_update: Callable[[ProgressUpdate], object],
    *,
    plan: ProgressPlan | None = None,
    curve: Curve | None = None,
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
) -> T:
    """Call the blocking `function` and return its result; for hosts without an event loop.

    Args:
        function: The work; it runs in a separate thread.
        on_update: Called with each update, in the caller's thread. Its exceptions propagate after `function` has
            ended.
        plan: The expected phases. Default: the table of the first apps on Modal.
        curve: Progress within the last phase, instead of the plan's own curve.
        interval_seconds: Time between two updates, above 0.

    Raises:
        BlockingCallError: An event loop runs in this thread; use `track` instead.
        Exception: `function` raised it; the `error` update comes first.

    Example:
        >>> track_call(lambda: 6 * 7, lambda update: print(update.status))
        processing
        processing
        complete
        42
    """

    async def run() -> T:
        updates = track(asyncio.to_thread(function), plan=plan, curve=curve, interval_seconds=interval_seconds)
        async for update in updates:
            on_update(update)
        return updates.result

    return run_in_this_thread(run())


class Tracking(AsyncIterator[ProgressUpdate], Generic[T]):
    """Updates and result of one awaitable; returned by `track`."""

    def __init__(
        self,
        awaitable: Awaitable[T],
        *,
        save: Callable[[T], Awaitable[object]] | None,
        plan: ProgressPlan,
        curve: Curve | None,
        clock: Clock,
        interval_seconds: float,
    ) -> None:
        self._awaitable = awaitable
        self._save = save
        self._plan = plan
        self._curve = curve
        self._clock = clock
        self._interval_seconds = check_interval(interval_seconds)
        self._stage: Literal["new", "working", "saving", "ended"] = "new"
        self._progress: SimulatedProgress
        self._working: OwnedTask[T]
        self._saving: SavingStage[T]
        self._error: BaseException | None = None
        self._result: tuple[T] | None = None

    @property
    def result(self) -> T:
        """Result of the awaitable.

        Raises:
            ReelModalError: The `complete` update has not been reached, so the result is not available.
        """
        if self._result is None:
            raise ReelModalError("no result yet: the tracked work has not reached its complete update")
        return self._result[0]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProgressUpdate:
        try:
            return await self._next()
        except asyncio.CancelledError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End the stream: cancel the running work and wait until it has ended.

        Cancellation: ends the wait; the work stays cancelled.
        """
        stage, self._stage = self._stage, "ended"
        if stage == "new":
            await _discard(self._awaitable)
        elif stage == "working":
            await self._working.cancel()
        elif stage == "saving":
            await self._saving.cancel()

    async def _next(self) -> ProgressUpdate:
        if self._stage == "new":
            return self._begin()
        if self._stage == "working":
            await wait_for_tick(self._clock, self._interval_seconds, self._working.future)
            return self._after_work()
        if self._stage == "saving":
            await self._saving.wait(self._clock, self._interval_seconds)
            return self._after_saving()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopAsyncIteration

    def _begin(self) -> ProgressUpdate:
        now = self._clock.monotonic()
        self._working = OwnedTask(self._awaitable)
        self._progress = SimulatedProgress(self._plan, self._curve, started_at=now)
        self._stage = "working"
        return self._progress.next(now)

    def _after_work(self) -> ProgressUpdate:
        now, future = self._clock.monotonic(), self._working.future
        if not future.done():
            return self._progress.next(now)
        if (error := failure_of(future, "the tracked work was cancelled")) is not None:
            self._stage, self._error = "ended", error
            return self._progress.fail(error, now)
        self._stage = "saving"
        self._saving = SavingStage(self._save, future.result(), self._progress)
        return self._progress.saving(now)

    def _after_saving(self) -> ProgressUpdate:
        update = self._saving.look(self._clock.monotonic())
        if update.ended:
            self._stage, self._error = "ended", self._saving.error
            if self._error is None:
                self._result = (self._working.future.result(),)
        return update


async def _discard(awaitable: Awaitable[object]) -> None:
    """Close or cancel an awaitable that was never awaited."""
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
    elif asyncio.isfuture(awaitable):
        await OwnedTask(awaitable).cancel()
