"""One listener's stream of progress updates, as returned by `Job.progress()`.

It owns neither the events nor the future of the job's end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Generic, Self, TypeVar

from reel_modal._progress.estimator import ProgressBlender
from reel_modal._progress.events import ProgressEvent
from reel_modal._progress.plan import ProgressPlan
from reel_modal._progress.saving import SavingStage
from reel_modal._progress.simulation import DEFAULT_INTERVAL_SECONDS, check_interval
from reel_modal._progress.updates import ProgressUpdate
from reel_modal._support.clock import SYSTEM_CLOCK, Clock, wait_for_tick
from reel_modal._support.tasks import OwnedTask

__all__ = ["ProgressListener", "progress_of"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


def progress_of(
    events: AsyncIterable[ProgressEvent],
    done: asyncio.Future[T],
    *,
    started_at: float | None,
    save: Callable[[T], Awaitable[object]] | None = None,
    plan: ProgressPlan | None = None,
    clock: Clock = SYSTEM_CLOCK,
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
) -> ProgressListener[T]:
    """Return the updates of a job: by its plan until the first event, then measured, finally `complete` or `error`.

    Each listener calls this separately, with its own iterator of events; past events may come first, all at once.

    Args:
        events: Events that the function reports. If they end or fail, the updates continue; a failure is logged.
        done: Future of the job's end: its output is published, or it failed. It is never cancelled here.
        started_at: `clock.monotonic()` at the submission; None if unknown.
        save: Saves the result of a job that succeeded, between the update `saving` and the update `complete`.
        plan: Expected phases; default `ProgressPlan.default()`.
        clock: Clock of the updates; a `ManualClock` in tests.
        interval_seconds: Time between two updates, above 0.

    Returns:
        An asynchronous iterator that ends after its one final update. It raises no errors of the job; to get the
        outcome, await the job. If `save` fails, an `error` update comes, and then the exception is raised.

    Raises:
        ConfigError: The interval is not above 0.

    Cancellation: ends this listener, and affects neither the job nor other listeners. Dropping it does the same.
    """
    blender = ProgressBlender(plan, started_at=started_at)
    return ProgressListener(blender, events, done, save=save, clock=clock, interval_seconds=interval_seconds)


class ProgressListener(AsyncIterator[ProgressUpdate], Generic[T]):
    """The updates for one listener, created by `progress_of`."""

    def __init__(
        self,
        blender: ProgressBlender,
        events: AsyncIterable[ProgressEvent],
        done: asyncio.Future[T],
        *,
        save: Callable[[T], Awaitable[object]] | None,
        clock: Clock,
        interval_seconds: float,
    ) -> None:
        self._blender = blender
        self._events = events
        self._done = done
        self._save = save
        self._saving: SavingStage[T] | None = None
        self._error: BaseException | None = None
        self._clock = clock
        self._interval_seconds = check_interval(interval_seconds)
        self._feeding: OwnedTask[None] | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProgressUpdate:
        if self._ended:
            error, self._error = self._error, None
            if error is not None:
                raise error
            raise StopAsyncIteration
        try:
            await self._wait()
            update = self._look()
            if update.ended:
                self._error = None if self._saving is None else self._saving.error
                await self._end()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        return update

    async def aclose(self) -> None:
        """End the stream, and return when its tasks have ended.

        Cancellation: ends only the wait; the stream is still closed.
        """
        self._error = None
        await self._end()

    async def _end(self) -> None:
        self._ended = True
        if self._feeding is not None:
            await self._feeding.cancel()
        if self._saving is not None:
            await self._saving.cancel()

    async def _wait(self) -> None:
        if self._saving is not None:
            await self._saving.wait(self._clock, self._interval_seconds)
            return
        if self._feeding is not None:
            await wait_for_tick(self._clock, self._interval_seconds, self._done)
            return
        self._feeding = OwnedTask(_feed_events(self._events, self._blender, self._clock))
        # Past events come first, so that a late listener starts at the current state of the job.
        await asyncio.sleep(0)
        if not self._blender.knows_its_start:
            await wait_for_tick(self._clock, self._interval_seconds, self._done)

    def _look(self) -> ProgressUpdate:
        now = self._clock.monotonic()
        if not self._done.done():
            return self._blender.update(now)
        if self._done.cancelled():
            return self._blender.fail(asyncio.CancelledError(), now)
        error = self._done.exception()
        if error is not None:
            return self._blender.fail(error, now)
        if self._saving is None:
            self._saving = SavingStage(self._save, self._done.result(), self._blender)
        return self._saving.look(now)


async def _feed_events(events: AsyncIterable[ProgressEvent], blender: ProgressBlender, clock: Clock) -> None:
    try:
        async for event in events:
            blender.feed(event, clock.monotonic())
    except Exception:  # noqa: BLE001 - no error of a backend may end the job here
        # Lost events are not a failure of the job. `EventFanout` retries outages, so that they do not get here.
        _log.exception("the events of a job cannot be read; its progress follows the plan from here on")
    blender.no_more_events()
