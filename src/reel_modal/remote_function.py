"""One function that runs elsewhere, called like one that runs here: the registry's own, or any of another Modal app.

It must load neither modal nor OpenCV, and must not know how a job is run.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from copy import copy
from functools import partial
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, TypeVar, cast
from weakref import WeakValueDictionary

from reel_modal.backends.across_loops import run_in_thread
from reel_modal.backends.base import Backend
from reel_modal.backends.modal import ModalBackend
from reel_modal.background import finish, keep
from reel_modal.blocking import run_in_this_thread, run_sync
from reel_modal.errors import ConfigError, RemoteError, RequestError
from reel_modal.experience import Experience
from reel_modal.job import Job, JobOptions
from reel_modal.progress import ProgressPlan, ProgressUpdate
from reel_modal.progress.clocks import Clock
from reel_modal.progress.owned_task import OwnedTask
from reel_modal.submissions import Submissions

__all__ = ["RemoteFunction"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
P2 = ParamSpec("P2")
R2 = TypeVar("R2")

_log = logging.getLogger(__name__)

_CHECK_SECONDS: Final = 30.0
_LONGEST_SHOWN: Final = 120
_WITHDRAW_SECONDS: Final = 120.0


class RemoteFunction(Generic[P, R]):
    """A function that runs elsewhere, called like one that runs here.

    Nothing touches the network before the first call; the function is looked up once, however many tasks, threads
    and event loops call first.

    Args:
        name: Of the function.
        backend: Where it runs.
        encode: Turns the arguments into what goes over the wire; default: they go as they are.
        decode: Turns what comes back into the result; default: it is the result.
        identify: Gives the `job_id` of the arguments and a hash of the rest; where it is given, the same job is
            submitted once.
        options: Limits of a wait, and what cancelling it does.
        reports: Whether the function sends events, as those of this package do; the progress of one that sends none
            goes by the plan.
        experience: What finished jobs took; default: nothing is learned.
        check: Refuses arguments before anything is submitted, and says what is expected of the job where it can; it
            may block, and is called in a thread.
        published: Gives a function that returns what a job of the arguments sent, where its output is there already.
        clock: Where the time of its waits comes from; default: the backend's clock.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        *,
        encode: Callable[P, tuple[object, ...]] | None = None,
        decode: Callable[[object], R] | None = None,
        identify: Callable[P, tuple[str, str]] | None = None,
        options: JobOptions | None = None,
        reports: bool = True,
        experience: Experience | None = None,
        check: Callable[P, ProgressPlan | None] | None = None,
        published: Callable[P, Callable[[], object | None] | None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name: str = name
        self._backend = backend
        self._encode = encode
        self._decode = decode
        self._options = options or JobOptions(stall_seconds=math.inf)
        self._clock = clock or backend.clock
        self._identify = identify
        self._reports = reports
        self._experience = experience
        self._published = published
        self._check = check
        self._submissions: Submissions[R] = Submissions()
        self._submitted: WeakValueDictionary[str, Job[R]] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"RemoteFunction({self.name!r}, {self._backend!r})"

    @staticmethod
    def from_modal(
        app: str, name: str, signature: Callable[P2, R2], *, environment: str | None = None
    ) -> RemoteFunction[P2, R2]:
        """Return any function of any deployed Modal app.

        Args:
            app: The app's name.
            name: The function's name.
            signature: A function with the same parameters and result, for type checkers alone; it is not called.
            environment: Modal's environment; None is the profile's own.

        Example:
            >>> def thumbnail(url: str, width_px: int = 320) -> bytes: ...
            >>> remote = RemoteFunction.from_modal("media-tools", "thumbnail", thumbnail)
        """
        del signature
        return RemoteFunction(name, ModalBackend(app, environment=environment), reports=False)

    def with_options(
        self,
        *,
        on_cancel: Literal["cancel", "detach"] | None = None,
        stall_seconds: float | None = None,
        deadline_seconds: float | None = None,
        unavailable_seconds: float | None = None,
    ) -> RemoteFunction[P, R]:
        """Return the function with other options; None keeps the current value, `math.inf` disables the limit.

        Raises:
            ConfigError: A value is not of its type or out of range; the message names it.
        """
        other = copy(self)
        other._submitted = WeakValueDictionary()  # noqa: SLF001 - jobs keep the options that they began with
        other._options = JobOptions(  # noqa: SLF001 - a copy of this very object
            on_cancel=self._options.on_cancel if on_cancel is None else on_cancel,
            stall_seconds=self._options.stall_seconds if stall_seconds is None else stall_seconds,
            deadline_seconds=self._options.deadline_seconds if deadline_seconds is None else deadline_seconds,
            unavailable_seconds=(
                self._options.unavailable_seconds if unavailable_seconds is None else unavailable_seconds
            ),
        )
        return other

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Submit one job and return its result; see `submit` and `Job.result` for what is raised.

        Cancellation: cancels the job as well, unless the options say `detach`.
        """
        return await (await self.submit(*args, **kwargs)).result()

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the same from code without an event loop; Ctrl-C cancels the job.

        Raises:
            BlockingCallError: An event loop runs in this thread.
        """
        return run_sync(self(*args, **kwargs))

    def call_watched(self, on_update: Callable[[ProgressUpdate], object], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the same as `call`, and give each update of `Job.progress` to `on_update`, in this thread.

        An exception of `on_update` passes on, and cancels the job as Ctrl-C does.

        Raises:
            BlockingCallError: An event loop runs in this thread.

        Example:
            >>> registry["render_overlay"].call_watched(lambda update: print(describe(update)), request)
        """
        return run_in_this_thread(self._watched(on_update, *args, **kwargs))

    async def _watched(
        self, on_update: Callable[[ProgressUpdate], object], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        job = await self.submit(*args, **kwargs)
        # It waits from the start: whatever ends this, cancelling the waiter ends the job.
        result = OwnedTask(job.result())
        try:
            async with aclosing(job.progress()) as updates:
                async for update in updates:
                    on_update(update)
            return await result.future
        finally:
            await result.cancel()

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Start one job and return it; then it goes on whether or not anybody waits.

        Within this registry, the same `job_id` with the same request gives the same job, unless that has failed.

        Raises:
            ConfigError: No store is set, or its folder is not found; the message says which.
            RequestError: The request names a network that is not registered.
            JobConflictError: The `job_id` is in use for another request.
            JobRefusedError: On Modal, it is expected to need more than 80 % of the function's time-out, or to cost
                more than the budget. Nothing was submitted.
            NotDeployedError: There is no such function.
            AuthError: There is no token, or it is refused.
            UnavailableError: Nobody answers; the job may or may not have been started.
            RemoteError: It could not be started for another reason.
            ConfigError: The registry is closed.

        Cancellation: what was started meanwhile is cancelled, unless the options say `detach`. It returns within half
        a second; if the backend has not answered by then, that goes on in the background, for at most two minutes,
        and the log says so.
        """
        self._submissions.check_open(self.name)
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
        """Yield the results of many jobs, with at most `concurrency` of them submitted and not yet yielded.

        Args:
            items: The first argument of one job each, its only one; taken as they are needed.
            concurrency: 1 or more.
            ordered: Whether results come in the order of `items`, or as they are completed.

        Raises:
            RemoteError: Of the first job that failed; the others are cancelled.

        Cancellation: cancels the jobs that are under way. So does leaving the loop early, once it is closed.
        """
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; it must be 1 or more")
        # The other arguments have defaults.
        call = cast("Callable[[T], Coroutine[object, object, R]]", self)
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

    async def hydrate(self) -> None:
        """Look the function up now; without this, the first call does.

        Raises:
            RemoteError: It is not there, or nobody answers; the next call asks again.
        """
        await self._backend.hydrate(self.name)

    def job(self, call_id: str, *, published: Callable[[], object | None] | None = None) -> Job[R]:
        """Return a job that was submitted before, by its call's id; nothing is asked yet.

        Args:
            call_id: Of the call.
            published: Returns what the job sent, where its output is there already.

        Raises:
            ConfigError: It does not have the form of the backend's ids.
        """
        if not isinstance(call_id, str) or not self._backend.is_call_id(call_id):
            raise ConfigError(
                f"{shortened(call_id)} is not the id of a call of {self.name} on {self._backend.name!r}"
            )
        known = self._submitted.get(call_id)
        return self._job(call_id, attached=True, published=published) if known is None else known

    def close(self) -> None:
        """Take no more submissions; jobs that were submitted can still be waited for."""
        self._submissions.close()

    async def _submit_once(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        if self._identify is None:
            return await self._submit(*args, **kwargs)
        job_id, content = self._identify(*args, **kwargs)
        return await self._submissions.once(job_id, content, lambda: self._submit(*args, **kwargs))

    async def _submit(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        plan = None if self._check is None else await self._checked(partial(self._check, *args, **kwargs))
        self._submissions.check_open(self.name)  # it may have been closed during the check
        wire, rest = (args, dict(kwargs)) if self._encode is None else (self._encode(*args, **kwargs), {})
        starting = asyncio.ensure_future(self._backend.submit(self.name, wire, rest))
        try:
            call_id = await asyncio.shield(starting)
        except asyncio.CancelledError:
            purpose = f"cancelling what a cancelled submission of {self.name} may have started"
            await finish(self._withdraw(starting), purpose=purpose, limit_seconds=_WITHDRAW_SECONDS)
            raise
        # Whoever attaches to it in this process knows as much as who submitted it, such as since when it waits.
        published = None if self._published is None else self._published(*args, **kwargs)
        job = self._submitted[call_id] = self._job(call_id, attached=False, plan=plan, published=published)
        return job

    async def _checked(self, check: Callable[[], ProgressPlan | None]) -> ProgressPlan | None:
        """Return what the check returns, and raise what it raises; one that takes too long holds no submission up."""
        checking = await run_in_thread(check, _CHECK_SECONDS)
        if not checking.done():
            _log.warning("a job of %s was not checked, since that took more than %g s", self.name, _CHECK_SECONDS)
            return None
        return checking.result()

    async def _withdraw(self, starting: asyncio.Future[str]) -> None:
        """Cancel the call that may still be starting: its id would reach no caller."""
        try:
            call_id = await starting
        except RemoteError as error:
            _log.warning("a submission of %s that was cancelled may have started a job: %s", self.name, error)
            return
        await self._backend.cancel(call_id)

    def _log_detached(self, starting: asyncio.Future[Job[R]]) -> None:
        if starting.cancelled():
            _log.warning("a submission of %s was not done when the event loop ended", self.name)
        elif (error := starting.exception()) is not None:
            _log.warning("a submission of %s from which its caller detached failed: %s", self.name, error)

    def _job(
        self,
        call_id: str,
        *,
        attached: bool,
        plan: ProgressPlan | None = None,
        published: Callable[[], object | None] | None = None,
    ) -> Job[R]:
        return Job(
            self._backend,
            self.name,
            call_id,
            self._decode_result,
            options=self._options,
            attached=attached,
            reports=self._reports,
            plan=plan,
            experience=self._experience,
            published=published,
            clock=self._clock,
        )

    def _decode_result(self, value: object) -> R:
        if self._decode is None:
            return value  # type: ignore[return-value]
        try:
            return self._decode(value)
        except RequestError as error:
            # A result of another version of this package is no refused input.
            unreadable = RemoteError(f"its result cannot be read: {error}", function=self.name)
            raise unreadable from error


def shortened(value: object) -> str:
    """Return `repr(value)` as far as it fits into a message."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


_NOTHING: Final[Any] = object()
