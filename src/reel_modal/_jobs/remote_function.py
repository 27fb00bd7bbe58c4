"""A function that runs elsewhere and is called like a local one: the registry's, or any of another Modal app.

Imports neither modal nor OpenCV.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing, nullcontext
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, Self, TypeVar, cast
from weakref import WeakValueDictionary

from reel_modal._jobs.estimates import Estimate
from reel_modal._jobs.job import Job
from reel_modal._jobs.options import JobOptions
from reel_modal._jobs.parallel import Parallel
from reel_modal._jobs.submission import CallAdapter, PreparedCall
from reel_modal._support.background import finish, keep
from reel_modal._support.clock import Clock, wait_for_tick
from reel_modal._support.portal import run_in_this_thread, run_sync
from reel_modal._support.single_flight import SingleFlight
from reel_modal._support.tasks import OwnedTask
from reel_modal._support.threads import run_in_thread
from reel_modal._support.tracing import JobTrace
from reel_modal.backends.base import Backend
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import (
    ConfigError,
    JobConflictError,
    JobNotFoundError,
    RemoteError,
    RequestError,
    UnavailableError,
)
from reel_modal.functions.resources import Resources
from reel_modal.progress import ProgressPlan, ProgressUpdate

__all__ = ["RemoteFunction", "map_bounded"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
P2 = ParamSpec("P2")
R2 = TypeVar("R2")

_log = logging.getLogger(__name__)

_CHECK_SECONDS: Final = 30.0
_LONGEST_SHOWN: Final = 120
_MOST_REMEMBERED: Final = 10_000
_WITHDRAW_SECONDS: Final = 120.0


class RemoteFunction(Generic[P, R]):
    """A function that runs elsewhere and is called like a local one.

    No request is sent before the first call. The function is looked up once, even if many tasks, threads and event
    loops make the first call at the same time.

    Args:
        name: Name of the function.
        backend: Where it runs.
        options: Limits of the waits, and the effect of a cancelled wait; default: no stall limit.
        clock: Clock of its waits; default: the clock of the backend.
    """

    def __init__(
        self, name: str, backend: Backend, *, options: JobOptions | None = None, clock: Clock | None = None
    ) -> None:
        self.name: str = name
        self._backend = backend
        self._options = options or JobOptions(stall_seconds=math.inf)
        self._clock = clock or backend.clock
        self._adapter: CallAdapter[P, R] = CallAdapter()
        self._deduplicator: _Deduplicator[R] = _Deduplicator()
        self._submitted: WeakValueDictionary[str, Job[R]] = WeakValueDictionary()

    @classmethod
    def adapted(
        cls,
        name: str,
        backend: Backend,
        adapter: CallAdapter[P, R],
        *,
        options: JobOptions | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Return a function whose calls go through `adapter`; internal to the package."""
        function = cls(name, backend, options=options, clock=clock)
        function._adapter = adapter
        return function

    def __repr__(self) -> str:
        return f"RemoteFunction({self.name!r}, {self._backend!r})"

    @staticmethod
    def from_modal(
        app: str,
        name: str,
        signature: Callable[P2, R2],
        *,
        environment: str | None = None,
        plan: ProgressPlan | None = None,
        reports: bool = False,
    ) -> RemoteFunction[P2, R2]:
        """Return any function of any deployed Modal app.

        Args:
            app: Name of the app.
            name: Name of the function.
            signature: A function with the same parameters and result. Only type checkers use it; it is not called.
            environment: Modal environment; None is the default of the Modal profile.
            plan: Plan of its jobs, for `Job.progress`; default the plan for jobs of unknown duration.
            reports: Whether the function reports its progress with `report_progress`.

        Example:
            >>> def thumbnail(url: str, width_px: int = 320) -> bytes: ...
            >>> remote = RemoteFunction.from_modal("media-tools", "thumbnail", thumbnail)
        """
        del signature
        adapter: CallAdapter[P2, R2] = CallAdapter(reports=reports, plan=plan)
        return RemoteFunction.adapted(name, ModalBackend(app, environment=environment), adapter)

    def with_options(
        self,
        *,
        on_cancel: Literal["cancel", "detach"] | None = None,
        stall_seconds: float | None = None,
        deadline_seconds: float | None = None,
        unavailable_seconds: float | None = None,
        parallel: Parallel | None = None,
        resources: Resources | None = None,
    ) -> RemoteFunction[P, R]:
        """Return the function with other options; None keeps the current value, `math.inf` disables the limit.

        The options are those of `JobOptions`.

        Raises:
            ConfigError: A value is not of its type or out of range; the message names it.
        """
        other, old = copy(self), self._options
        other._options = options = JobOptions(  # noqa: SLF001 - a copy of this very object
            on_cancel=old.on_cancel if on_cancel is None else on_cancel,
            stall_seconds=old.stall_seconds if stall_seconds is None else stall_seconds,
            deadline_seconds=old.deadline_seconds if deadline_seconds is None else deadline_seconds,
            unavailable_seconds=(old.unavailable_seconds if unavailable_seconds is None else unavailable_seconds),
            parallel=old.parallel if parallel is None else parallel,
            resources=old.resources if resources is None else resources,
        )
        if replace(options, parallel=old.parallel, resources=old.resources) != old:
            other._submitted = WeakValueDictionary()  # noqa: SLF001 - jobs keep the wait limits that they began with
        return other

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Submit one job and return its result; see `submit` and `Job.result` for the errors.

        Cancellation: also cancels the job, unless the options say `detach`.
        """
        return await (await self.submit(*args, **kwargs)).result()

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Submit one job and return its result, from code without an event loop; Ctrl-C cancels the job.

        Raises:
            BlockingCallError: An event loop runs in this thread.
        """
        return run_sync(self(*args, **kwargs))

    def call_with_progress(
        self, on_update: Callable[[ProgressUpdate], object], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Do the same as `call`, and pass each update of `Job.progress` to `on_update`, in this thread.

        An exception of `on_update` is raised to the caller and cancels the job, as Ctrl-C does.

        Raises:
            BlockingCallError: An event loop runs in this thread.

        Example:
            >>> registry["make_thumbnail"].call_with_progress(lambda update: print(describe(update)), request)
        """
        return run_in_this_thread(self._watched(on_update, *args, **kwargs))

    async def _watched(
        self, on_update: Callable[[ProgressUpdate], object], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        job = await self.submit(*args, **kwargs)
        # Await the result from the start: the job is then cancelled with its waiter, however this block ends.
        result = OwnedTask(job.result())
        try:
            async with aclosing(job.progress()) as updates:
                async for update in updates:
                    on_update(update)
                    if _has_no_end(result.future):
                        break
            return await result.future
        finally:
            await result.cancel()

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Start one job and return it; the job continues whether or not a task waits for it.

        The same `job_id` with the same request returns the same job, unless that has failed, was cancelled or
        forgotten, is no longer known, or is not one of the last 10,000. Other processes do not know the id; a job of
        theirs is reused once it has published its output.

        Raises:
            ConfigError: No store is set, its folder is not found, the registry is closed, or the function cannot have
                the `resources`; the message says which.
            RequestError: The request names a network that is not registered.
            JobConflictError: The `job_id` was submitted with another request, even if that job failed; see `forget`.
            JobRefusedError: On Modal, the job is expected to need more than 80 % of the function's timeout, to cost
                more than the budget, or to exceed the limits of `parallel`. Nothing was submitted.
            NotDeployedError: The function does not exist.
            AuthError: The token is missing, or Modal refuses it.
            UnavailableError: The backend is unreachable; the job may or may not have been started. Or it was silent
                for `unavailable_seconds`; if the job starts later, it is cancelled.
            RemoteError: The job could not be started for another reason.

        Cancellation: cancels a job that was started meanwhile, unless the options say `detach`. The call returns
        within half a second; if the backend has not answered by then, the cancellation continues in the background,
        for at most two minutes, and is logged.
        """
        self._deduplicator.check_open(self.name)
        if self._options.on_cancel == "cancel":
            return await self._submit_once(*args, **kwargs)
        starting = asyncio.ensure_future(self._submit_once(*args, **kwargs))
        try:
            return await asyncio.shield(keep(starting))
        except asyncio.CancelledError:
            starting.add_done_callback(self._log_detached)
            raise

    async def map(
        self: RemoteFunction[Concatenate[T, P2], R],
        items: Iterable[T],
        *,
        concurrency: int = 8,
        ordered: bool = True,
    ) -> AsyncGenerator[R]:
        """Yield the results of many jobs, of which at most `concurrency` are submitted and not yet yielded.

        Args:
            items: Each item is the only argument of one job; items are taken as they are needed.
            concurrency: 1 or more.
            ordered: Whether results come in the order of `items`; otherwise they come in the order of completion.

        Raises:
            ConfigError: `concurrency` is less than 1.
            RemoteError: The first job that failed raised it; the others are cancelled.

        Cancellation: cancels the running jobs. Leaving the loop early does the same, once the generator is closed.
        """
        # The other arguments have defaults.
        call = cast("Callable[[T], Coroutine[object, object, R]]", self)
        async with aclosing(map_bounded(call, items, concurrency=concurrency, ordered=ordered)) as results:
            async for result in results:
                yield result

    async def hydrate(self) -> None:
        """Look up the function now; otherwise the first call does so.

        Raises:
            RemoteError: The function does not exist, or the backend is unreachable; the next call asks again.
        """
        await self._backend.hydrate(self.name)

    def job(self, call_id: str, *, published: Callable[[], object | None] | None = None) -> Job[R]:
        """Return a job that was submitted before, by its call id; sends no request.

        Args:
            call_id: Id of the call.
            published: Returns the result of the job if its output is already published.

        Raises:
            ConfigError: `call_id` does not have the form of the backend's ids.
        """
        if not isinstance(call_id, str) or not self._backend.is_call_id(call_id):
            raise ConfigError(
                f"{shortened(call_id)} is not the id of a call of {self.name} on {self._backend.name!r}"
            )
        known = self._submitted.get(call_id)
        return self._job(call_id, attached=True, published=published) if known is None else known

    def forget(self, job_id: str) -> None:
        """Let the next submission of `job_id` start a new job, for example after its output was deleted."""
        self._deduplicator.forget(job_id)

    def close(self) -> None:
        """Reject further submissions; jobs that were submitted can still be awaited."""
        self._deduplicator.close()

    async def _submit_once(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        prepare = self._adapter.prepare
        call = PreparedCall(args, kwargs) if prepare is None else prepare(*args, **kwargs)
        if call.job_id is None:
            return await self._submit(call)
        return await self._deduplicator.submit_once(call.job_id, call.content, partial(self._submit, call))

    async def _submit(self, call: PreparedCall) -> Job[R]:
        trace = JobTrace.start(self.name, self._clock)
        try:
            return await self._start_job(call, trace)
        except BaseException as error:
            if trace is not None:
                trace.fail(error)
            raise

    async def _start_job(self, call: PreparedCall, trace: JobTrace | None) -> Job[R]:
        expected, parallel = None, self._options.parallel
        if call.check is not None:
            check = partial(call.check, parallel, self._options.resources)
            expected = await run_in_thread(check, _CHECK_SECONDS, purpose=f"the check of a job of {self.name}")
        elif parallel is not None:
            raise ConfigError(f"{self.name} is not declared with render_function, so its jobs use one machine each")
        self._deduplicator.check_open(self.name)  # it may have been closed during the check
        with nullcontext() if trace is None else trace.submitting():
            call_id = await self._start(call, 1 if expected is None else expected.workers)
        # A later `job(call_id)` in this process gets this object, which knows, for example, its submission time.
        job = self._job(call_id, attached=False, expected=expected, published=call.find_published, trace=trace)
        self._submitted[call_id] = job
        return job

    async def _start(self, call: PreparedCall, workers: int) -> str:
        """Start a call and return its id; if the caller does not get the id, the call is cancelled."""
        limit_seconds = self._options.unavailable_seconds
        submit = partial(self._backend.submit, workers=workers, resources=self._options.resources)
        starting = asyncio.ensure_future(submit(self.name, call.args, call.kwargs))
        try:
            await wait_for_tick(self._clock, limit_seconds, starting)
            if not starting.done():
                raise UnavailableError(f"no response within {limit_seconds:g} s", function=self.name)
            return starting.result()
        finally:
            if not starting.done():
                purpose = f"cancelling the job that an unfinished submission of {self.name} may have started"
                await finish(self._withdraw(starting), purpose=purpose, limit_seconds=_WITHDRAW_SECONDS)

    async def _withdraw(self, starting: asyncio.Future[str]) -> None:
        """Cancel a call that may still be starting, since no caller would get its id."""
        try:
            call_id = await starting
        except RemoteError as error:
            _log.warning("an unfinished submission of %s may have started a job: %s", self.name, error)
            return
        await self._backend.cancel(call_id)

    def _log_detached(self, starting: asyncio.Future[Job[R]]) -> None:
        if starting.cancelled():
            _log.warning("a submission of %s was not finished when the event loop ended", self.name)
        elif (error := starting.exception()) is not None:
            _log.warning("a detached submission of %s failed: %s", self.name, error)

    def _job(
        self,
        call_id: str,
        *,
        attached: bool,
        expected: Estimate | None = None,
        published: Callable[[], object | None] | None = None,
        trace: JobTrace | None = None,
    ) -> Job[R]:
        return Job(
            self._backend,
            self.name,
            call_id,
            self._decode_result,
            options=self._options,
            attached=attached,
            receipt=self._adapter.receipt,
            reports=self._adapter.reports,
            expected=expected,
            plan=self._adapter.plan,
            recorder=self._adapter.recorder_for(self._options.resources),
            published=published,
            clock=self._clock,
            trace=trace,
        )

    def _decode_result(self, value: object) -> R:
        if self._adapter.decode is None:
            return value  # type: ignore[return-value]
        try:
            return self._adapter.decode(value)
        except RequestError as error:
            # A result of another version of this package does not mean that the function refused its input.
            unreadable = RemoteError(f"its result cannot be read: {error}", function=self.name)
            raise unreadable from error


class _Deduplicator(Generic[R]):
    """Registry of the job ids in use, so that a request that is submitted twice is rendered once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._submissions: OrderedDict[str, tuple[str, SingleFlight[Job[R]]]] = OrderedDict()
        self._closed = False

    def close(self) -> None:
        """Reject all further submissions."""
        self._closed = True

    def forget(self, job_id: str) -> None:
        """Forget the job of `job_id`."""
        with self._lock:
            self._submissions.pop(job_id, None)

    def check_open(self, function: str) -> None:
        """Raise ConfigError if this object was closed."""
        if self._closed:
            raise ConfigError(
                f"{function} was submitted to a registry that is closed; create another one, or close it later"
            )

    async def submit_once(self, job_id: str, content: str, start: Callable[[], Awaitable[Job[R]]]) -> Job[R]:
        """Return the job `job_id`; start it if it is new or can be replaced. `content` is a hash of its request."""
        with self._lock:
            submitted_content, flight = self._submissions.setdefault(job_id, (content, SingleFlight()))
            self._submissions.move_to_end(job_id)
            while len(self._submissions) > _MOST_REMEMBERED:
                self._submissions.popitem(last=False)
        if submitted_content != content:
            raise JobConflictError(
                f"job_id {job_id!r} was submitted with another request; use another job_id for each request"
            )
        try:
            if (previous := flight.value) is not None and await previous._can_be_replaced():  # noqa: SLF001
                flight.forget(previous)
            return await flight.get(start)
        finally:
            with self._lock:
                # If the job was never started, its id is free for any request.
                if flight.empty and self._submissions.get(job_id) == (content, flight):
                    del self._submissions[job_id]


def _has_no_end(result: asyncio.Future[Any]) -> bool:
    """Return whether the wait for a result was given up, while the progress of the job continues."""
    error = result.exception() if result.done() and not result.cancelled() else None
    return isinstance(error, UnavailableError) and not isinstance(error, JobNotFoundError)


async def map_bounded(
    call: Callable[[T], Coroutine[object, object, R]], items: Iterable[T], *, concurrency: int, ordered: bool
) -> AsyncGenerator[R]:
    """Yield the results of `call` for all items, with at most `concurrency` calls running or waiting to be yielded.

    Raises:
        ConfigError: `concurrency` is below 1.
        Exception: The exception of the first call that failed; the others are cancelled.

    Cancellation: cancels the running calls. Closing the generator does the same.
    """
    if concurrency < 1:
        raise ConfigError(f"concurrency is {concurrency}; it must be 1 or more")
    waiting, running = iter(items), list[asyncio.Task[R]]()
    try:
        while True:
            while len(running) < concurrency and (item := next(waiting, _NOTHING)) is not _NOTHING:
                running.append(asyncio.ensure_future(call(item)))
            if not running:
                return
            if ordered:
                await asyncio.wait({running[0]})
            else:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in [running[0]] if ordered else [task for task in running if task.done()]:
                running.remove(task)
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)


def shortened(value: object) -> str:
    """Return `repr(value)`, shortened to fit into a message."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


_NOTHING: Final[Any] = object()
