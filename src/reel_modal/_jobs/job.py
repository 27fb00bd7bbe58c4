"""One submitted job: status, result, events, progress and cancellation. The same class for every backend."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import cached_property, partial
from typing import Final, Generic, TypeVar

from reel_modal._jobs.estimates import Estimate
from reel_modal._jobs.event_fanout import EventFanout
from reel_modal._jobs.job_log import EXPLAINED_BY_LOG, lacks_log, read_log
from reel_modal._jobs.options import JobOptions
from reel_modal._jobs.timing_recorder import TimingRecorder
from reel_modal._jobs.tracing import ending_on_error, measured
from reel_modal._support.background import LET_GO_SECONDS, finish
from reel_modal._support.clock import SYSTEM_CLOCK, Clock, wait_for_tick
from reel_modal._support.tasks import OwnedTask
from reel_modal._support.threads import run_in_thread
from reel_modal._support.tracing import JobTrace
from reel_modal.backends.base import Backend, CallResult, JobStatus
from reel_modal.errors import (
    AuthError,
    ConfigError,
    FunctionTimeoutError,
    JobCancelledError,
    JobNotFoundError,
    JobStalledError,
    NotDeployedError,
    ReelModalError,
    RemoteError,
    RequestError,
    UnavailableError,
    WaitTimeoutError,
)
from reel_modal.progress import ProgressEvent, ProgressPlan, ProgressUpdate, progress_of
from reel_modal.schema.results import Result

__all__ = ["Job"]

R = TypeVar("R")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_SLICE_SECONDS: Final = 10.0
"""Longest single wait for the outcome; limits are checked between two waits."""

_LEAST_SLICE_SECONDS: Final = 1.0
_OVERDUE_SECONDS: Final = 0.5
"""How long after the end of a slice the backend counts as silent; then the store is checked as well."""

_STATE_UNKNOWN: Final = (UnavailableError, AuthError, NotDeployedError)
"""Errors of a backend that say nothing about the state of a job."""

_LOG_SECONDS: Final = 5.0
_LINES_OF_ERROR: Final = 20
_STATUS_SECONDS: Final = 10.0
_CANCEL_SECONDS: Final = 30.0
_GRACE_SECONDS: Final = 5.0
"""How far a wait may exceed its timeout while the backend's answer is overdue."""

_BACKOFF_SECONDS: Final = 1.0
_STORE_SECONDS: Final = 10.0
_PROMPT_SECONDS: Final = 1.0
"""If the first look comes this soon after the submission, the job's duration is known even if it has ended."""


