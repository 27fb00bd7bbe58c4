"""The events of one job of this process, kept for those who listen late and handed on to those who listen now.

It must not know who makes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator

from reel_modal.progress.events import ProgressEvent

__all__ = ["EventLog"]


class EventLog:
    """A list that grows in one thread and is followed from any event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[ProgressEvent] = []
        self._closed = False
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: ProgressEvent) -> None:
        """Keep `event` and wake who listens."""
        with self._lock:
            self._events.append(event)
        self._wake()

    def close(self) -> None:
        """Say that no more come."""
        with self._lock:
            self._closed = True
        self._wake()

    async def follow(self) -> AsyncGenerator[ProgressEvent]:
        """Yield every event from the first on, until the log is closed.

        Cancellation: ends this listener alone.
        """
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiters.add(waiter)
        try:
            given = 0
            while True:
                waiter[1].clear()
                with self._lock:
                    news, closed = self._events[given:], self._closed
                for event in news:
                    yield event
                given += len(news)
                if closed:
                    return
                await waiter[1].wait()
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def _wake(self) -> None:
        with self._lock:
            for loop, event in self._waiters:
                with contextlib.suppress(RuntimeError):  # that loop is closed, and nobody listens in it
                    loop.call_soon_threadsafe(event.set)
