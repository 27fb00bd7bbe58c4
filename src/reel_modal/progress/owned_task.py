"""A task that never outlives the object that started it.

It must know nothing of progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["OwnedTask"]

T = TypeVar("T")


class OwnedTask(Generic[T]):
    """Runs `awaitable` in a task that is cancelled when the last reference to this object goes.

    A consumer that breaks out of `async for` drops the iterator without a word; the event loop closes a dropped
    generator only later, and nobody cancels what a generator has started. Here the drop itself cancels. So nothing
    that runs inside the task may refer to the owner.
    """

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = asyncio.ensure_future(awaitable)

    async def cancel(self) -> None:
        """Cancel the task and return when it has come to its end.

        Cancellation: ends the wait, not the cancelling.
        """
        if self._loop.is_closed():
            return  # nothing can be awaited there any more
        if self.future.cancel():
            await asyncio.wait({self.future})
        if not self.future.cancelled():
            self.future.exception()  # whoever cancels does not ask for the outcome

    def __del__(self) -> None:
        if not hasattr(self, "future") or self.future.done() or self._loop.is_closed():
            return
        if _running_loop() is self._loop:
            self.future.cancel()
        else:  # the garbage collector runs in any thread
            with suppress(RuntimeError):  # the loop was closed just now
                self._loop.call_soon_threadsafe(self.future.cancel)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
