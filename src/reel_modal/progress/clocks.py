"""Time as a parameter: the system's clock for hosts, one that is moved by hand for tests.

It must know nothing of progress.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Final, Protocol, TypeVar
from weakref import WeakSet

__all__ = ["SYSTEM_CLOCK", "Clock", "ManualClock", "SystemClock", "hold_manual_clocks", "wait_for_tick"]

T = TypeVar("T")

_SETTLING_TURNS: Final = 25
"""Turns of the event loop after each step of a manual clock: enough for a woken task to reach its next sleep."""


class Clock(Protocol):
    """What the progress classes ask of time."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`.

        Cancellation: ends the sleep.
        """
        ...


class SystemClock:
    """The machine's own clock."""

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
    """A clock that stands until a test moves it, so that no test sleeps for real.

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
        """Return the seconds that the clock was moved to."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return once somebody has moved the clock by `seconds`; at once for 0 and less.

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
        """Move on by `seconds`, waking each sleeper at its own moment, in order.

        Returns when the tasks that were woken have come to rest: they wait on this clock. A look at a store or a
        file, which a thread does in real time, is waited for.

        Cancellation: leaves the clock where it was.
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
        """Move the reading by `seconds`, back or forth, and wake nobody: what a faulty clock does."""
        self._now += seconds


_real_time: WeakSet[asyncio.Future[None]] = WeakSet()
_REAL_SECONDS: Final = 10.0


def hold_manual_clocks(call: asyncio.Future[None]) -> None:
    """Let each manual clock of this event loop stand until `call` is done, which a thread does in real time.

    Without this a test that submits a job and advances the clock could move it before the job was submitted.
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
    """Return after `seconds`, or earlier when `future` is done; leave no task behind.

    Cancellation: ends the wait and leaves `future` as it is.
    """
    if isinstance(clock, SystemClock):
        await asyncio.wait({future}, timeout=seconds)
        return
    sleeper = asyncio.ensure_future(clock.sleep(seconds))
    try:
        both: tuple[asyncio.Future[T] | asyncio.Future[None], ...] = (future, sleeper)
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if sleeper.cancel():
            await asyncio.wait({sleeper})
