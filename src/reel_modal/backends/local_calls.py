"""Worker processes that a worker starts, to render the segments of its output at the same time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import cast

from reel_modal._segments import Segment
from reel_modal.backends.base import is_retryable
from reel_modal.backends.local import LocalBackend
from reel_modal.functions.catalog import AnyFunction
from reel_modal.settings import Settings

__all__ = ["LocalCalls"]

_WAIT_SECONDS = 60.0


class LocalCalls:
    """Further worker processes of one job; see `Calls`. They end when this process does.

    Args:
        function: The function.
        payload: The request's `to_dict()`.
        settings: Settings of the workers.
        workers: Maximum number of processes at the same time.
    """

    remote: bool = False

    def __init__(
        self, function: AnyFunction, payload: Mapping[str, object], settings: Settings, *, workers: int
    ) -> None:
        self._function = function
        self._payload = payload
        self._backend = LocalBackend(settings, max_workers=workers)

    async def start(self, run: Segment) -> str:
        """See `Calls.start`."""
        return self._backend.start_part(self._function, self._payload, run)

    async def result(self, call_id: str) -> Mapping[str, object]:
        """See `Calls.result`."""
        while (outcome := await self._backend.wait(call_id, _WAIT_SECONDS)) is None:
            pass
        return cast("Mapping[str, object]", outcome.value)

    async def frames(self, call_id: str) -> AsyncGenerator[int]:
        """See `Calls.frames`."""
        async for event in self._backend.events(call_id):
            if event.phase == "render":
                yield event.done

    async def cancel(self, call_id: str) -> None:
        """See `Calls.cancel`."""
        await self._backend.cancel(call_id)

    def worth_another_attempt(self, error: Exception) -> bool:
        """See `Calls.worth_another_attempt`."""
        return is_retryable(error)
