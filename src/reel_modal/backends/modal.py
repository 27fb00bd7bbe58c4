"""Jobs on Modal: spawn, bounded waits, cancel, and events through one named queue.

modal is imported by the first call, not with this module: that costs most of a second.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from reel_modal.backends.answers import answered, no_answer, within
from reel_modal.backends.base import Finished
from reel_modal.backends.drift import HeldApp, compare_with_held, drift_error, held_row, read_app
from reel_modal.config import OnDrift
from reel_modal.errors import (
    AuthError,
    JobNotFoundError,
    NotDeployedError,
    RemoteError,
    RequestError,
    UnavailableError,
)
from reel_modal.functions.contract import Contract, Difference, local_contract
from reel_modal.functions.specs import EVENTS_QUEUE, SPECS, SUBMITTED_AT
from reel_modal.modal_logging import hide_headers
from reel_modal.progress.clocks import SYSTEM_CLOCK, Clock
from reel_modal.progress.events import ProgressEvent
from reel_modal.progress.owned_task import OwnedTask
from reel_modal.single_flight import SingleFlight

if TYPE_CHECKING:
    import modal

__all__ = ["ModalBackend", "answered", "load_modal"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_ANSWER_SECONDS: Final = 60.0
"""Longest for one answer of Modal's API, its own retries included."""

_IDLE_SECONDS: Final = 10.0
"""Longest that Modal is asked to wait for a next event at a time."""

_LATE_SECONDS: Final = 1.0
"""How long a listener waits for the last events of a job that has succeeded, where they do not say that they end."""

_BACKOFF_SECONDS: Final = 1.0

_DRIFT_SECONDS: Final = 10.0
"""Longest that a first job waits to hear of which version the deployment is, where it runs in any case."""

_MOST_KEPT: Final = 10_000
_CALL_ID: Final = re.compile(r"fc-[A-Za-z0-9_-]{1,100}")


