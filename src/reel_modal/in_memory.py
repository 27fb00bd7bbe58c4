"""A backend for the tests of hosts: jobs that do what a script says, on a clock that a test moves.

It must start no process and touch no file; `reel_modal.testing` offers it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from reel_modal.backends.across_loops import end_of
from reel_modal.backends.base import CALL_ID, Finished, failure_of
from reel_modal.backends.events import EventLog
from reel_modal.errors import JobCancelledError, JobNotFoundError, NotDeployedError, UnavailableError
from reel_modal.functions.specs import SPECS
from reel_modal.progress.clocks import SYSTEM_CLOCK, Clock, wait_for_tick
from reel_modal.progress.events import ProgressEvent

__all__ = ["InMemoryBackend", "Script", "Submitted"]

Arguments = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """What a job does.

    Attributes:
        result: What the function returns, or a function of its arguments that returns or raises it.
        error: What it raises instead, as the body would; an error that is no `RemoteError` becomes one.
        events: What it reports, each at its `elapsed_seconds` after the start.
        queue_seconds: From the submission to the start.
        seconds: From the start to the end.
    """

    result: object | Callable[..., object] = None
    error: Exception | None = None
    events: Sequence[ProgressEvent] = ()
    queue_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Submitted:
    """One submission that the backend has taken.

    Attributes:
        function: The function's name.
        args: As they went over the wire: for render functions one `request.to_dict()`.
        kwargs: Likewise.
        call_id: The last part of the job's id.
    """

    function: str
    args: Arguments
    kwargs: Mapping[str, object]
    call_id: str


@dataclass(slots=True)
class _Call:
    function: str
    ended: Future[object] = field(default_factory=Future)
    task: asyncio.Task[None] | None = None
    events: EventLog = field(default_factory=EventLog)


class InMemoryBackend:
    """Runs scripts instead of functions, each in the event loop that submitted it.

    Args:
        clock: Where the time of the scripts comes from, and that of every wait of a registry that is made with this
            backend; a `ManualClock` makes tests instant and exact.

    Example:
        >>> backend = InMemoryBackend()
        >>> backend.script("render_overlay", Script(error=InvalidMediaError("it is no video")))
        >>> registry = FunctionRegistry(Settings(), backend=backend)
    """

    name: str = "memory"

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.submitted: list[Submitted] = []
        self.cancelled: list[str] = []
        self.clock: Clock = clock
        self._scripts: dict[str, list[Script]] = {}
        self._calls: dict[str, _Call] = {}
        self._numbers = itertools.count(1)
        self._unavailable = 0

    def __repr__(self) -> str:
        return f"InMemoryBackend(submitted={len(self.submitted)}, cancelled={len(self.cancelled)})"

    def script(self, function: str, *scripts: Script) -> None:
        """Let the next jobs of `function` do what `scripts` say, in order; the last one is repeated."""
        self._scripts[function] = list(scripts)

    def fail_requests(self, times: int) -> None:
        """Let the next `times` requests about jobs, of any kind, end in `UnavailableError`."""
        self._unavailable = times

    def is_call_id(self, call_id: str) -> bool:
        """See `Backend.is_call_id`."""
        return CALL_ID.fullmatch(call_id) is not None

    async def hydrate(self, function: str) -> None:
        """See `Backend.hydrate`: a function is there when it has a script or is one of this package."""
        self._answer(function)
        if function not in self._scripts and function not in SPECS:
            raise NotDeployedError("there is no script for it", function=function)

    async def submit(self, function: str, args: Arguments, kwargs: Mapping[str, object]) -> str:
        """See `Backend.submit`."""
        await self.hydrate(function)
        call_id = f"call-{next(self._numbers)}"
        self.submitted.append(Submitted(function, args, dict(kwargs), call_id))
        scripts = self._scripts.get(function) or [Script()]
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        call = self._calls[call_id] = _Call(function)
        call.task = asyncio.ensure_future(self._play(script, call, args, kwargs))
        return call_id

    async def wait(self, call_id: str, timeout_seconds: float) -> Finished | None:
        """See `Backend.wait`; the time-out is on the backend's clock."""
        call = self._call(call_id)
        if not call.ended.done() and timeout_seconds > 0:
            await wait_for_tick(self.clock, timeout_seconds, end_of(call.ended))
        if not call.ended.done():
            return None
        if (error := call.ended.exception()) is not None:
            raise failure_of(error, function=call.function, call_id=call_id) from error
        return Finished(call.ended.result())

    async def cancel(self, call_id: str) -> None:
        """See `Backend.cancel`."""
        call = self._call(call_id)
        if not call.ended.done():
            self.cancelled.append(call_id)
            self._end(call, error=JobCancelledError("the job was cancelled", function=call.function, call_id=call_id))
            if call.task is not None:
                call.task.cancel()

    async def events_so_far(self, call_id: str) -> int:
        """See `Backend.events_so_far`."""
        return len(self._call(call_id).events)

    async def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        """See `Backend.events`."""
        async for event in self._call(call_id).events.follow():
            yield event

    async def close(self) -> None:
        """End every script that still plays."""
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
        except Exception as error:  # noqa: BLE001 - handed to who waits, as a worker does
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
        self._answer("memory", call_id)
        if call_id not in self._calls:
            raise JobNotFoundError("there is no such job in this backend", function="memory", call_id=call_id)
        return self._calls[call_id]

    def _answer(self, function: str, call_id: str | None = None) -> None:
        if self._unavailable > 0:
            self._unavailable -= 1
            raise UnavailableError("the script says so", function=function, call_id=call_id)
