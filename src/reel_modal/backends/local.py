"""Backend for this machine: one worker process per job, a bounded number at once, the rest queued.

A worker and its ffmpeg processes end with their job, when the job is cancelled, and when the host exits.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Final, cast
from weakref import WeakSet

from reel_modal._progress.events import ProgressEvent
from reel_modal._support.clock import SYSTEM_CLOCK, Clock
from reel_modal._support.threads import ThreadPool
from reel_modal.backends.base import (
    CALL_ID,
    BackendTraits,
    CallResult,
    Check,
    verify_by_hydration,
)
from reel_modal.errors import (
    ConfigError,
    JobNotFoundError,
    NotDeployedError,
)
from reel_modal.functions.catalog import AnyFunction, all_functions
from reel_modal.functions.resources import Resources
from reel_modal.functions.segment_processes import segments_at_once
from reel_modal.functions.worker_call import WorkerCall
from reel_modal.settings import Settings

__all__ = ["LocalBackend"]

_MOST_KEPT: Final = 1000


class LocalBackend:
    """Backend that runs the function bodies in worker processes on this machine.

    Args:
        settings: Settings of the workers; `store_url` must be set before a job runs.
        max_workers: Most jobs at once; default half of the CPU cores, since an encoder uses more than one core.

    Raises:
        ConfigError: `max_workers` is less than 1.
    """

    name: str = "local"
    clock: Clock = SYSTEM_CLOCK

    def __init__(self, settings: Settings | None = None, *, max_workers: int | None = None) -> None:
        self._settings = settings or Settings.from_env()
        self._max_workers = max(1, self._settings.cores // 2) if max_workers is None else max_workers
        if self._max_workers < 1:
            raise ConfigError(f"max_workers is {max_workers}; it must be 1 or more")
        self._functions: dict[str, AnyFunction] = {}
        self._calls: dict[str, WorkerCall] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPool(self._max_workers, "reel_modal-local")
        _backends.add(self)

    def __repr__(self) -> str:
        return f"LocalBackend(max_workers={self._max_workers}, settings={self._settings!r})"

    @property
    def settings(self) -> Settings:
        """The settings of the worker processes."""
        return self._settings

    @property
    def traits(self) -> BackendTraits:
        """See `Backend.traits`."""
        return BackendTraits(
            settings=self._settings,
            records_timings=True,
            needs_store=True,
            uses_host_credentials=True,
            applies_resources=False,
        )

    def register(self, functions: Mapping[str, AnyFunction]) -> None:
        """See `Backend.register`."""
        self._functions |= functions

    async def verify(self, functions: Iterable[str]) -> list[Check]:
        """See `Backend.verify`."""
        return await verify_by_hydration(self.hydrate, functions)

    def start_anew(self) -> None:
        """Forget the parent's jobs in a forked child: the threads that run them exist only in the parent."""
        for call in self._calls.values():
            call.close_pipes()
        self._calls, self._lock = {}, threading.Lock()

    def is_call_id(self, call_id: str) -> bool:
        """See `Backend.is_call_id`."""
        return CALL_ID.fullmatch(call_id) is not None

    async def hydrate(self, function: str) -> None:
        """See `Backend.hydrate`."""
        if not self._functions:
            self.register(all_functions())
        if function not in self._functions:
            known = ", ".join(sorted(self._functions))
            raise NotDeployedError(f"function not found; available are {known}", function=function)

    async def submit(
        self,
        function: str,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        workers: int = 1,
        resources: Resources | None = None,
    ) -> str:
        """See `Backend.submit`; at most as many segments are rendered at once as the cores have encoder threads for.

        If the settings reserve cores, each of the jobs that may run at once has an equal share of them.
        """
        del resources  # `RemoteFunction` has said that they have no effect here
        await self.hydrate(function)
        (payload,) = args
        if kwargs or not isinstance(payload, Mapping):
            raise TypeError(f"{function} takes one request")
        payload = cast("Mapping[str, object]", payload)
        declared, reserved = self._functions[function], (self._settings.cpu or 0) / self._max_workers
        processes = max(
            min(workers, segments_at_once(declared, payload, self._settings.cores)),
            segments_at_once(declared, payload, reserved),
        )
        call = WorkerCall(declared, payload, self._settings, processes=processes)
        with self._lock:
            self._forget_old()
            self._calls[call.id] = call
            self._pool.start(call.run)
        return call.id

    async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:
        """See `Backend.wait`."""
        call = self._call(call_id)
        if not call.outcome.done():
            if timeout_seconds <= 0:
                return None
            await call.ended(timeout_seconds)
        return CallResult(call.outcome.result(), call.queued_seconds) if call.outcome.done() else None

    async def cancel(self, call_id: str) -> None:
        """See `Backend.cancel`; returns when the worker has ended."""
        await self._call(call_id).end()

    async def event_count(self, call_id: str) -> int:
        """See `Backend.event_count`."""
        return len(self._call(call_id).events)

    async def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        """See `Backend.events`."""
        async for event in self._call(call_id).events.follow():
            yield event

    async def logs(self, call_id: str, lines: int) -> list[str]:
        """See `Backend.logs`; at most the last 100 lines are kept."""
        return list(self._call(call_id).log)[-lines:]

    async def close(self) -> None:
        """Cancel every job that has not ended."""
        left = [call for call in list(self._calls.values()) if not call.outcome.done()]
        # Newest first, so that no queued job starts in the slot of a job that was just cancelled.
        await asyncio.gather(*(self.cancel(call.id) for call in reversed(left)))

    def _call(self, call_id: str) -> WorkerCall:
        call = self._calls.get(call_id)
        if call is None:
            raise JobNotFoundError(
                "job not found in this process, and a local job ends with its parent process: submit it again",
                function="local",
                call_id=call_id,
            )
        return call

    def _forget_old(self) -> None:
        ended = [call_id for call_id, call in self._calls.items() if call.outcome.done()]
        for call_id in ended[:-_MOST_KEPT]:
            del self._calls[call_id]


_backends: WeakSet[LocalBackend] = WeakSet()


def _reset_after_fork() -> None:
    for backend in list(_backends):
        backend.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
