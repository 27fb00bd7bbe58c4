"""One attempt for all who ask at the same time, across tasks, threads and event loops.

It must not know what is attempted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["SingleFlight"]

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """A value that is made once, on first use, and kept; a failure is told to all who waited, and forgotten.

    Example:
        >>> flight = SingleFlight()
        >>> async def make() -> int:
        ...     return 42
        >>> asyncio.run(flight.get(make))
        42
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._future: Future[T] | None = None

    async def get(self, make: Callable[[], Awaitable[T]]) -> T:
        """Return the value, awaiting `make()` in the first of those who ask.

        Raises:
            Exception: What `make` raised; the next who asks tries again.

        Cancellation: of the one whose `make` runs, hands the attempt to another who waits; of the others, ends
            their wait.
        """
        while True:
            with self._lock:
                future, leads = self._future, self._future is None
                if future is None:
                    future = self._future = Future()
            if leads:
                return await self._lead(future, make)
            if future.done() and not future.cancelled():
                return future.result()
            try:
                return await asyncio.shield(asyncio.wrap_future(future))
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not future.cancelled() or (task is not None and task.cancelling()):
                    raise

    @property
    def empty(self) -> bool:
        """Whether there is no value and none is being made."""
        return self._future is None

    @property
    def value(self) -> T | None:
        """The value that was made, if there is one."""
        future = self._future
        return future.result() if future is not None and future.done() and not future.cancelled() else None

    def forget(self, value: T) -> None:
        """Make the value anew when it is asked for again, unless another one than `value` is there by now.

        Of many who find the same value stale, the first makes a new one, and the others get that.
        """
        with self._lock:
            if self.value is value:
                self._future = None

    async def _lead(self, future: Future[T], make: Callable[[], Awaitable[T]]) -> T:
        try:
            value = await make()
        except BaseException as error:
            with self._lock:
                self._future = None
            if isinstance(error, Exception):
                future.set_exception(error)
            else:
                future.cancel()
            raise
        future.set_result(value)
        return value
