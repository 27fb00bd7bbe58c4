"""Backend for Modal: spawn, bounded waits, cancel, and events through one named queue.

modal is imported by the first call, not with this module: the import takes most of a second.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from reel_modal._progress.events import ProgressEvent
from reel_modal._support.clock import SYSTEM_CLOCK, Clock
from reel_modal._support.modal_logging import hide_headers
from reel_modal._support.single_flight import SingleFlight
from reel_modal._support.tasks import OwnedTask
from reel_modal._support.tracing import TRACEPARENT, note_submission
from reel_modal.backends.base import BackendTraits, CallResult, Check
from reel_modal.backends.modal._drift import DeployedApp, deployed_resources, diff_resources, drift_error, read_app
from reel_modal.backends.modal._rpc import THROTTLE, ask_api, call_api, unavailable, within
from reel_modal.backends.modal._versions import Handle, PinnedVersion, VersionPin
from reel_modal.errors import (
    AuthError,
    JobNotFoundError,
    NotDeployedError,
    RemoteError,
    RequestError,
    UnavailableError,
)
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.contract import Contract, Difference, local_contract
from reel_modal.functions.resources import Resources
from reel_modal.functions.specs import COORDINATOR_SUFFIX, EVENTS_QUEUE, SUBMITTED_AT
from reel_modal.settings import OnDrift

if TYPE_CHECKING:
    import modal

__all__ = ["ModalBackend", "call_api", "load_modal"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_ANSWER_SECONDS: Final = 60.0
"""Timeout of one request to Modal's API, including the retries of modal's client."""

_IDLE_SECONDS: Final = 10.0
"""Longest single wait for the next event."""

_LATE_SECONDS: Final = 1.0
"""How long a listener waits for the last events of a job that has succeeded, if their end marker is missing."""

_BACKOFF_SECONDS: Final = 1.0

_DRIFT_SECONDS: Final = 10.0
"""Longest time that a submission waits for the version of the deployment, unless drift is an error."""

_MOST_KEPT: Final = 10_000
_CALL_ID: Final = re.compile(r"fc-[A-Za-z0-9_-]{1,100}")


class ModalBackend:
    """Backend that runs the functions of one deployed Modal app.

    Args:
        app: Name of the app.
        environment: Modal environment; None is the default of the Modal profile.
        client: Client of Modal; default modal's own, created from its configuration on first use.
        answer_seconds: Timeout in seconds of one request to Modal's API. The options of a job limit its submission
            and the wait for its result instead.
        on_drift: Reaction if a function that is looked up was not deployed from `contract`: "warn" logs a warning,
            "error" raises an error, "off" does not check. Functions are looked up again after a deploy.
        contract: Returns the contract that this host expects to be deployed; default that of its functions.
    """

    name: str = "modal"
    clock: Clock = SYSTEM_CLOCK

    def __init__(
        self,
        app: str,
        *,
        environment: str | None = None,
        client: modal.Client | None = None,
        answer_seconds: float = _ANSWER_SECONDS,
        on_drift: OnDrift = "off",
        contract: Callable[[], Contract] | None = None,
    ) -> None:
        self.app: Final = app
        self._environment = environment
        self._client = client
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._calls: dict[str, modal.FunctionCall[Any]] = {}
        self._queue: SingleFlight[modal.Queue] = SingleFlight()
        self._on_drift = on_drift
        self._functions: dict[str, AnyFunction] = {}
        self._contract = contract or self._local_contract
        self._version = VersionPin(self._read_version)
        self._unpinned = PinnedVersion()

    def __repr__(self) -> str:
        environment = "" if self._environment is None else f", environment={self._environment!r}"
        return f"ModalBackend({self.app!r}{environment})"

    @property
    def traits(self) -> BackendTraits:
        """See `Backend.traits`."""
        return BackendTraits(records_timings=True, timings_place=None, needs_store=True)

    def register(self, functions: Mapping[str, AnyFunction]) -> None:
        """See `Backend.register`."""
        self._functions |= functions

    async def verify(self, functions: Iterable[str]) -> list[Check]:
        """See `Backend.verify`; also compares resources and version with the contract of this host."""
        from reel_modal.backends.modal.deployment import verify_deployment

        names = tuple(functions)
        try:
            contract = await asyncio.to_thread(self._contract)
            self._version.renew()
            return list((await verify_deployment(self, contract, names)).checks)
        except RemoteError as error:
            return [Check(name, error) for name in names]

    def is_call_id(self, call_id: str) -> bool:
        """See `Backend.is_call_id`."""
        return _CALL_ID.fullmatch(call_id) is not None

    async def hydrate(self, function: str) -> None:
        """See `Backend.hydrate`; sends a request the first time, and again after a failure or a deploy."""
        await self._handle(await self._pinned(function), function)

    async def submit(
        self,
        function: str,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        workers: int = 1,
        resources: Resources | None = None,
    ) -> str:
        """See `Backend.submit`; all calls of the job are those of one version of the deployment."""
        try:
            return await self._start(function, args, kwargs, workers, resources)
        except NotDeployedError:
            # An app that was stopped and deployed again has new ids, and Modal may have removed an old version.
            # Nothing was started.
            return await self._start(function, args, kwargs, workers, resources)

    async def _start(
        self,
        function: str,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        workers: int,
        resources: Resources | None,
    ) -> str:
        pinned = await self._pinned(function, workers)
        # A coordinator has its own resources, and passes on those of the job to its workers.
        called = (function, resources) if workers == 1 else (function + COORDINATOR_SUFFIX, None)
        handle = await self._handle(pinned, *called)
        sent = self._sent(pinned, function, args, workers, resources)
        try:
            return self._remembered(await ask_api(partial(handle.spawn, *sent, **kwargs), function=function))
        except NotDeployedError:
            pinned.handles.flight(called).forget(handle)
            self._version.forget(pinned)
            raise

    def _sent(
        self,
        pinned: PinnedVersion,
        function: str,
        args: tuple[object, ...],
        workers: int,
        resources: Resources | None,
    ) -> tuple[object, ...]:
        """Return the arguments of a call; a declared function also gets what `run_in_container` describes."""
        if workers == 1 and function not in self._functions:
            return args
        how: dict[str, object] = {} if resources is None else {"resources": resources.to_dict()}
        if workers > 1:
            if pinned.version is None:
                raise pinned.problem or NotDeployedError("its version is unknown", function=function)
            # Segments of different versions differ, so the coordinator starts calls of its own version.
            how |= {"workers": workers, "version": pinned.version}
        return (*_with_time(args), how) if how else _with_time(args)

    def _remembered(self, call: modal.FunctionCall[Any]) -> str:
        """Keep the handle of a call, and return its id."""
        with self._lock:
            self._calls[call.object_id] = call
            if len(self._calls) > _MOST_KEPT:
                del self._calls[next(iter(self._calls))]
        return call.object_id

    async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:
        """See `Backend.wait`."""
        call = await self._call(call_id)
        await THROTTLE.acquire()
        try:
            return CallResult(await call.get.aio(timeout=timeout_seconds))
        except TimeoutError as error:
            if not _raised_in_function(error):
                return None
            raise self._error(error, call_id) from error
        except (Exception, SystemExit) as error:
            # The function may have called sys.exit. modal re-raises that here, and it must not end the host.
            raise self._error(error, call_id) from error

    async def cancel(self, call_id: str) -> None:
        """See `Backend.cancel`."""
        call = await self._call(call_id)
        await self._answer(call.cancel.aio, call_id)

    async def event_count(self, call_id: str) -> int:
        """See `Backend.event_count`."""
        queue = await self._events_queue()
        return await self._answer(lambda: queue.len.aio(partition=call_id), call_id)

    async def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        """See `Backend.events`; events stay available to other listeners until the partition expires."""
        queue = await self._events_queue()
        latest, late_seconds = (0, 0), None
        end = OwnedTask(self._late_seconds(call_id))
        try:
            while late_seconds is None:
                # After the end of the job, read once more: all events reported before it have arrived by now.
                late_seconds = end.future.result() if end.future.done() else None
                patience = _IDLE_SECONDS if late_seconds is None else late_seconds
                async with aclosing(queue.iterate.aio(partition=call_id, item_poll_timeout=patience)) as items:
                    until = end.future if late_seconds is None else None
                    while (item := await self._next(items, call_id, until)) is not None:
                        if not isinstance(item, dict):
                            return
                        try:
                            event = ProgressEvent.parse(item)
                        except RequestError as error:
                            _log.warning("an event of %s is skipped: %s", call_id, error)
                            continue
                        if (event.attempt, event.sequence) > latest:
                            latest = (event.attempt, event.sequence)
                            yield event
        finally:
            await end.cancel()

    async def logs(self, call_id: str, lines: int) -> list[str]:
        """See `Backend.logs`; of a job on several machines, this is the log of the coordinator."""
        call = await self._call(call_id)

        async def read() -> list[str]:
            # An entry may be a part of a line, or several lines.
            async with aclosing(call.logs.tail.aio(lines)) as entries:
                return "".join([entry.message async for entry in entries]).splitlines()[-lines:]

        return await self._answer(read, call_id)

    async def close(self) -> None:
        """Do nothing: jobs on Modal continue, and this backend holds no resources here."""

    def _local_contract(self) -> Contract:
        return local_contract(functions=self._functions or None)

    async def deployed_app(self, *, answer_seconds: float | None = None) -> DeployedApp:
        """Return the current state of the app on Modal.

        Args:
            answer_seconds: Timeout in seconds of the request; default that of the backend.

        Raises:
            RemoteError: The app is not deployed, or Modal is unreachable.
        """
        await load_modal()
        return await call_api(
            lambda: read_app(self.app, environment=self._environment, client=self._client),
            answer_seconds or self._answer_seconds,
            function=self.app,
        )

    async def deployed_resources(self, function: str) -> dict[str, str]:
        """Return the deployed resources of a function: `gpu`, `cpu`, `memory_mb`, `timeout_seconds`, `retries`.

        Raises:
            RemoteError: The function is not deployed, or Modal is unreachable.
        """
        return await self._row(await self._find(function), function)

    async def find(self, function: str) -> modal.Function[..., Any, Any]:
        """Return modal's handle of a function of an own deployment, in the version that jobs are pinned to.

        Raises:
            RemoteError: The function is not deployed, or Modal is unreachable.
        """
        return (await self._handle(await self._version.current(), function)).function

    async def ask_container(self, contract: str, *, timeout_seconds: float) -> dict[str, str]:
        """Start a small container of the deployment and return its self-description; see `functions.app.contract`.

        Raises:
            RemoteError: The container did not start or did not answer in time.
        """
        handle = await self._find(contract)
        facts: dict[str, str] = await call_api(handle.remote.aio, timeout_seconds, function=f"{self.app}/{contract}")
        return facts

    async def examine(self, function: str, what: str, *, timeout_seconds: float) -> dict[str, object]:
        """Have a container of a declared function report about itself; see `functions.examination`.

        Raises:
            RemoteError: The container did not start or did not answer in time.
        """
        handle = await self._find(function)
        ask = partial(handle.remote.aio, {}, {"examine": what})
        facts: dict[str, object] = await call_api(ask, timeout_seconds, function=f"{self.app}/{function}")
        return facts

    async def _late_seconds(self, call_id: str) -> float:
        """Wait for the end of the call; return how many seconds its last events may still take to arrive."""
        import stamina

        # Without a limit: the listener cancels this wait.
        retrying = stamina.AsyncRetryingCaller(
            attempts=None, timeout=None, wait_initial=_BACKOFF_SECONDS, wait_jitter=0, wait_exp_base=1
        )
        try:
            await retrying(_is_outage, self._ended, call_id)
        except (UnavailableError, AuthError):
            raise
        except RemoteError:
            return 0.0  # the last events of a failed or cancelled job are not needed
        return _LATE_SECONDS

    async def _ended(self, call_id: str) -> None:
        slice_seconds = self._answer_seconds
        wait = partial(self.wait, call_id, slice_seconds)
        while await within(2 * slice_seconds, wait, function=self.app, call_id=call_id) is None:
            pass

    async def _pinned(self, function: str, workers: int = 1) -> PinnedVersion:
        """Return the version for a submission; only the functions of this package's own deployments are pinned."""
        declared = workers > 1 or function in self._functions
        return await self._version.current() if declared else self._unpinned

    async def _handle(self, pinned: PinnedVersion, function: str, resources: Resources | None = None) -> Handle:
        make = partial(self._look_up, pinned, function, resources)
        try:
            return await pinned.handles.flight((function, resources)).get(make)
        except RemoteError:
            self._version.forget(pinned)  # the next attempt asks again, perhaps after a deploy
            raise

    async def _look_up(self, pinned: PinnedVersion, function: str, resources: Resources | None) -> Handle:
        if resources is not None:
            handle = (await self._handle(pinned, function)).function.with_options(**resources.to_options())
            await self._answer(handle.hydrate.aio, function=f"{self.app}/{function}")
            return Handle(handle, handle.spawn.aio)
        handle = await self._find(function, version=pinned.version)
        if self._on_drift != "off" and pinned is not self._unpinned:
            await self._check_drift(pinned, handle, function)
        return Handle(handle, handle.spawn.aio)

    async def _check_drift(self, pinned: PinnedVersion, handle: modal.Function[..., Any, Any], function: str) -> None:
        try:
            drift = drift_error(await self._differences(pinned, handle, function), self.app, function)
        except RemoteError as error:
            if self._on_drift == "error":
                raise
            _log.warning("cannot check whether %s was deployed by this version: %s", function, error)
            return
        if drift is None:
            return
        if self._on_drift == "error":
            raise drift
        _log.warning("%s", drift)

    async def _differences(
        self, pinned: PinnedVersion, handle: modal.Function[..., Any, Any], function: str
    ) -> list[Difference]:
        if pinned.app is None:
            raise pinned.problem or NotDeployedError("its version is unknown", function=function)
        local = await asyncio.to_thread(self._contract)
        differences = diff_resources(await self._row(handle, function), local.functions.get(function, {}))
        if pinned.app.contract != local.name:
            differences.append(Difference("contract", pinned.app.contract or "none", local.name))
        return differences

    async def _read_version(self) -> DeployedApp:
        patience = self._answer_seconds if self._on_drift == "error" else _DRIFT_SECONDS
        return await self.deployed_app(answer_seconds=min(patience, self._answer_seconds))

    async def _row(self, handle: modal.Function[..., Any, Any], function: str) -> dict[str, str]:
        return await self._answer(lambda: deployed_resources(handle), function=f"{self.app}/{function}")

    async def _find(self, function: str, *, version: int | None = None) -> modal.Function[..., Any, Any]:
        await load_modal()
        import modal

        handle = modal.Function.from_name(
            self.app, function, version=version, environment_name=self._environment, client=self._client
        )
        await self._answer(handle.hydrate.aio, function=f"{self.app}/{function}")
        return handle

    async def _events_queue(self) -> modal.Queue:
        return await self._queue.get(self._make_queue)

    async def _make_queue(self) -> modal.Queue:
        await load_modal()
        import modal

        queue = modal.Queue.from_name(
            EVENTS_QUEUE, environment_name=self._environment, create_if_missing=True, client=self._client
        )
        await self._answer(queue.hydrate.aio, function=EVENTS_QUEUE)
        return queue

    async def _call(self, call_id: str) -> modal.FunctionCall[Any]:
        with self._lock:
            call = self._calls.get(call_id)
        if call is not None:
            return call
        await load_modal()
        import modal

        with self._lock:
            return self._calls.setdefault(call_id, modal.FunctionCall.from_id(call_id, client=self._client))

    async def _next(self, items: AsyncGenerator[object], call_id: str, until: asyncio.Future[float] | None) -> object:
        """Return the next item, or None if none arrives for a while or `until` is done."""
        reading = OwnedTask(_following(items))
        watched: set[asyncio.Future[Any]] = {reading.future} if until is None else {reading.future, until}
        try:
            await asyncio.wait(
                watched, timeout=_IDLE_SECONDS + self._answer_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not reading.future.done():
                if until is not None and until.done():
                    return None
                raise unavailable(self._answer_seconds, self.app, call_id)
            if (error := reading.future.exception()) is not None:
                raise self._error(error, call_id) from error
            return reading.future.result()
        finally:
            await reading.cancel()

    async def _answer(
        self, ask: Callable[[], Awaitable[T]], call_id: str | None = None, *, function: str | None = None
    ) -> T:
        return await call_api(ask, self._answer_seconds, function=function or self.app, call_id=call_id)

    def _error(self, error: BaseException, call_id: str | None, *, function: str | None = None) -> RemoteError:
        from reel_modal.backends.modal._errors import remote_error

        return remote_error(error, function=function or self.app, call_id=call_id)


def _with_time(args: tuple[object, ...]) -> tuple[object, ...]:
    """Add the time of submission to the request of a declared function, for the queue time in its receipt.

    If the host traces the job, its traceparent is added as well.
    """
    traceparent = note_submission()
    if len(args) != 1 or not isinstance(args[0], Mapping):
        return args
    added = {SUBMITTED_AT: time.time()} | ({} if traceparent is None else {TRACEPARENT: traceparent})
    return ({**args[0], **added},)


def _is_outage(error: Exception) -> bool:
    """Return whether the backend was unreachable, so that the wait for a job continues."""
    return isinstance(error, UnavailableError) and not isinstance(error, JobNotFoundError)


async def _following(items: AsyncGenerator[object]) -> object:
    return await anext(items, None)


def _raised_in_function(error: TimeoutError) -> bool:
    """Return whether the function raised `error`: modal reports "not yet" by the same bare type.

    modal attaches source lines for the traceback to an error that comes from a container.
    """
    return bool(error.args) or hasattr(error, "__line_cache__")


async def load_modal() -> None:
    """Import modal in a thread, so that the event loop is not blocked."""
    await asyncio.to_thread(import_module, "modal")
    hide_headers()
