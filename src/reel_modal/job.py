"""One submitted job: its status, its result, its events, its end. The same object for every backend.

It must not know where the job runs, nor how its result is made.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar

from reel_modal.backends.base import Backend, Finished, JobStatus
from reel_modal.errors import (
    AuthError,
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

_log = logging.getLogger(__name__)

_SLICE_SECONDS: Final = 10.0
"""One wait of many: between two of them limits are looked at."""

_CANCEL_SECONDS: Final = 30.0
_GRACE_SECONDS: Final = 5.0
"""How far a wait may outlast its time-out while the backend owes an answer."""

_BACKOFF_SECONDS: Final = 1.0
_STORE_SECONDS: Final = 10.0
_PROMPT_SECONDS: Final = 1.0
"""Whoever first looks so soon after the submission knows when the job ended, even if it already has."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How long a host waits, and what becomes of a job that it no longer waits for.

    Attributes:
        on_cancel: What cancelling the task that awaits a job does to the job: `cancel` it, so that nobody pays for
            what nobody wants, or `detach` from it.
        stall_seconds: A job whose news stop for this long is cancelled; None never. It counts from the first
            news on: a job may wait for its machine.
        deadline_seconds: A job that has not ended this long after its submission is cancelled; None never.
        unavailable_seconds: How long the backend may stay silent before `UnavailableError`; the job goes on.
    """

    on_cancel: Literal["cancel", "detach"] = "cancel"
    stall_seconds: float | None = 180.0
    deadline_seconds: float | None = None
    unavailable_seconds: float = 120.0


def heard(future: asyncio.Future[Any]) -> None:
    """Take note of how a future ended for which nobody may wait any more, so that asyncio does not complain."""
    if not future.cancelled():
        future.exception()


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
        """Return how the job is; `unknown` when nobody could be asked, which is never an end.

        The output is looked at first, where this host knows the store and the request: a job that has published its
        result has succeeded, whatever became of its machine.

        Cancellation: changes nothing.
        """
        try:
            if await self._published() is not None or await self._look(0) is not None:
                return "succeeded"
            return "running" if await self._backend.events_so_far(self._call_id) else "queued"
        except JobCancelledError:
            return "cancelled"
        except (UnavailableError, AuthError, NotDeployedError):
            return "unknown"
        except RemoteError:
            return "failed"

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - `asyncio.timeout` would cancel the job
        """Return the result, waiting for it.

        Args:
            timeout: Longest wait in seconds, a few more while the backend is silent; None waits to the end.

        Raises:
            WaitTimeoutError: It was not there in time; the job goes on.
            JobStalledError: Its news stopped; it was cancelled.
            FunctionTimeoutError: It passed its deadline or its function's time-out.
            JobCancelledError: Somebody cancelled it.
            BadInputError: The function refused its input; `__cause__` is the error that it raised.
            UnavailableError: Nobody could be asked for too long; the job goes on.
            JobNotFoundError: Nobody knows the job.
            RemoteError: It failed in another way; `kind` and `retryable` say how.

        Cancellation: cancels the job as well, unless its options say `detach`.
        """
        try:
            return self._decode((await self._outcome_within(timeout)).value)
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

    async def _outcome_within(self, timeout_seconds: float | None) -> Finished:
        """Wait, and leave a backend that is silent for longer than its answer could still matter."""
        if timeout_seconds is None:
            return await self._outcome(None)
        waiting = OwnedTask(self._outcome(timeout_seconds))
        try:
            await wait_for_tick(self._clock, timeout_seconds + _GRACE_SECONDS, waiting.future)
            if not waiting.future.done():
                raise self._not_yet(timeout_seconds)
            return waiting.future.result()
        finally:
            await waiting.cancel()

    async def _outcome(self, timeout_seconds: float | None) -> Finished:
        """Wait in bounded slices, and look at the limits between them; the first look comes before any limit."""
        begun = answered = self._clock.monotonic()
        wait_ends = math.inf if timeout_seconds is None else begun + timeout_seconds
        deadline = self._deadline(begun)
        stall = _StallWatch(self._options.stall_seconds, begun)
        # Of a job that had ended before anybody looked, nobody knows how long it took.
        watched = self._started_at is not None and begun - self._started_at <= _PROMPT_SECONDS
        while True:
            left = max(0.0, min(wait_ends, deadline) - self._clock.monotonic())
            try:
                outcome = await self._look(min(left, stall.slice_seconds))
                answered = self._clock.monotonic()
                if outcome is not None:
                    if watched:
                        await self._learn(outcome, answered)
                    return outcome
                watched = True
                if stall.limit_seconds is not None:
                    stall.look(await self._backend.events_so_far(self._call_id), answered)
                    if stall.stalled(answered):
                        await self._cancel_for("its news stopped")
                        message = f"no news for {stall.limit_seconds:g} s; the job was cancelled"
                        raise JobStalledError(message, function=self.function, call_id=self._call_id)
            except JobNotFoundError:
                raise
            except UnavailableError:
                # A hiccup of the API says nothing of the job.
                watched = False
                now = self._clock.monotonic()
                if now - answered >= self._options.unavailable_seconds:
                    raise
                await self._clock.sleep(min(_BACKOFF_SECONDS, max(0.0, min(wait_ends, deadline) - now)))
            now = self._clock.monotonic()
            if now >= deadline:
                await self._cancel_for("it passed its deadline")
                message = f"not done within its deadline of {self._options.deadline_seconds:g} s; it was cancelled"
                raise FunctionTimeoutError(message, function=self.function, call_id=self._call_id)
            if timeout_seconds is not None and now >= wait_ends:
                raise self._not_yet(timeout_seconds)

    def _not_yet(self, timeout_seconds: float) -> WaitTimeoutError:
        message = f"no result within {timeout_seconds:g} s; the job goes on"
        return WaitTimeoutError(message, function=self.function, call_id=self._call_id)

    async def _look(self, wait_seconds: float) -> Finished | None:
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
        looking = asyncio.get_running_loop().run_in_executor(None, self._find_published)
        looking.add_done_callback(heard)
        await asyncio.wait({looking}, timeout=_STORE_SECONDS)
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
        if self._options.deadline_seconds is None:
            return math.inf
        return (begun if self._started_at is None else self._started_at) + self._options.deadline_seconds

    async def _cancel_for(self, reason: str) -> None:
        """Cancel the job for a reason of our own; a failure of that is told, and does not hide the reason."""
        cancelling = asyncio.ensure_future(asyncio.wait_for(self.cancel(), _CANCEL_SECONDS))
        try:
            await asyncio.shield(cancelling)
        except (RemoteError, TimeoutError) as error:
            _log.warning("%s could not be cancelled although %s: %s", self.id, reason, error)


async def _no_events() -> AsyncGenerator[ProgressEvent]:
    """What a function reports that knows nothing of this package."""
    return
    yield


class _StallWatch:
    """Whether the news of a job have stopped: by the number of its events, which any listener can ask for."""

    def __init__(self, limit_seconds: float | None, now: float) -> None:
        self.limit_seconds = limit_seconds
        self.slice_seconds = _SLICE_SECONDS if limit_seconds is None else min(_SLICE_SECONDS, limit_seconds / 4)
        self._events = 0
        self._changed_at = now

    def look(self, events: int, now: float) -> None:
        """Take the number of events so far."""
        if events != self._events:
            self._events, self._changed_at = events, now

    def stalled(self, now: float) -> bool:
        """Return whether the job runs and is silent for too long."""
        return self.limit_seconds is not None and self._events > 0 and now - self._changed_at >= self.limit_seconds
