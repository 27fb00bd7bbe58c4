"""Time as a parameter: the system clock for hosts, and a clock that tests move by hand."""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Final, Protocol, TypeVar
from weakref import WeakSet

__all__ = ["SYSTEM_CLOCK", "Clock", "ManualClock", "SystemClock", "hold_manual_clocks", "wait_for_tick"]

T = TypeVar("T")

_SETTLING_TURNS: Final = 25
"""Event-loop iterations after each step of a manual clock: enough for a woken task to reach its next sleep."""


class Clock(Protocol):
    """Source of time for waits and progress."""

    def monotonic(self) -> float:
        """Return the seconds since a fixed point in time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`.

        Cancellation: ends the sleep.
        """
        ...


class SystemClock:
    """The clock of the machine."""

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop.

        Cancellation: ends the sleep.
        """
        await asyncio.sleep(seconds)


SYSTEM_CLOCK: Final[Clock] = SystemClock()


class ManualClock:
    """A clock that only a test moves, so that no test sleeps in real time.

    Args:
        start: The first reading, in seconds.

    Example:
        >>> clock = ManualClock()
        >>> asyncio.run(clock.advance(2.5))
        >>> clock.monotonic()
        2.5
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._order = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """Return the current reading in seconds."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return after the clock was moved by `seconds`; return at once if `seconds` is 0 or less.

        Cancellation: ends the sleep.
        """
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._now + seconds, self._order, waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Move the clock forward by `seconds`, and wake each sleeper at its time, in order.

        Returns when the woken tasks wait on this clock again. Calls to a store or a file, which a thread runs in real
        time, are awaited.

        Cancellation: leaves the clock at the time that it has reached.
        """
        await _settle()
        end = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, waiter = heapq.heappop(self._sleepers)
            self._now = max(self._now, moment)
            if not waiter.done():
                waiter.set_result(None)
                await _settle()
        self._now = end

    def jump(self, seconds: float) -> None:
        """Move the reading by `seconds`, forward or back, without waking sleepers, as a faulty clock does."""
        self._now += seconds


_real_time: WeakSet[asyncio.Future[None]] = WeakSet()
_REAL_SECONDS: Final = 10.0


def hold_manual_clocks(call: asyncio.Future[None]) -> None:
    """Make each manual clock of this event loop wait until `call` is done, which a thread runs in real time.

    Without this, a test that submits a job and advances the clock could move it before the job is submitted.
    """
    _real_time.add(call)


async def _settle() -> None:
    loop = asyncio.get_running_loop()
    while True:
        for _ in range(_SETTLING_TURNS):
            await asyncio.sleep(0)
        calls = {call for call in list(_real_time) if call.get_loop() is loop and not call.done()}
        if not calls or not (await asyncio.wait(calls, timeout=_REAL_SECONDS))[0]:
            return


async def wait_for_tick(clock: Clock, seconds: float, future: asyncio.Future[T]) -> None:
    """Return after `seconds`, or earlier if `future` is done; leaves no task running.

    Cancellation: ends the wait and does not affect `future`.
    """
    if not isinstance(clock, SystemClock):
        await _wait_by(clock, seconds, future)
        return
    # The same as `asyncio.wait({future}, timeout=seconds)` at half its cost: each call waits twice.
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(seconds, wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)


async def _wait_by(clock: Clock, seconds: float, future: asyncio.Future[T]) -> None:
    sleeper = asyncio.ensure_future(clock.sleep(seconds))
    try:
        both: tuple[asyncio.Future[T] | asyncio.Future[None], ...] = (future, sleeper)
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if sleeper.cancel():
            await asyncio.wait({sleeper})
