"""A task that never outlives the object that started it, and a task whose outcome no caller needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from reel_modal._support.background import LET_GO_SECONDS

__all__ = ["OwnedTask", "consume_exception"]

T = TypeVar("T")


class OwnedTask(Generic[T]):
    """A task that is cancelled when the last reference to this object is dropped.

    A consumer that breaks out of `async for` drops the iterator without closing it. The event loop closes a dropped
    generator only later, and nothing cancels the tasks that the generator has started. Here the drop itself cancels
    the task. Code that runs inside the task must not hold a reference to the owner, which would prevent the drop.
    """

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = asyncio.ensure_future(awaitable)

    async def cancel(self) -> None:
        """Cancel the task and return when it has ended, or after half a second if it has not.

        Modal's client may miss the cancellation of a request, and would then continue it.

        Cancellation: ends only the wait; the task is still cancelled.
        """
        if self._loop.is_closed():
            return  # nothing can be awaited on a closed loop
        if self.future.done():
            consume_exception(self.future)
            return
        self.future.add_done_callback(consume_exception)
        self.future.cancel()
        await asyncio.wait({self.future}, timeout=LET_GO_SECONDS)

    def __del__(self) -> None:
        if not hasattr(self, "future") or self.future.done() or self._loop.is_closed():
            return
        if _running_loop() is self._loop:
            self.future.cancel()
        else:  # the garbage collector may run in any thread
            with suppress(RuntimeError):  # the loop was closed just now
                self._loop.call_soon_threadsafe(self.future.cancel)


def consume_exception(task: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a task that has ended and that no caller awaits (avoids "was never retrieved")."""
    if not task.cancelled():
        task.exception()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
