"""One listener's stream of updates on a running job: what `Job.progress()` gives out.

It must not know the job: only its events and the future of its end, neither of which it owns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator
from typing import Generic, Self, TypeVar

from reel_modal.progress.blending import ProgressBlender
from reel_modal.progress.clocks import SYSTEM_CLOCK, Clock, wait_for_tick
from reel_modal.progress.events import ProgressEvent
from reel_modal.progress.owned_task import OwnedTask
from reel_modal.progress.plan import ProgressPlan
from reel_modal.progress.simulator import DEFAULT_INTERVAL_SECONDS, check_interval
from reel_modal.progress.updates import ProgressUpdate

__all__ = ["ProgressListener", "progress_of"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


def progress_of(
    events: AsyncIterable[ProgressEvent],
    done: asyncio.Future[T],
    *,
    started_at: float | None,
    plan: ProgressPlan | None = None,
    clock: Clock = SYSTEM_CLOCK,
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
) -> ProgressListener[T]:
    """Return the updates of a job: by its plan until the first event, then measured, at last `complete` or `error`.

    Each listener calls this for itself, with events of its own; the past ones may come first, all at once.

    Args:
        events: What the function reports. When this fails or ends, the updates go on without it, and say so.
        done: The end of the job: its output is published, or it failed. It is watched and never cancelled.
        started_at: `clock.monotonic()` of the submission; None where nobody knows.
        plan: What is expected; default the table of the first apps on Modal.
        clock: Where the time comes from; a `ManualClock` in tests.
        interval_seconds: Between two updates, above 0.

    Returns:
        An asynchronous iterator that ends after its one terminal update. It raises nothing of the job's: who wants
        the outcome awaits the job.

    Raises:
        ConfigError: The interval is not above 0.

    Cancellation: ends this listener and touches neither the job nor other listeners. So does dropping it.
    """
    blender = ProgressBlender(plan, started_at=started_at)
    return ProgressListener(blender, events, done, clock=clock, interval_seconds=interval_seconds)


class ProgressListener(AsyncIterator[ProgressUpdate], Generic[T]):
    """The updates that one listener gets; `progress_of` makes it."""

    def __init__(
        self,
        blender: ProgressBlender,
        events: AsyncIterable[ProgressEvent],
        done: asyncio.Future[T],
        *,
        clock: Clock,
        interval_seconds: float,
    ) -> None:
        self._blender = blender
        self._events = events
        self._done = done
        self._clock = clock
        self._interval_seconds = check_interval(interval_seconds)
        self._hearing: OwnedTask[None] | None = None
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ProgressUpdate:
        if self._ended:
            raise StopAsyncIteration
        try:
            await self._wait()
            update = self._look()
            if update.ended:
                await self.aclose()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        return update

    async def aclose(self) -> None:
        """End the stream, and return when nothing of it runs any more.

        Cancellation: ends the wait, not the closing.
        """
        self._ended = True
        if self._hearing is not None:
            await self._hearing.cancel()

    async def _wait(self) -> None:
        if self._hearing is not None:
            await wait_for_tick(self._clock, self._interval_seconds, self._done)
            return
        self._hearing = OwnedTask(_hear(self._events, self._blender, self._clock))
        # The past comes first: whoever attaches late starts where the job is, not where it was.
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
        return self._blender.finish(now) if error is None else self._blender.fail(error, now)


async def _hear(events: AsyncIterable[ProgressEvent], blender: ProgressBlender, clock: Clock) -> None:
    try:
        async for event in events:
            blender.feed(event, clock.monotonic())
    except Exception:  # noqa: BLE001 - whatever a backend raises here, the job goes on
        # A network that drops is no failure of the job, whose own end says how it went.
        _log.exception("the events of a job broke off; its progress goes on without them")
    blender.expect_no_events()
