"""Worker processes that render segments of an output for the process that starts them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping

from reel_modal._segments import Segment
from reel_modal._support.threads import ThreadPool
from reel_modal.errors import WorkerCrashedError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.remote_errors import is_retryable
from reel_modal.functions.worker_call import WorkerCall
from reel_modal.settings import Settings

__all__ = ["LocalCalls"]

_log = logging.getLogger(__name__)

_WAIT_SECONDS = 60.0


class LocalCalls:
    """Worker processes of one job; see `Calls`. They end when this process does.

    Args:
        function: The function.
        payload: The request's `to_dict()`.
        settings: Settings of the worker processes.
        workers: Maximum number of processes at the same time.
    """

    remote: bool = False

    def __init__(
        self, function: AnyFunction, payload: Mapping[str, object], settings: Settings, *, workers: int
    ) -> None:
        self._function = function
        self._payload = payload
        self._settings = settings
        self._pool = ThreadPool(workers, "reel_modal-segments")
        self._calls: dict[str, WorkerCall] = {}

    async def start(self, run: Segment) -> str:
        """See `Calls.start`."""
        call = WorkerCall(self._function, self._payload, self._settings, part=run)
        self._calls[call.id] = call
        self._pool.start(call.run)
        return call.id

    async def result(self, call_id: str) -> Mapping[str, object]:
        """See `Calls.result`."""
        call = self._calls[call_id]
        while not call.outcome.done():
            await call.ended(_WAIT_SECONDS)
        try:
            return call.outcome.result()
        except WorkerCrashedError as error:
            if call.log:  # its stderr is not that of the job
                _log.warning("%s; the last lines of its log:\n%s", error.message, "\n".join(call.log))
            raise

    async def frames(self, call_id: str) -> AsyncGenerator[int]:
        """See `Calls.frames`."""
        async for event in self._calls[call_id].events.follow():
            if event.phase == "render":
                yield event.done

    async def cancel(self, call_id: str) -> None:
        """See `Calls.cancel`; returns when the worker process has ended."""
        await self._calls[call_id].end()

    def worth_another_attempt(self, error: Exception) -> bool:
        """See `Calls.worth_another_attempt`."""
        return is_retryable(error)
