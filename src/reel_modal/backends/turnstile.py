"""Starting many things at once without holding up the event loop that starts them.

It must not know what is started.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ["Turnstile"]

_EACH_TURN: Final = 4
"""To hand a request to another thread may cost the switch interval of the interpreter, 5 ms, when that is busy."""


class Turnstile:
    """Lets a few tasks pass in each turn of their event loop, and the others in the next ones, in order.

    Handing work to a busy thread makes the loop wait for the lock of the interpreter, every time. A hundred tasks
    that do so in one turn would stand in the way of everything else for as long as all of them take.
    """

    def __init__(self, each_turn: int = _EACH_TURN) -> None:
        self._each_turn = each_turn
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gate] = WeakKeyDictionary()

    async def enter(self) -> None:
        """Return at once for the first few of this turn of the loop, else in a later one.

        Cancellation: gives the place to the next.
        """
        loop = asyncio.get_running_loop()
        gate = self._gates.get(loop)
        if gate is None:
            gate = self._gates[loop] = _Gate(self._each_turn)
        await gate.enter(loop)


class _Gate:
    """The turnstile of one loop."""

    def __init__(self, each_turn: int) -> None:
        self._each_turn = each_turn
        self._passed = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._passed == 0:
            loop.call_soon(self._turn, loop)
        if self._passed < self._each_turn:
            self._passed += 1
            return
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        await place

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the next turn with those that wait."""
        self._passed = 0
        while self._waiting and self._passed < self._each_turn:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self._passed += 1
        if self._passed:
            loop.call_soon(self._turn, loop)
