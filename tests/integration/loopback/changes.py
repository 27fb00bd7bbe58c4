"""Waiting for state to change without polling. Knows nothing of Modal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Changes:
    """A broadcast within one event loop: everything that waits looks again after each `notify`."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, look: Callable[[], T], timeout_seconds: float | None = None) -> T:
        """Give the first true answer of `look`, or its last answer when that many seconds have passed.

        An answer is handed over without an await in between, so `look` may take something out of a queue.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_seconds is None else loop.time() + timeout_seconds
        while not (answer := look()):
            remaining = None if deadline is None else deadline - loop.time()
            if remaining is not None and remaining <= 0:
                break
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.add(future)
            try:
                await asyncio.wait([future], timeout=remaining)
            finally:
                self._waiting.discard(future)
        return answer
