"""Backend for the tests of hosts: jobs follow a script, on a clock that the test moves.

It starts no process and touches no file; `reel_modal.testing` exports it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from reel_modal._progress.event_log import EventLog
from reel_modal._progress.events import ProgressEvent
from reel_modal._support.clock import SYSTEM_CLOCK, Clock, wait_for_tick
from reel_modal._support.threads import wait_across_loops
from reel_modal.backends.base import (
    CALL_ID,
    BackendTraits,
    CallResult,
    Check,
    verify_by_hydration,
)
from reel_modal.errors import JobCancelledError, JobNotFoundError, NotDeployedError, UnavailableError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.remote_errors import to_remote_error
from reel_modal.functions.resources import Resources

__all__ = ["InMemoryBackend", "Script", "Submitted"]

Arguments = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """Scripted behaviour of a job.

    Attributes:
        result: Return value of the function, or a callable that takes the job's arguments and returns the value or
            raises an error.
        error: Error that the function raises instead; as for a real function, it is converted to a `RemoteError`.
        events: Events that it reports, each at its `elapsed_seconds` after the start.
        queue_seconds: Seconds from the submission to the start.
        seconds: Seconds from the start to the end.
        log: Lines that the function writes to its log.
    """

    result: object | Callable[..., object] = None
    error: Exception | None = None
    events: Sequence[ProgressEvent] = ()
    queue_seconds: float = 0.0
    seconds: float = 0.0
    log: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Submitted:
    """One submission that the backend has accepted.

    Attributes:
        function: Name of the function.
        args: Positional arguments in their wire form: for render functions, one `request.to_dict()`.
        kwargs: Keyword arguments in their wire form.
        call_id: Last part of the job's id.
        workers: Number of machines that would render the output at once.
        resources: Resources in place of the deployed ones.
    """

    function: str
    args: Arguments
    kwargs: Mapping[str, object]
    call_id: str
    workers: int = 1
    resources: Resources | None = None


@dataclass(slots=True)
class _Call:
    function: str
    log: Sequence[str] = ()
    ended: Future[object] = field(default_factory=Future)
    task: asyncio.Task[None] | None = None
    events: EventLog = field(default_factory=EventLog)


class InMemoryBackend:
    """Backend that runs scripts instead of functions, each in the event loop that submitted it.

    Args:
        clock: Clock of the scripts, and of every wait of a registry that uses this backend. A `ManualClock` makes
            tests instant and exact.

    Example:
        >>> backend = InMemoryBackend()
        >>> backend.script("make_thumbnail", Script(error=InvalidMediaError("it is no video")))
        >>> registry = FunctionRegistry(Settings(), backend=backend)
    """

    name: str = "memory"

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.submitted: list[Submitted] = []
        self.cancelled: list[str] = []
        self.clock: Clock = clock
        self._functions: dict[str, AnyFunction] = {}
        self._scripts: dict[str, list[Script]] = {}
        self._calls: dict[str, _Call] = {}
        self._numbers = itertools.count(1)
        self._unavailable = 0

    def __repr__(self) -> str:
        return f"InMemoryBackend(submitted={len(self.submitted)}, cancelled={len(self.cancelled)})"

    def script(self, function: str, *scripts: Script) -> None:
        """Set the scripts of the next jobs of `function`, in order; the last script is repeated."""
        self._scripts[function] = list(scripts)

    def fail_next_requests(self, times: int) -> None:
        """Let the next `times` requests of any kind fail with `UnavailableError`."""
        self._unavailable = times

    @property
    def traits(self) -> BackendTraits:
        """See `Backend.traits`."""
        return BackendTraits()

    def register(self, functions: Mapping[str, AnyFunction]) -> None:
        """See `Backend.register`."""
        self._functions |= functions

    async def verify(self, functions: Iterable[str]) -> list[Check]:
        """See `Backend.verify`."""
        return await verify_by_hydration(self.hydrate, functions)

    def is_call_id(self, call_id: str) -> bool:
        """See `Backend.is_call_id`."""
        return CALL_ID.fullmatch(call_id) is not None

    async def hydrate(self, function: str) -> None:
        """See `Backend.hydrate`. A function exists if it has a script or is registered."""
        self._check_available(function)
        if function not in self._scripts and function not in self._functions:
            raise NotDeployedError("function not found: no script is set for it", function=function)

    async def submit(
        self,
        function: str,
        args: Arguments,
        kwargs: Mapping[str, object],
        *,
        workers: int = 1,
        resources: Resources | None = None,
    ) -> str:
        """See `Backend.submit`; `submitted` has the number of workers and the resources."""
        await self.hydrate(function)
        call_id = f"call-{next(self._numbers)}"
        self.submitted.append(Submitted(function, args, dict(kwargs), call_id, workers, resources))
        scripts = self._scripts.get(function) or [Script()]
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        call = self._calls[call_id] = _Call(function, script.log)
        call.task = asyncio.ensure_future(self._play(script, call, args, kwargs))
        return call_id

    async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:
        """See `Backend.wait`; the timeout is measured on the backend's clock."""
        call = self._call(call_id)
        if not call.ended.done() and timeout_seconds > 0:
            await wait_for_tick(self.clock, timeout_seconds, wait_across_loops(call.ended))
        if not call.ended.done():
            return None
        if (error := call.ended.exception()) is not None:
            raise to_remote_error(error, function=call.function, call_id=call_id) from error
        return CallResult(call.ended.result())

    async def cancel(self, call_id: str) -> None:
        """See `Backend.cancel`."""
        call = self._call(call_id)
        if not call.ended.done():
            self.cancelled.append(call_id)
            self._end(call, error=JobCancelledError("the job was cancelled", function=call.function, call_id=call_id))
            if call.task is not None:
                call.task.cancel()

    async def event_count(self, call_id: str) -> int:
        """See `Backend.event_count`."""
        return len(self._call(call_id).events)

    async def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        """See `Backend.events`."""
        async for event in self._call(call_id).events.follow():
            yield event

    async def logs(self, call_id: str, lines: int) -> list[str]:
        """See `Backend.logs`; the lines of the script."""
        return list(self._call(call_id).log)[-lines:]

    async def close(self) -> None:
        """Cancel every job that has not ended."""
        for call_id, call in list(self._calls.items()):
            if not call.ended.done():
                await self.cancel(call_id)

    async def _play(self, script: Script, call: _Call, args: Arguments, kwargs: Mapping[str, object]) -> None:
        await self.clock.sleep(script.queue_seconds)
        passed = 0.0
        for event in script.events:
            if event.elapsed_seconds > passed:
                await self.clock.sleep(event.elapsed_seconds - passed)
                passed = event.elapsed_seconds
            call.events.add(event)
        await self.clock.sleep(max(script.seconds - passed, 0.0))
        try:
            value = script.result(*args, **kwargs) if callable(script.result) else script.result
        except Exception as error:  # noqa: BLE001 - passed to the caller that waits, as in a worker
            self._end(call, error=error)
        else:
            self._end(call, value=value, error=script.error)

    def _end(self, call: _Call, *, value: object = None, error: Exception | None = None) -> None:
        if call.ended.done():
            return
        if error is None:
            call.ended.set_result(value)
        else:
            call.ended.set_exception(error)
        call.events.close()

    def _call(self, call_id: str) -> _Call:
        self._check_available("memory", call_id)
        if call_id not in self._calls:
            raise JobNotFoundError("job not found in this backend", function="memory", call_id=call_id)
        return self._calls[call_id]

    def _check_available(self, function: str, call_id: str | None = None) -> None:
        if self._unavailable > 0:
            self._unavailable -= 1
            raise UnavailableError("unreachable, as set by fail_next_requests", function=function, call_id=call_id)
