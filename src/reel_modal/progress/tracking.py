"""`track`: run one awaitable, and show its progress by the plan until it is done, saved and complete.

It must not know what the awaitable is: a Modal call, a job of another library, or a sleep.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Literal, Self, TypeVar

from reel_modal.blocking import run_in_this_thread
from reel_modal.errors import ReelModalError
from reel_modal.progress.clocks import SYSTEM_CLOCK, Clock, wait_for_tick
from reel_modal.progress.owned_task import OwnedTask
from reel_modal.progress.plan import Curve, ProgressPlan, asymptotic
from reel_modal.progress.simulator import DEFAULT_INTERVAL_SECONDS, DEFAULT_PLAN, SimulatedProgress, check_interval
from reel_modal.progress.updates import ProgressUpdate

__all__ = ["Tracking", "track", "track_call"]

T = TypeVar("T")


def track(
    awaitable: Awaitable[T],
    *,
    save: Callable[[T], Awaitable[object]] | None = None,
    plan: ProgressPlan | None = None,
    curve: Curve = asymptotic,
    clock: Clock = SYSTEM_CLOCK,
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
) -> Tracking[T]:
    """Run `awaitable` and return its updates: by the plan while it runs, then saving, then complete.

    Args:
        awaitable: The work; it starts with the first update that is asked for.
        save: Puts the result away, between the update `saving` and the update `complete`, so that nobody reads
            "complete" before the result is durable.
        plan: What is expected; default the table of the first apps on Modal.
        curve: How the work's phase fills.
        clock: Where the time comes from; a `ManualClock` in tests.
        interval_seconds: Between two updates, above 0.

    Returns:
        An asynchronous iterator; after its last update, `.result` is what the awaitable returned. When the work
        or the saving fails, one `error` update comes, and then the exception itself.

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
        5 Sending to cloud GPU...
        95 Saving to library...
        100 Export complete!
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
    curve: Curve = asymptotic,
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
) -> T:
    """Call the blocking `function` and return its result; for hosts without an event loop.

    Args:
        function: Runs in a thread of its own.
        on_update: Gets each update, in the caller's thread; an exception of it passes on once `function` has ended.
        plan: What is expected; default the table of the first apps on Modal.
        curve: How the work's phase fills.
        interval_seconds: Between two updates, above 0.

    Raises:
        BlockingCallError: An event loop runs in this thread; `track` is for that.
        Exception: What `function` raises, after its `error` update.

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
    """The updates of one awaitable, and its result; `track` makes it."""

    def __init__(
        self,
        awaitable: Awaitable[T],
        *,
        save: Callable[[T], Awaitable[object]] | None,
        plan: ProgressPlan,
        curve: Curve,
        clock: Clock,
        interval_seconds: float,
    ) -> None:
        self._awaitable = awaitable
        self._save = save
        self._plan = plan
        self._curve = curve
        self._clock = clock
        self._interval_seconds = check_interval(interval_seconds)
        self._stage: Literal["new", "working", "saving", "failed", "ended"] = "new"
        self._progress: SimulatedProgress
        self._working: OwnedTask[T]
        self._saving: OwnedTask[None] | None = None
        self._error: BaseException | None = None
        self._result: tuple[T] | None = None

    @property
    def result(self) -> T:
        """What the awaitable returned.

        Raises:
            ReelModalError: The last update was not `complete`, so there is no result (yet).
        """
        if self._result is None:
            raise ReelModalError("there is no result: the tracked work has not come to its complete update")
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
        """End the stream: cancel what still runs and return when it has come to its end.

        Cancellation: ends the wait, not the cancelling.
        """
        stage, self._stage = self._stage, "ended"
        if stage == "new":
            await _discard(self._awaitable)
        elif stage == "working":
            await self._working.cancel()
        elif stage == "saving" and self._saving is not None:
            await self._saving.cancel()

    async def _next(self) -> ProgressUpdate:
        if self._stage == "new":
            return self._begin()
        if self._stage == "working":
            await wait_for_tick(self._clock, self._interval_seconds, self._working.future)
            return self._after_work()
        if self._stage == "saving":
            if self._saving is not None:
                await wait_for_tick(self._clock, self._interval_seconds, self._saving.future)
            return self._after_saving()
        error, self._error, self._stage = self._error, None, "ended"
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
        if (error := _failure(future)) is not None:
            return self._failed(error, now)
        self._stage = "saving"
        if self._save is not None:
            self._saving = OwnedTask(_call(self._save, future.result()))
        return self._progress.saving(now)

    def _after_saving(self) -> ProgressUpdate:
        now = self._clock.monotonic()
        if self._saving is not None:
            if not self._saving.future.done():
                return self._progress.saving(now)
            if (error := _failure(self._saving.future)) is not None:
                return self._failed(error, now)
        self._stage = "ended"
        self._result = (self._working.future.result(),)
        return self._progress.complete(now)

    def _failed(self, error: BaseException, now: float) -> ProgressUpdate:
        self._stage, self._error = "failed", error
        return self._progress.failed(now, error)


async def _discard(awaitable: Awaitable[object]) -> None:
    """Make sure that `awaitable`, which nobody asked for yet, does not run on."""
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
    elif asyncio.isfuture(awaitable):
        await OwnedTask(awaitable).cancel()


async def _call(save: Callable[[T], Awaitable[object]], value: T) -> None:
    await save(value)


def _failure(future: asyncio.Future[T]) -> BaseException | None:
    """Return what ended `future`, its cancellation included; None when it has a result."""
    return asyncio.CancelledError("the tracked work was cancelled") if future.cancelled() else future.exception()
