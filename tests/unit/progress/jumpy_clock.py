"""A clock with drawn readings, for the tests of streams; the strategies themselves are in `reel_modal.testing`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


class JumpyClock:
    """A clock with given readings, one per call; its sleeps last one iteration of the event loop."""

    def __init__(self, readings: Sequence[float]) -> None:
        self._readings = list(readings)
        self._last = self._readings[0]

    def monotonic(self) -> float:
        if self._readings:
            self._last = self._readings.pop(0)
        return self._last

    async def sleep(self, seconds: float) -> None:
        del seconds
        await asyncio.sleep(0)
