"""One submitted job: its status, its result, its events, its end. The same object for every backend.

It must not know where the job runs, nor how its result is made.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeAlias, TypeVar, get_args

from reel_modal.backends.across_loops import run_in_thread
from reel_modal.backends.base import Backend, Finished, JobStatus
from reel_modal.background import LET_GO_SECONDS, finish
from reel_modal.config import limit_problem
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
    UnavailableError,
    WaitTimeoutError,
)
from reel_modal.experience import Experience
from reel_modal.progress import ProgressEvent, ProgressPlan, ProgressUpdate, progress_of
from reel_modal.progress.clocks import SYSTEM_CLOCK, Clock, wait_for_tick
from reel_modal.progress.owned_task import OwnedTask
from reel_modal.schema import RenderResult
from reel_modal.shared_watch import SharedWatch

__all__ = ["Job", "JobOptions"]

R = TypeVar("R")
T = TypeVar("T")

OnCancel: TypeAlias = Literal["cancel", "detach"]

_log = logging.getLogger(__name__)

_SLICE_SECONDS: Final = 10.0
"""One wait of many: between two of them limits are looked at."""

_LEAST_SLICE_SECONDS: Final = 1.0
_OVERDUE_SECONDS: Final = 0.5
"""When a backend that is to answer after a slice is taken to be silent: then the store is asked as well."""

_STATUS_SECONDS: Final = 10.0
_CANCEL_SECONDS: Final = 30.0
_GRACE_SECONDS: Final = 5.0
"""How far a wait may outlast its time-out while the backend owes an answer."""

_BACKOFF_SECONDS: Final = 1.0
_STORE_SECONDS: Final = 10.0
_PROMPT_SECONDS: Final = 1.0
"""Whoever first looks so soon after the submission knows when the job ended, even if it already has."""


@dataclass(frozen=True, slots=True, init=False)
class JobOptions:
    """How long a host waits, and what becomes of a job that it no longer waits for.

    An argument that is None, or left out, keeps the default; `RemoteFunction.with_options` keeps the current value.
    `math.inf` disables a limit.

    Attributes:
        on_cancel: What cancelling the task that awaits a job does to the job: `cancel` it, which also ends what it
            costs, or `detach` from it. Default `cancel`.
        stall_seconds: A job whose events stop for this long is cancelled. It counts from the first event on: a job
            may wait for its machine. Default 180.
        deadline_seconds: A job that has not ended this long after its submission is cancelled. Default `math.inf`.
        unavailable_seconds: How long the backend may stay silent before `UnavailableError`; the job goes on.
            Default 120.

    Raises:
        ConfigError: A value is not of its type or out of range; the message names the field.

    Example:
        >>> JobOptions(stall_seconds=math.inf, deadline_seconds=None)
        JobOptions(on_cancel='cancel', stall_seconds=inf, deadline_seconds=inf, unavailable_seconds=120.0)
    """

    on_cancel: OnCancel
    stall_seconds: float
    deadline_seconds: float
    unavailable_seconds: float

    def __init__(
        self,
        on_cancel: OnCancel | None = None,
        stall_seconds: float | None = None,
        deadline_seconds: float | None = None,
        unavailable_seconds: float | None = None,
    ) -> None:
        if on_cancel not in (None, *get_args(OnCancel)):
            raise ConfigError(f"on_cancel={on_cancel!r} is not known; write one of {', '.join(get_args(OnCancel))}")
        object.__setattr__(self, "on_cancel", on_cancel or "cancel")
        limits = {
            "stall_seconds": 180.0 if stall_seconds is None else stall_seconds,
            "deadline_seconds": math.inf if deadline_seconds is None else deadline_seconds,
            "unavailable_seconds": 120.0 if unavailable_seconds is None else unavailable_seconds,
        }
        for name, seconds in limits.items():
            if (problem := limit_problem(seconds)) is not None:
                raise ConfigError(f"{name}={seconds!r} {problem}, and None keeps the default")
            object.__setattr__(self, name, seconds)


class Job(Generic[R]):
    """A job that was submitted; `RemoteFunction.submit` and `FunctionRegistry.attach` make it.

    Attributes:
        id: Opaque; `FunctionRegistry.attach(id)` finds the job again, after a restart too.
        function: The function's name.
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
        reports: bool = True,
        plan: ProgressPlan | None = None,
        experience: Experience | None = None,
        published: Callable[[], object | None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.id: str = f"{backend.name}:{function}:{call_id}"
        self.function: str = function
        self._backend = backend
        self._call_id = call_id
        self._decode = decode
        self._options = options
        self._clock = clock
        self._started_at = None if attached else clock.monotonic()
        self._watch = SharedWatch(self.events if reports else _no_events, self._end, clock)
        self._plan = plan
        self._experience = experience
        self._find_published = published
        self._learned = attached  # whoever submitted it has the whole story

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    async def status(self) -> JobStatus:
        """Return how the job is; `unknown` if the backend could not be asked, which is never an end.

        The output is looked at first if this host knows the store and the request: a job that has published its
        result has succeeded, whatever became of its machine. A backend that is silent is `unknown` after ten seconds.

        Cancellation: changes nothing.
        """
        try:
            if await self._published() is not None:
                return "succeeded"
            if await self._within(_STATUS_SECONDS, self._ask(0)) is not None:
                return "succeeded"
            events = await self._within(_STATUS_SECONDS, self._backend.events_so_far(self._call_id))
        except JobCancelledError:
            return "cancelled"
        except (UnavailableError, AuthError, NotDeployedError):
            return "unknown"
        except RemoteError:
            return "failed"
        return "running" if events else "queued"

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - `asyncio.timeout` would cancel the job
        """Return the result, waiting for it.

        While the backend is silent, the output itself is looked for, if this host knows the store and the request.

        Args:
            timeout: Longest wait in seconds, up to five more while the backend is silent; None waits to the end.

        Raises:
            WaitTimeoutError: It was not there in time; the job goes on.
            JobStalledError: Its news stopped; it was cancelled.
            FunctionTimeoutError: It passed its deadline or its function's time-out.
            JobCancelledError: It was cancelled.
            BadInputError: The function refused its input; `__cause__` is the error that it raised.
            UnavailableError: For `unavailable_seconds` the backend was silent or refused the token; the job goes on.
            JobNotFoundError: The backend does not know the job.
            RemoteError: It failed in another way; `kind` and `retryable` say how.

        Cancellation: cancels the job as well, unless its options say `detach`. That holds for each of several
        waiters: if one of them is cancelled, the job is cancelled for all, and the others get `JobCancelledError`. A
        host in which several tasks wait for one job uses `detach`, or shields the wait (`asyncio.shield`). It returns
        within half a second; a backend that has not answered by then is asked on in the background, for at most 30 s.
        """
        try:
            return self._decode((await self._outcome(timeout)).value)
        except asyncio.CancelledError:
            if self._options.on_cancel == "cancel":
                await self._cancel_for("its waiter was cancelled")
            raise

    async def events(self) -> AsyncGenerator[ProgressEvent]:
        """Yield what the function itself reports, from its first event on; end with the job.

        Raises:
            RemoteError: Nobody could be asked.

        Cancellation: ends this listener; the job goes on.
        """
        async with aclosing(self._backend.events(self._call_id)) as events:
            async for event in events:
                yield event

    async def progress(
        self, plan: ProgressPlan | None = None, *, interval_seconds: float = 0.5
    ) -> AsyncGenerator[ProgressUpdate]:
        """Yield what to show of the job: planned until its first event, then measured, never backwards.

        The last update is `complete` or `error`; it raises nothing of the job's own. Any number may listen, and who
        comes late starts where the job is. While nobody can be asked it goes on, and says that there are no news.

        Args:
            plan: What is expected; default what was estimated of this very job when it was submitted, else what the
                registry's history has learned of the function, or without one the table of the first apps on Modal.
            interval_seconds: Between two updates.

        Raises:
            ConfigError: The interval is not above 0.

        Cancellation: ends this listener; the job goes on.
        """
        async with self._watch.listening() as (events, end):
            plan = plan or self._plan
            if plan is None and self._experience is not None:
                plan = await self._experience.plan()
            updates = progress_of(
                events,
                end,
                started_at=self._started_at,
                plan=plan,
                clock=self._clock,
                interval_seconds=interval_seconds,
            )
            async with aclosing(updates):
                async for update in updates:
                    yield update

    async def cancel(self) -> None:
        """End the job and everything that it started; of one that has ended, nothing changes.

        Raises:
            UnavailableError: Nobody could be asked; the job may go on.

        Cancellation: may leave the job running.
        """
        await self._backend.cancel(self._call_id)

    async def _end(self) -> Finished:
        """Wait for the outcome, however long nobody can be asked: a network that drops is no end of a job."""
        while True:
            try:
                return await self._outcome(None)
            except JobNotFoundError:
                raise
            except UnavailableError:
                await self._clock.sleep(_BACKOFF_SECONDS)

    async def _outcome(self, timeout_seconds: float | None) -> Finished:
        """Wait in bounded slices, and look at the limits between them; the first look comes before any limit."""
        begun = answered = self._clock.monotonic()
        wait_ends = math.inf if timeout_seconds is None else begun + timeout_seconds
        deadline = self._deadline(begun)
        ends, silent_seconds = min(wait_ends, deadline), self._options.unavailable_seconds
        stall = _StallWatch(self._options.stall_seconds, begun)
        # Silence shows when a slice has passed without an answer, so a short limit needs short slices.
        longest_slice = min(stall.slice_seconds, max(_LEAST_SLICE_SECONDS, silent_seconds / 8))
        # If a job had ended before the first look, it is not known how long it took.
        watched = self._started_at is not None and begun - self._started_at <= _PROMPT_SECONDS
        while True:
            now = self._clock.monotonic()
            slice_seconds = min(max(0.0, ends - now), longest_slice)
            patience = min(answered + slice_seconds + silent_seconds, ends + _GRACE_SECONDS) - now
            try:
                outcome = await self._look(slice_seconds, patience)
                answered = self._clock.monotonic()
                if outcome is not None:
                    if watched:
                        await self._learn(outcome, answered)
                    return outcome
                watched = True
                await self._check_stall(stall, answered, min(silent_seconds, patience))
            except JobNotFoundError:
                raise
            except (UnavailableError, AuthError) as error:
                # A hiccup of the API, or a token that it refuses, says nothing of the job.
                watched = False
                now = self._clock.monotonic()
                if now - answered >= silent_seconds:
                    raise self._unknown(error) from error
                await self._clock.sleep(min(_BACKOFF_SECONDS, max(0.0, ends - now)))
            await self._check_deadline(deadline)
            if timeout_seconds is not None and self._clock.monotonic() >= wait_ends:
                message = f"no result within {timeout_seconds:g} s; the job goes on"
                raise WaitTimeoutError(message, function=self.function, call_id=self._call_id)

    async def _check_stall(self, stall: _StallWatch, now: float, patience_seconds: float) -> None:
        if stall.limit_seconds == math.inf:
            return
        stall.look(await self._within(patience_seconds, self._backend.events_so_far(self._call_id)), now)
        if stall.stalled(now):
            await self._cancel_for("its news stopped", wait_seconds=_GRACE_SECONDS)
            message = f"no news for {stall.limit_seconds:g} s; the job was cancelled"
            raise JobStalledError(message, function=self.function, call_id=self._call_id)

    async def _check_deadline(self, deadline: float) -> None:
        if self._clock.monotonic() >= deadline:
            await self._cancel_for("it passed its deadline", wait_seconds=_GRACE_SECONDS)
            message = f"not done within its deadline of {self._options.deadline_seconds:g} s; it was cancelled"
            raise FunctionTimeoutError(message, function=self.function, call_id=self._call_id)

    def _unknown(self, error: RemoteError) -> UnavailableError:
        if isinstance(error, UnavailableError):
            return error
        message = f"{error.message}; the state of the job is unknown, and it may go on"
        return UnavailableError(message, function=self.function, call_id=self._call_id)

    async def _look(self, wait_seconds: float, patience_seconds: float) -> Finished | None:
        """Wait for the outcome; if the backend's answer is overdue, look for the output itself.

        Args:
            wait_seconds: Longest that the backend is to wait.
            patience_seconds: Longest for all of it.

        Raises:
            UnavailableError: No answer came in that time.
        """
        asking = OwnedTask(self._ask(wait_seconds))
        until = self._clock.monotonic() + patience_seconds
        try:
            await wait_for_tick(self._clock, min(wait_seconds + _OVERDUE_SECONDS, patience_seconds), asking.future)
            if not asking.future.done() and (published := await self._published()) is not None:
                return published
            await wait_for_tick(self._clock, max(0.0, until - self._clock.monotonic()), asking.future)
            return self._answer_of(asking.future, patience_seconds)
        finally:
            await asking.cancel()

    async def _within(self, seconds: float, answer: Coroutine[object, object, T]) -> T:
        """Return what the backend answers, or raise UnavailableError after `seconds`."""
        asking = OwnedTask(answer)
        try:
            await wait_for_tick(self._clock, max(0.0, seconds), asking.future)
            return self._answer_of(asking.future, seconds)
        finally:
            await asking.cancel()

    def _answer_of(self, asking: asyncio.Future[T], seconds: float) -> T:
        if asking.done():
            return asking.result()
        message = f"no answer came within {seconds:.3g} s; the state of the job is unknown"
        raise UnavailableError(message, function=self.function, call_id=self._call_id)

    async def _ask(self, wait_seconds: float) -> Finished | None:
        try:
            return await self._backend.wait(self._call_id, wait_seconds)
        except RemoteError as error:
            error.function = self.function  # a backend knows the call by its id alone
            # The machine may have been lost between publishing and answering.
            if (published := await self._published()) is not None:
                return published
            raise

    async def _published(self) -> Finished | None:
        """Return the result that lies beside the job's output, as far as the store answers in time."""
        if self._find_published is None:
            return None
        looking = await run_in_thread(self._find_published, _STORE_SECONDS)
        if not looking.done():
            _log.warning("the store did not say within %g s whether %s has its output", _STORE_SECONDS, self.id)
            return None
        try:
            value = looking.result()
        except ReelModalError as error:
            _log.warning("the store did not say whether %s has its output: %s", self.id, error)
            return None
        return None if value is None else Finished(value)

    async def _learn(self, outcome: Finished, now: float) -> None:
        """Remember how long the job took, once, however many wait for it."""
        if self._experience is None or self._started_at is None or self._learned:
            return
        self._learned = True
        try:
            result = self._decode(outcome.value)
        except RemoteError:
            return  # `result` raises it
        if isinstance(result, RenderResult):
            await self._experience.learn(result, now - self._started_at - outcome.queued_seconds)

    def _deadline(self, begun: float) -> float:
        return (begun if self._started_at is None else self._started_at) + self._options.deadline_seconds

    async def _cancel_for(self, reason: str, *, wait_seconds: float = LET_GO_SECONDS) -> None:
        """Cancel the job for a reason of our own; a failure of that is logged, and does not hide the reason."""
        purpose = f"cancelling {self.id}, since {reason},"
        await finish(self.cancel(), purpose=purpose, limit_seconds=_CANCEL_SECONDS, wait_seconds=wait_seconds)


async def _no_events() -> AsyncGenerator[ProgressEvent]:
    """What a function reports that knows nothing of this package."""
    return
    yield


class _StallWatch:
    """Whether the news of a job have stopped: by the number of its events, which any listener can ask for."""

    def __init__(self, limit_seconds: float, now: float) -> None:
        self.limit_seconds = limit_seconds
        self.slice_seconds = min(_SLICE_SECONDS, limit_seconds / 4)
        self._events = 0
        self._changed_at = now

    def look(self, events: int, now: float) -> None:
        """Take the number of events so far."""
        if events != self._events:
            self._events, self._changed_at = events, now

    def stalled(self, now: float) -> bool:
        """Return whether the job runs and is silent for too long."""
        return self._events > 0 and now - self._changed_at >= self.limit_seconds
