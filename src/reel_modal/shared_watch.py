"""One watch on a job for all its listeners: however many there are, its events are read and its end is awaited once.

It must not know what is shown of them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Final, Generic, TypeVar

from reel_modal.backends.events import EventLog
from reel_modal.errors import AuthError, JobNotFoundError, UnavailableError
from reel_modal.progress.clocks import Clock
from reel_modal.progress.events import ProgressEvent
from reel_modal.progress.owned_task import OwnedTask

__all__ = ["SharedWatch"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_BACKOFF_SECONDS: Final = 1.0

Events = Callable[[], AsyncGenerator[ProgressEvent]]


class SharedWatch(Generic[T]):
    """Begins with the first listener of an event loop and ends with the last one; any thread may listen.

    Args:
        events: Opens the job's events, from the first on. Where they break off since nobody can be asked, they are
            opened again.
        end: Waits for the end of the job.
        clock: Where the time comes from.
    """

    def __init__(self, events: Events, end: Callable[[], Coroutine[object, object, T]], clock: Clock) -> None:
        self._events = events
        self._end = end
        self._clock = clock
        self._lock = threading.Lock()
        self._watches: dict[asyncio.AbstractEventLoop, _Watch[T]] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[tuple[AsyncGenerator[ProgressEvent], asyncio.Future[T]]]:
        """Give one listener the events, from the first on, and the end.

        Cancellation: ends this listener alone.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            for closed in [other for other in self._watches if other.is_closed()]:
                del self._watches[closed]  # nobody there can leave any more
            watch = self._watches.get(loop)
            if watch is None:
                watch = self._watches[loop] = _Watch(self._events, self._end, self._clock)
            watch.listeners += 1
        try:
            async with aclosing(watch.log.follow()) as events:
                yield events, watch.end.future
        finally:
            with self._lock:
                watch.listeners -= 1
                if last := watch.listeners == 0:
                    self._watches.pop(loop, None)
            if last:
                await watch.stop()


class _Watch(Generic[T]):
    def __init__(self, events: Events, end: Callable[[], Coroutine[object, object, T]], clock: Clock) -> None:
        self.log = EventLog()
        self.listeners = 0
        self.end = OwnedTask(end())
        self._reading = OwnedTask(_read(events, self.log, clock))

    async def stop(self) -> None:
        """Return when nothing of it runs any more."""
        await self._reading.cancel()
        await self.end.cancel()


async def _read(open_events: Events, log: EventLog, clock: Clock) -> None:
    warned_at = -1
    try:
        while True:
            try:
                await _read_on(open_events, log)
            except JobNotFoundError:
                raise
            except (UnavailableError, AuthError) as error:
                if len(log) != warned_at:  # once for each time that they break off
                    _log.warning("the events of a job cannot be read for now: %s", error)
                warned_at = len(log)
                await clock.sleep(_BACKOFF_SECONDS)
            else:
                return
    except Exception:  # noqa: BLE001 - whatever a backend raises here, the job goes on
        # Whose events break off is no failed job; its own end says how it went.
        _log.exception("the events of a job broke off; its progress goes on without them")
    finally:
        log.close()


async def _read_on(open_events: Events, log: EventLog) -> None:
    known = len(log)
    async with aclosing(open_events()) as events:
        async for event in events:
            if known > 0:
                known -= 1
            else:
                log.add(event)
