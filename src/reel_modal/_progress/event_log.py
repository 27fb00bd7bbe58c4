"""Events of one job of this process: stored, and followed by any number of listeners."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator

from reel_modal._progress.events import ProgressEvent

__all__ = ["EventLog"]


class EventLog:
    """A list of events that one thread appends to and that any event loop can follow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[ProgressEvent] = []
        self._closed = False
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: ProgressEvent) -> None:
        """Append `event` and wake the listeners."""
        with self._lock:
            self._events.append(event)
        self._wake()

    def close(self) -> None:
        """Mark the log as complete: no more events will come."""
        with self._lock:
            self._closed = True
        self._wake()

    async def follow(self) -> AsyncGenerator[ProgressEvent]:
        """Yield every event from the first on, until the log is closed.

        Cancellation: ends only this listener.
        """
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiters.add(waiter)
        try:
            yielded = 0
            while True:
                waiter[1].clear()
                with self._lock:
                    new_events, closed = self._events[yielded:], self._closed
                for event in new_events:
                    yield event
                yielded += len(new_events)
                if closed:
                    return
                await waiter[1].wait()
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _wake(self) -> None:
        with self._lock:
            for loop, event in self._waiters:
                with contextlib.suppress(RuntimeError):  # that loop is closed, so it has no listeners
                    loop.call_soon_threadsafe(event.set)
