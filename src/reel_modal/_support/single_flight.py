"""One shared attempt for concurrent callers, across tasks, threads and event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["SingleFlight"]

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """A value that is created once, on first use, and kept; a failure is raised in all waiting callers and not kept.

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
        self._value: T | None = None

    async def get(self, make: Callable[[], Awaitable[T]]) -> T:
        """Return the value; the first caller awaits `make()`.

        Raises:
            Exception: `make` raised it; the next caller tries again.

        Cancellation: if the caller that runs `make` is cancelled, another waiting caller takes over the attempt. If
            another caller is cancelled, only its wait ends.
        """
        if (value := self._value) is not None:
            return value
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
        """Whether there is no value and none is being created."""
        return self._future is None

    @property
    def value(self) -> T | None:
        """The value; None if it has not been created."""
        return self._value

    def forget(self, value: T) -> None:
        """Discard the value, so that the next call creates a new one, unless another value has replaced `value`.

        If many callers find the same value stale, the first one creates a new value and the others get it.
        """
        with self._lock:
            if self._value is value:
                self._future = self._value = None

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
        self._value = value
        future.set_result(value)
        return value