class Job(Generic[R]):
    """A submitted job, created by `RemoteFunction.submit` and `FunctionRegistry.attach`.

    Attributes:
        id: Opaque id; `FunctionRegistry.attach(id)` finds the job again, also after a restart.
        function: Name of the function.
    """

    def __init__(
        self,
        backend: Backend,
        function: str,
        call_id: str,
        decode: Callable[[object], R],
        *,
        options: JobOptions,
        attached: bool = False,
        receipt: Callable[[object], Result] | None = None,
        reports: bool = True,
        expected: Estimate | None = None,
        plan: ProgressPlan | None = None,
        recorder: TimingRecorder | None = None,
        published: Callable[[], object | None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        trace: JobTrace | None = None,
    ) -> None:
        self.id: str = f"{backend.name}:{function}:{call_id}"
        self.function: str = function
        self._backend = backend
        self._call_id = call_id
        self._decode = decode
        self._receipt = receipt
        self._options = options
        self._clock = clock
        self._started_at = None if attached else clock.monotonic()
        self._reports = reports
        self._expected = expected
        self._plan = plan if expected is None else expected.plan
        self._recorder = recorder
        self._find_published = published
        self._timing_recorded = attached  # the submitting process records the timing
        self._trace = trace
        if trace is not None:
            trace.set_attribute("reel_modal.job", self.id)

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    @cached_property
    def _watch(self) -> EventFanout[CallResult]:
        # Created by the first listener: most hosts only await the result.
        return EventFanout(self.events if self._reports else _no_events, self._end, self._clock)

    async def status(self) -> JobStatus:
        """Return the status of the job; `unknown` if the backend is unreachable, which is never a final status.

        The output is checked first if this host knows the store and the request: a job that has published its result
        has succeeded, even if its machine failed later. The store and each of two requests to the backend have ten
        seconds for their answer.

        Cancellation: changes nothing.
        """
        try:
            return await self._known_status()
        except _STATE_UNKNOWN:
            return "unknown"

    async def _can_be_replaced(self) -> bool:
        """Return whether a new submission replaces this job: it failed, was cancelled, or is no longer known."""
        try:
            return await self._known_status() in {"failed", "cancelled"}
        except JobNotFoundError:
            return True
        except _STATE_UNKNOWN:
            return False

    async def _known_status(self) -> JobStatus:
        try:
            if await self._published() is not None:
                return "succeeded"
            if await self._within(_STATUS_SECONDS, self._ask(0)) is not None:
                return "succeeded"
            events = await self._within(_STATUS_SECONDS, self._backend.event_count(self._call_id))
        except JobCancelledError:
            return "cancelled"
        except _STATE_UNKNOWN:
            raise
        except RemoteError:
            return "failed"
        return "running" if events else "queued"

    async def result(self, timeout_seconds: float | None = None) -> R:
        """Wait for the job and return its result.

        While the backend is silent, the output itself is looked up, if this host knows the store and the request.

        Args:
            timeout_seconds: Longest wait, up to five more while the backend is silent; None waits to the end.

        Raises:
            WaitTimeoutError: The job did not end in time; it continues.
            JobStalledError: The job stopped reporting events; it was cancelled.
            FunctionTimeoutError: The job passed its deadline or its function's timeout.
            JobCancelledError: The job was cancelled.
            BadInputError: The function refused its input; `__cause__` is the error that it raised.
            UnavailableError: For `unavailable_seconds`, the backend was silent or refused the token; the job goes on.
            JobNotFoundError: The backend does not know the job.
            RemoteError: The job failed in another way; `kind` and `retryable` describe the failure.

        Cancellation: also cancels the job, unless its options say `detach`. This applies to each of several waiters:
        if one of them is cancelled, the job is cancelled for all, and the others get `JobCancelledError`. If several
        tasks wait for one job, use `detach` or shield the wait (`asyncio.shield`). The call returns within a second;
        if the backend has not answered by then, the cancellation continues in the background, for at most 30 s.
        """
        return self._decode((await self._ended(timeout_seconds)).value)

    async def _ended(self, timeout_seconds: float | None) -> CallResult:
        try:
            return await self._outcome(timeout_seconds)
        except asyncio.CancelledError:
            if self._options.on_cancel == "cancel":
                await self._cancel_for("its waiter was cancelled")
                if self._trace is not None:
                    self._trace.fail(JobCancelledError("its waiter was cancelled", function=self.function))
            raise
        except EXPLAINED_BY_LOG as error:
            if lacks_log(error):
                error.log = await self._log_of_failure()
            raise

    async def receipt(self) -> Result:
        """Wait for the job and return its result with the durations and the usage, whatever type the host declared.

        Raises:
            ConfigError: The function is not declared, so it has no receipt.
            RemoteError: See `result`.

        Cancellation: see `result`.
        """
        if self._receipt is None:
            raise ConfigError(f"{self.function} is not declared with render_function, so its jobs have no receipt")
        return self._receipt((await self._ended(None)).value)

    async def logs(self, lines: int = 100) -> tuple[str, ...]:
        """Return the last lines that the machine wrote to stdout and stderr during the job, without known secrets.

        Known secrets are Modal's tokens, passwords in URLs, and the values of variables of this process whose names
        contain KEY, SECRET, TOKEN, PASSWORD or CREDENTIALS. Lines have at most 1,000 characters. A worker process on
        this machine keeps its last 100 lines; Modal keeps logs for some time, and may deliver the last ones late.

        Args:
            lines: Largest number of lines, 1 to 1,000.

        Raises:
            ConfigError: `lines` is out of range.
            UnavailableError: The backend is unreachable.
            RemoteError: The log is not available.

        Cancellation: changes nothing.
        """
        return await read_log(self._backend, self._call_id, lines)

    async def _log_of_failure(self) -> tuple[str, ...]:
        """Return the log for an error; a log that cannot be read must not hide that error."""
        try:
            return await self._within(_LOG_SECONDS, self.logs(_LINES_OF_ERROR))
        except RemoteError as error:
            return (f"[the log could not be read: {error.message}]",)

    async def events(self) -> AsyncGenerator[ProgressEvent]:
        """Yield the events that the function reports, from the first on, until the job ends.

        Raises:
            RemoteError: The backend is unreachable.

        Cancellation: ends only this listener; the job continues.
        """
        async with aclosing(self._backend.events(self._call_id)) as events:
            async for event in events:
                yield event

    async def progress(
        self,
        plan: ProgressPlan | None = None,
        *,
        save: Callable[[R], Awaitable[object]] | None = None,
        interval_seconds: float = 0.5,
    ) -> AsyncGenerator[ProgressUpdate]:
        """Yield progress updates: planned until the job's first event, then measured; the progress never decreases.

        The last update is `complete` or `error`; errors of the job are not raised. Any number of listeners is
        allowed, and a late listener starts at the current state. While the backend is unreachable, the updates
        continue without a limit. After 15 s without events, or 15 s more than the planned startup before the first
        one, they have no estimate of the rest and report the silence.

        Args:
            plan: Expected phases; default the estimate of this job from its submission, else the plan of the
                registry's timing history for the function, else the default plan (`ProgressPlan.default`).
            save: Called with the result of a job that succeeded, such as to record it in a database. The update
                `saving` comes before it, and `complete` after it. Pass it to one listener only.
            interval_seconds: Time between two updates.

        Raises:
            ConfigError: The interval is not above 0.
            Exception: An exception of `save`, after its `error` update.

        Example:
            >>> async for update in job.progress(save=lambda result: exports.add(result.stored_key)):
            ...     await socket.send_json(update.to_dict())

        Cancellation: ends only this listener; the job continues.
        """
        async with self._watch.listening() as (events, end):
            plan = plan or self._plan
            if plan is None and self._recorder is not None:
                plan = await self._recorder.plan()
            updates = progress_of(
                events,
                end,
                started_at=self._started_at,
                save=None if save is None else partial(self._save, save),
                plan=plan,
                clock=self._clock,
                interval_seconds=interval_seconds,
            )
            async with aclosing(updates):
                async for update in updates:
                    yield update

    async def cancel(self) -> None:
        """Cancel the job and everything that it started; has no effect on a job that has ended.

        Raises:
            UnavailableError: The backend is unreachable; the job may continue.

        Cancellation: may leave the job running.
        """
        await self._backend.cancel(self._call_id)

    async def _save(self, save: Callable[[R], Awaitable[object]], outcome: CallResult) -> None:
        await save(self._decode(outcome.value))

    async def _end(self) -> CallResult:
        """Wait for the outcome, even while the backend is unreachable: a lost connection does not end a job."""
        while True:
            try:
                return await self._outcome(None)
            except JobNotFoundError:
                raise
            except UnavailableError:
                await self._clock.sleep(_BACKOFF_SECONDS)

    async def _outcome(self, timeout_seconds: float | None) -> CallResult:
        """Wait for the outcome, and end the trace of the job with it."""
        if self._trace is None:
            return await self._wait_for_outcome(timeout_seconds)
        with ending_on_error(self._trace):
            outcome = await self._wait_for_outcome(timeout_seconds)
        workers = 1 if self._expected is None else self._expected.workers
        self._trace.succeed(measured(self._result_of(outcome), workers=workers))
        return outcome

    async def _wait_for_outcome(self, timeout_seconds: float | None) -> CallResult:
        """Wait in bounded slices, and check the limits between them; the first look precedes every limit."""
        begun = answered = self._clock.monotonic()
        wait_ends = math.inf if timeout_seconds is None else begun + timeout_seconds
        deadline = self._deadline(begun)
        ends, read_timeout_seconds = min(wait_ends, deadline), self._options.unavailable_seconds
        stall = _StallWatch(self._options.stall_seconds, begun)
        # Silence is only noticed after a slice has passed without an answer, so a short limit needs short slices.
        longest_slice = min(stall.slice_seconds, max(_LEAST_SLICE_SECONDS, read_timeout_seconds / 8))
        # If a job had ended before the first look, its duration is unknown.
        watched = self._started_at is not None and begun - self._started_at <= _PROMPT_SECONDS
        while True:
            now = self._clock.monotonic()
            slice_seconds = min(max(0.0, ends - now), longest_slice)
            patience = min(answered + slice_seconds + read_timeout_seconds, ends + _GRACE_SECONDS) - now
            try:
                outcome = await self._look(slice_seconds, patience)
                answered = self._clock.monotonic()
                if outcome is not None:
                    if watched:
                        await self._record_timing(outcome, answered)
                    return outcome
                watched = True
                await self._check_stall(stall, answered, min(read_timeout_seconds, patience))
            except JobNotFoundError:
                raise
            except (UnavailableError, AuthError) as error:
                # An error of the API, or a refused token, says nothing about the state of the job.
                watched = False
                now = self._clock.monotonic()
                if now - answered >= read_timeout_seconds:
                    raise self._unknown(error) from error
                await self._clock.sleep(min(_BACKOFF_SECONDS, max(0.0, ends - now)))
            await self._check_deadline(deadline)
            if timeout_seconds is not None and self._clock.monotonic() >= wait_ends:
                message = f"no result within {timeout_seconds:g} s; the job continues"
                raise WaitTimeoutError(message, function=self.function, call_id=self._call_id)

    async def _check_stall(self, stall: _StallWatch, now: float, patience_seconds: float) -> None:
        if stall.limit_seconds == math.inf:
            return
        stall.look(await self._within(patience_seconds, self._backend.event_count(self._call_id)), now)
        if stall.stalled(now):
            await self._cancel_for("its events stopped", wait_seconds=_GRACE_SECONDS)
            message = f"no new event for {stall.limit_seconds:g} s; the job was cancelled"
            raise JobStalledError(message, function=self.function, call_id=self._call_id)

    async def _check_deadline(self, deadline: float) -> None:
        if self._clock.monotonic() >= deadline:
            await self._cancel_for("its deadline passed", wait_seconds=_GRACE_SECONDS)
            message = f"not finished within its deadline of {self._options.deadline_seconds:g} s; it was cancelled"
            raise FunctionTimeoutError(message, function=self.function, call_id=self._call_id)

    def _unknown(self, error: RemoteError) -> UnavailableError:
        if isinstance(error, UnavailableError):
            return error
        message = f"{error.message}; the state of the job is unknown, and it may still run"
        return UnavailableError(message, function=self.function, call_id=self._call_id)

    async def _look(self, wait_seconds: float, patience_seconds: float) -> CallResult | None:
        """Wait for the outcome; if the backend's answer is overdue, look up the output itself.

        Args:
            wait_seconds: Longest wait of the backend.
            patience_seconds: Longest wait of this call.

        Raises:
            UnavailableError: There was no answer in that time.
        """
        asking = OwnedTask(self._ask(wait_seconds))
        until = self._clock.monotonic() + patience_seconds
        try:
            await wait_for_tick(self._clock, min(wait_seconds + _OVERDUE_SECONDS, patience_seconds), asking.future)
            if not asking.future.done():
                if (published := await self._published()) is not None:
                    return published
                await wait_for_tick(self._clock, max(0.0, until - self._clock.monotonic()), asking.future)
            return self._answer_of(asking.future, patience_seconds)
        finally:
            await asking.cancel()

    async def _within(self, seconds: float, answer: Coroutine[object, object, T]) -> T:
        """Return the answer of the backend, or raise UnavailableError after `seconds`."""
        asking = OwnedTask(answer)
        try:
            await wait_for_tick(self._clock, max(0.0, seconds), asking.future)
            return self._answer_of(asking.future, seconds)
        finally:
            await asking.cancel()

    def _answer_of(self, asking: asyncio.Future[T], seconds: float) -> T:
        if asking.done():
            return asking.result()
        message = f"no response within {seconds:.3g} s; the state of the job is unknown"
        raise UnavailableError(message, function=self.function, call_id=self._call_id)

    async def _ask(self, wait_seconds: float) -> CallResult | None:
        try:
            return await self._backend.wait(self._call_id, wait_seconds)
        except RemoteError as error:
            error.function = self.function  # a backend knows only the call id
            # The machine may have been lost after it published the output and before it answered.
            if (published := await self._published()) is not None:
                return published
            raise

    async def _published(self) -> CallResult | None:
        """Return the result stored next to the job's output; None if it is missing or the store does not answer."""
        if self._find_published is None:
            return None
        purpose = f"the search for the output of {self.id}"
        try:
            value = await run_in_thread(self._find_published, _STORE_SECONDS, purpose=purpose)
        except ReelModalError as error:
            _log.warning("cannot check whether the output of %s exists: %s", self.id, error)
            return None
        return None if value is None else CallResult(value)

    async def _record_timing(self, outcome: CallResult, now: float) -> None:
        """Record the duration of the job, once for all waiters."""
        if self._recorder is None or self._started_at is None or self._timing_recorded:
            return
        self._timing_recorded = True
        if (result := self._result_of(outcome)) is not None:
            seconds = now - self._started_at - outcome.queued_seconds
            await self._recorder.record(result, seconds, self._expected)

    def _result_of(self, outcome: CallResult) -> Result | None:
        """Return the result with the durations and the usage; None if there is none, or if it cannot be read."""
        try:
            return None if self._receipt is None else self._receipt(outcome.value)
        except (RemoteError, RequestError):
            return None  # `result` raises it

    def _deadline(self, begun: float) -> float:
        return (begun if self._started_at is None else self._started_at) + self._options.deadline_seconds

    async def _cancel_for(self, reason: str, *, wait_seconds: float = LET_GO_SECONDS) -> None:
        """Cancel the job for `reason`; a failure to cancel is logged, so that it does not hide the reason."""
        purpose = f"cancelling {self.id} ({reason})"
        await finish(self.cancel(), purpose=purpose, limit_seconds=_CANCEL_SECONDS, wait_seconds=wait_seconds)


async def _no_events() -> AsyncGenerator[ProgressEvent]:
    """Yield nothing: a function from outside this package reports no events."""
    return
    yield


class _StallWatch:
    """Detects that a job has stopped reporting, by its number of events, which any listener can request."""

    def __init__(self, limit_seconds: float, now: float) -> None:
        self.limit_seconds = limit_seconds
        self.slice_seconds = min(_SLICE_SECONDS, limit_seconds / 4)
        self._events = 0
        self._changed_at = now

    def look(self, events: int, now: float) -> None:
        """Record the current number of events."""
        if events != self._events:
            self._events, self._changed_at = events, now

    def stalled(self, now: float) -> bool:
        """Return whether the job runs and has been silent for too long."""
        return self._events > 0 and now - self._changed_at >= self.limit_seconds
