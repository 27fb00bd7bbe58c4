"""The last stage of a progress bar: the result is saved after the work, and only then is the job complete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from reel_modal._progress.updates import ProgressUpdate
from reel_modal._support.clock import Clock, wait_for_tick
from reel_modal._support.tasks import OwnedTask

__all__ = ["SavingStage", "failure_of"]

T = TypeVar("T")


class ClosingUpdates(Protocol):
    """The updates after the work, from a plan or from measurements."""

    def saving(self, now: float) -> ProgressUpdate:
        """Return an update of the saving row."""
        ...

    def finish(self, now: float) -> ProgressUpdate:
        """Return the last update of a job that succeeded."""
        ...

    def fail(self, error: BaseException, now: float) -> ProgressUpdate:
        """Return the last update of a job that failed."""
        ...


class SavingStage(Generic[T]):
    """Save `result` in a task and return the updates until that has ended.

    The task ends when this object is dropped, so it must not be referenced by `save`.

    Args:
        save: Saves the result; None saves nothing.
        result: Result of the work.
        updates: Source of the updates.
    """

    def __init__(self, save: Callable[[T], Awaitable[object]] | None, result: T, updates: ClosingUpdates) -> None:
        self._updates = updates
        self._task = None if save is None else OwnedTask(_called(save, result))
        self.error: BaseException | None = None

    async def wait(self, clock: Clock, seconds: float) -> None:
        """Return when the save has ended, or after `seconds`; return at once if nothing is saved.

        Cancellation: ends only the wait.
        """
        if self._task is not None:
            await wait_for_tick(clock, seconds, self._task.future)

    def look(self, now: float) -> ProgressUpdate:
        """Return `saving` until the save has ended, then `complete`, or `error` and set the attribute `error`."""
        if self._task is not None:
            if not self._task.future.done():
                return self._updates.saving(now)
            self.error = failure_of(self._task.future, "saving was cancelled")
        return self._updates.finish(now) if self.error is None else self._updates.fail(self.error, now)

    async def cancel(self) -> None:
        """Cancel the save and return when it has ended.

        Cancellation: ends only the wait; the save is still cancelled.
        """
        if self._task is not None:
            await self._task.cancel()


def failure_of(future: asyncio.Future[T], cancelled_message: str) -> BaseException | None:
    """Return the exception of `future`, or a CancelledError if it was cancelled; None if it has a result."""
    return asyncio.CancelledError(cancelled_message) if future.cancelled() else future.exception()


async def _called(save: Callable[[T], Awaitable[object]], result: T) -> None:
    """Call `save` inside the task, so that an error raised by the call itself is an error of the save."""
    await save(result)
