"""Send job events to listeners, as a backend does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from reel_modal.progress import ProgressEvent


class Events:
    """Events of a job for any number of listeners: past events at once, later ones as they are sent."""

    def __init__(self, past: Sequence[ProgressEvent] = ()) -> None:
        self._past = list(past)
        self._listeners: set[asyncio.Queue[ProgressEvent | Exception | None]] = set()
        self.deserted = asyncio.Event()

    @property
    def listening(self) -> int:
        return len(self._listeners)

    def send(self, event: ProgressEvent | Exception | None) -> None:
        if isinstance(event, ProgressEvent):
            self._past.append(event)
        for queue in self._listeners:
            queue.put_nowait(event)

    async def __aiter__(self) -> AsyncIterator[ProgressEvent]:
        queue: asyncio.Queue[ProgressEvent | Exception | None] = asyncio.Queue()
        for event in self._past:
            queue.put_nowait(event)
        self._listeners.add(queue)
        try:
            while (event := await queue.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self._listeners.discard(queue)
            if not self._listeners:
                self.deserted.set()
