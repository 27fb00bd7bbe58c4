"""Fan-out of one job's events and end: read once from the backend, for any number of listeners."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Final, Generic, TypeVar

from reel_modal._progress.event_log import EventLog
from reel_modal._progress.events import ProgressEvent
from reel_modal._support.clock import Clock
from reel_modal._support.tasks import OwnedTask
from reel_modal.errors import AuthError, JobNotFoundError, UnavailableError

__all__ = ["EventFanout"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_BACKOFF_SECONDS: Final = 1.0

Events = Callable[[], AsyncGenerator[ProgressEvent]]


class EventFanout(Generic[T]):
    """Fan-out that starts with the first listener of an event loop and stops with the last; any thread may listen.

    Args:
        events: Opens the job's events, from the first on. If they break off because the backend is unreachable or
            refuses the token, they are opened again.
        end: Waits for the end of the job.
        clock: Clock for the pause before a retry.
    """

    def __init__(self, events: Events, end: Callable[[], Coroutine[object, object, T]], clock: Clock) -> None:
        self._events = events
        self._end = end
        self._clock = clock
        self._lock = threading.Lock()
        self._watches: dict[asyncio.AbstractEventLoop, _Watch[T]] = {}

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[tuple[AsyncGenerator[ProgressEvent], asyncio.Future[T]]]:
        """Give one listener the events, from the first on, and the future of the job's end.

        Cancellation: ends only this listener.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            for closed in [other for other in self._watches if other.is_closed()]:
                del self._watches[closed]  # listeners of a closed loop cannot leave
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
        """Cancel the tasks of this watch, and return when they have ended."""
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
                if len(log) != warned_at:  # once per interruption
                    _log.warning("the events of a job cannot be read at the moment: %s", error)
                warned_at = len(log)
                await clock.sleep(_BACKOFF_SECONDS)
            else:
                return
    except Exception:  # noqa: BLE001 - no error of a backend may end the job here
        # Lost events are not a failure of the job; its end reports the outcome.
        _log.exception("reading the events of a job failed; its progress continues without them")
    finally:
        log.close()


async def _read_on(open_events: Events, log: EventLog) -> None:
    already_logged = len(log)
    async with aclosing(open_events()) as events:
        async for event in events:
            if already_logged > 0:
                already_logged -= 1
            else:
                log.add(event)
