"""Start many requests at once without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ["LoopThrottle"]

_EACH_TURN: Final = 4
"""Handing a request to a busy thread can take the switch interval of the interpreter, 5 ms."""


class LoopThrottle:
    """A throttle that lets a few tasks pass in each iteration of their event loop, and the others later, in order.

    Each time the loop hands work to a busy thread, it waits for the global interpreter lock. A hundred tasks that do
    so in one iteration would block all other tasks for the sum of these waits.
    """

    def __init__(self, each_turn: int = _EACH_TURN) -> None:
        self._each_turn = each_turn
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gate] = WeakKeyDictionary()

    async def acquire(self) -> None:
        """Return at once for the first few tasks of this iteration of the loop, otherwise in a later iteration.

        Cancellation: passes the slot to the next task.
        """
        loop = asyncio.get_running_loop()
        gate = self._gates.get(loop)
        if gate is None:
            gate = self._gates[loop] = _Gate(self._each_turn)
        if not gate.passes(loop):
            await gate.queue(loop)


class _Gate:
    """The throttle of one event loop."""

    def __init__(self, each_turn: int) -> None:
        self._each_turn = each_turn
        self._passed = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def passes(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether this iteration has a free slot, and take it."""
        if self._passed == self._each_turn:
            return False
        self._passed += 1
        if self._passed == self._each_turn:  # only then, since each callback makes the loop poll once more
            loop.call_soon(self._turn, loop)
        return True

    async def queue(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return when a later iteration has a slot for this task."""
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the next iteration: wake the first tasks that wait."""
        self._passed = 0
        while self._waiting and self._passed < self._each_turn:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._passed += 1
        if self._passed:
            loop.call_soon(self._turn, loop)