class ModalBackend:
    """Runs the functions of one deployed Modal app.

    Args:
        app: The app's name.
        environment: Modal's environment; None is the profile's own.
        client: Default: modal's own, made from its configuration on first use.
        answer_seconds: Longest for one answer of Modal's API.
        on_drift: What to do when a function that is looked up was not deployed from `contract`: "warn" logs it,
            "error" raises, "off" does not look. Looking costs one request, once for the whole app.
        contract: What this host expects to be deployed.
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
        contract: Callable[[], Contract] = local_contract,
    ) -> None:
        self.app: Final = app
        self._environment = environment
        self._client = client
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._handles: dict[str, SingleFlight[modal.Function[..., Any, Any]]] = {}
        self._calls: dict[str, modal.FunctionCall[Any]] = {}
        self._queue: SingleFlight[modal.Queue] = SingleFlight()
        self._on_drift = on_drift
        self._contract = contract
        self._held: SingleFlight[HeldApp] = SingleFlight()

    def __repr__(self) -> str:
        environment = "" if self._environment is None else f", environment={self._environment!r}"
        return f"ModalBackend({self.app!r}{environment})"

    def is_call_id(self, call_id: str) -> bool:
        """See `Backend.is_call_id`."""
        return _CALL_ID.fullmatch(call_id) is not None

    async def hydrate(self, function: str) -> None:
        """See `Backend.hydrate`; asks Modal the first time, and again after a failure."""
        await self._handle(function)

    async def submit(self, function: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """See `Backend.submit`."""
        handle = await self._handle(function)
        if function in SPECS and len(args) == 1 and isinstance(args[0], Mapping):
            # One of this package's own, whose receipt says how long the job was queued.
            args = ({**args[0], SUBMITTED_AT: time.time()},)
        try:
            call = await self._spawn(handle, function, args, kwargs)
        except NotDeployedError:
            # Stopped and deployed again, an app has new ids; nothing was started under the old ones.
            self._flight(function).forget(handle)
            self._held = SingleFlight()
            call = await self._spawn(await self._handle(function), function, args, kwargs)
        with self._lock:
            self._calls[call.object_id] = call
            if len(self._calls) > _MOST_KEPT:
                del self._calls[next(iter(self._calls))]
        return call.object_id

    async def wait(self, call_id: str, timeout_seconds: float) -> Finished | None:
        """See `Backend.wait`."""
        call = await self._call(call_id)
        bound = timeout_seconds + self._answer_seconds
        return await within(
            bound, lambda: self._outcome(call, call_id, timeout_seconds), function=self.app, call_id=call_id
        )

    async def cancel(self, call_id: str) -> None:
        """See `Backend.cancel`."""
        call = await self._call(call_id)
        await self._answer(call.cancel.aio, call_id)

    async def events_so_far(self, call_id: str) -> int:
        """See `Backend.events_so_far`."""
        news = await self._events_queue()
        return await self._answer(lambda: news.len.aio(partition=call_id), call_id)

    async def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        """See `Backend.events`; what was read stays for other listeners, until the partition expires."""
        news = await self._events_queue()
        latest, late_seconds = (0, 0), None
        end = OwnedTask(self._late_seconds(call_id))
        try:
            while late_seconds is None:
                # Whoever hears of the end reads once more: what was reported before it is there by now.
                late_seconds = end.future.result() if end.future.done() else None
                patience = _IDLE_SECONDS if late_seconds is None else late_seconds
                async with aclosing(news.iterate.aio(partition=call_id, item_poll_timeout=patience)) as items:
                    until = end.future if late_seconds is None else None
                    while (item := await self._next(items, call_id, until)) is not None:
                        if not isinstance(item, dict):
                            return
                        try:
                            event = ProgressEvent.parse(item)
                        except RequestError as error:
                            _log.warning("an event of %s is passed over: %s", call_id, error)
                            continue
                        if (event.attempt, event.sequence) > latest:
                            latest = (event.attempt, event.sequence)
                            yield event
        finally:
            await end.cancel()

    async def close(self) -> None:
        """Jobs on Modal go on; there is nothing to give back."""

    async def held_app(self, *, answer_seconds: float | None = None) -> HeldApp:
        """Ask Modal what the app is now.

        Args:
            answer_seconds: Longest for the answer; default that of the backend.

        Raises:
            RemoteError: It is not deployed, or nobody could be asked.
        """
        await load_modal()
        return await answered(
            lambda: read_app(self.app, environment=self._environment, client=self._client),
            answer_seconds or self._answer_seconds,
            function=self.app,
        )

    async def held_row(self, function: str) -> dict[str, str]:
        """Ask Modal which resources a function has now: `gpu`, `cpu`, `memory_mb`, `timeout_seconds`, `retries`.

        Raises:
            RemoteError: It is not deployed, or nobody could be asked.
        """
        return await self._row(await self._find(function), function)

    async def ask_container(self, contract: str, *, timeout_seconds: float) -> dict[str, str]:
        """Start a small container of the deployment and return what it says of itself; see `functions.app.contract`.

        Raises:
            RemoteError: It did not start or did not answer in time.
        """
        handle = await self._find(contract)
        said: dict[str, str] = await answered(handle.remote.aio, timeout_seconds, function=f"{self.app}/{contract}")
        return said

    async def _late_seconds(self, call_id: str) -> float:
        """Wait for the end of the call, and return how long its last events may still be on their way."""
        while True:
            try:
                if await self.wait(call_id, self._answer_seconds) is not None:
                    return _LATE_SECONDS
            except (JobNotFoundError, AuthError):
                raise
            except UnavailableError:
                await asyncio.sleep(_BACKOFF_SECONDS)
            except RemoteError:
                return 0.0  # of a job that failed or was cancelled, nobody needs them

    async def _spawn(
        self,
        handle: modal.Function[..., Any, Any],
        function: str,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
    ) -> modal.FunctionCall[Any]:
        return await self._answer(lambda: handle.spawn.aio(*args, **kwargs), function=function)

    async def _handle(self, function: str) -> modal.Function[..., Any, Any]:
        return await self._flight(function).get(lambda: self._look_up(function))

    def _flight(self, function: str) -> SingleFlight[modal.Function[..., Any, Any]]:
        with self._lock:
            return self._handles.setdefault(function, SingleFlight())

    async def _look_up(self, function: str) -> modal.Function[..., Any, Any]:
        handle = await self._find(function)
        if self._on_drift != "off":
            await self._look_for_drift(handle, function)
        return handle

    async def _look_for_drift(self, handle: modal.Function[..., Any, Any], function: str) -> None:
        try:
            drift = drift_error(await self._differences(handle, function), self.app, function)
        except RemoteError as error:
            if self._on_drift == "error":
                raise
            _log.warning("it is not known whether %s was deployed by this version: %s", function, error)
            return
        if drift is None:
            return
        if self._on_drift == "error":
            # It is asked again when somebody tries again, perhaps after a deploy.
            self._held = SingleFlight()
            raise drift
        _log.warning("%s", drift)

    async def _differences(self, handle: modal.Function[..., Any, Any], function: str) -> list[Difference]:
        here = await asyncio.to_thread(self._contract)
        patience = _DRIFT_SECONDS if self._on_drift == "warn" else self._answer_seconds
        app = await self._held.get(lambda: self.held_app(answer_seconds=min(patience, self._answer_seconds)))
        found = compare_with_held(await self._row(handle, function), here.functions.get(function, {}))
        if app.contract != here.name:
            found.append(Difference("contract", app.contract or "none", here.name))
        return found

    async def _row(self, handle: modal.Function[..., Any, Any], function: str) -> dict[str, str]:
        return await self._answer(lambda: held_row(handle), function=f"{self.app}/{function}")

    async def _find(self, function: str) -> modal.Function[..., Any, Any]:
        await load_modal()
        import modal

        handle = modal.Function.from_name(self.app, function, environment_name=self._environment, client=self._client)
        await self._answer(handle.hydrate.aio, function=f"{self.app}/{function}")
        return handle

    async def _events_queue(self) -> modal.Queue:
        return await self._queue.get(self._make_queue)

    async def _make_queue(self) -> modal.Queue:
        await load_modal()
        import modal

        news = modal.Queue.from_name(
            EVENTS_QUEUE, environment_name=self._environment, create_if_missing=True, client=self._client
        )
        await self._answer(news.hydrate.aio, function=EVENTS_QUEUE)
        return news

    async def _call(self, call_id: str) -> modal.FunctionCall[Any]:
        with self._lock:
            call = self._calls.get(call_id)
        if call is not None:
            return call
        await load_modal()
        import modal

        with self._lock:
            return self._calls.setdefault(call_id, modal.FunctionCall.from_id(call_id, client=self._client))

    async def _outcome(self, call: modal.FunctionCall[Any], call_id: str, wait_seconds: float) -> Finished | None:
        try:
            return Finished(await call.get.aio(timeout=wait_seconds))
        except TimeoutError as error:
            if not _came_back(error):
                return None
            raise self._error(error, call_id) from error
        except (Exception, SystemExit) as error:
            # The function may have left by sys.exit, which modal repeats here and which is no end of the host.
            raise self._error(error, call_id) from error

    async def _next(self, items: AsyncGenerator[object], call_id: str, until: asyncio.Future[float] | None) -> object:
        """Return the next item, or None after some silence or once `until` is done."""
        reading = OwnedTask(_following(items))
        watched: set[asyncio.Future[Any]] = {reading.future} if until is None else {reading.future, until}
        try:
            await asyncio.wait(
                watched, timeout=_IDLE_SECONDS + self._answer_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not reading.future.done():
                if until is not None and until.done():
                    return None
                raise no_answer(self._answer_seconds, self.app, call_id)
            if (error := reading.future.exception()) is not None:
                raise self._error(error, call_id) from error
            return reading.future.result()
        finally:
            await reading.cancel()

    async def _answer(
        self, ask: Callable[[], Awaitable[T]], call_id: str | None = None, *, function: str | None = None
    ) -> T:
        return await answered(ask, self._answer_seconds, function=function or self.app, call_id=call_id)

    def _error(self, error: BaseException, call_id: str | None, *, function: str | None = None) -> RemoteError:
        from reel_modal.backends.modal_errors import remote_error

        return remote_error(error, function=function or self.app, call_id=call_id)


async def _following(items: AsyncGenerator[object]) -> object:
    return await anext(items, None)


def _came_back(error: TimeoutError) -> bool:
    """Return whether the function raised it: modal says "not yet" by the same bare type.

    What came back from a container has its frames there; modal keeps their lines for the traceback.
    """
    return bool(error.args) or hasattr(error, "__line_cache__")


async def load_modal() -> None:
    """Import modal in a thread, so that the event loop goes on meanwhile."""
    await asyncio.to_thread(import_module, "modal")
    hide_headers()
