"""Calls that the container of a coordinator makes on Modal, and their end when the coordinator ends.

Imported only inside containers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import modal
import stamina
from modal.exception import Error as ModalError

from reel_modal._segments import WHOLE, Segment
from reel_modal._support.modal_outages import OUTAGES
from reel_modal.errors import ReelModalError
from reel_modal.functions.context import CancellationToken
from reel_modal.functions.resources import Resources
from reel_modal.functions.specs import EVENTS_QUEUE, SEGMENTS_SUFFIX

__all__ = ["ModalCalls", "ending_with"]

_log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 30.0
"""Duration of one request that waits for an event."""

_WATCH_SECONDS: Final = 1.0
"""Time between two looks at the coordinator."""

_OUTAGES: Final[tuple[type[Exception], ...]] = (*OUTAGES, OSError)

# Without a limit: the wait for a call ends when the job does.
_retrying: Final = stamina.AsyncRetryingCaller(attempts=None, timeout=None, wait_max=_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class ModalCalls:
    """Calls of one version of a deployed function; see `Calls`.

    Attributes:
        app: Name of the app.
        function: Name of the function that was declared.
        version: Version of the deployment, so that a deploy during the job changes nothing.
        payload: The request's `to_dict()`.
        parent: Id of the call that makes these calls.
        resources: Resources of the calls in place of the deployed ones.
        segments_on_gpu: Whether the function that renders segments is deployed with a GPU.
    """

    app: str
    function: str
    version: int
    payload: Mapping[str, object]
    parent: str
    resources: Resources | None = None
    segments_on_gpu: bool = True

    @property
    def remote(self) -> bool:
        """See `Calls.remote`."""
        return True

    async def start(self, run: Segment) -> str:
        """See `Calls.start`."""
        name, own = self.function, self.resources
        how: dict[str, object] = {"parent": self.parent}
        if run != WHOLE:
            name, how = name + SEGMENTS_SUFFIX, how | {"first": run.first, "end": run.end}
            own = None if own is None else own.for_calls(gpu=self.segments_on_gpu)
        function = modal.Function.from_name(self.app, name, version=self.version)
        if own is not None:
            function, how = function.with_options(**own.to_options()), how | {"resources": own.to_dict()}
        call = await function.spawn.aio(self.payload, how)
        return call.object_id

    async def result(self, call_id: str) -> Mapping[str, object]:
        """See `Calls.result`."""
        call: modal.FunctionCall[Mapping[str, object]] = modal.FunctionCall.from_id(call_id)
        return await _retrying(OUTAGES, call.get.aio)

    async def frames(self, call_id: str) -> AsyncGenerator[int]:
        """See `Calls.frames`; if Modal is unreachable, the count stands still, and the job continues."""
        queue = modal.Queue.from_name(EVENTS_QUEUE, create_if_missing=True)
        try:
            while True:
                async for event in queue.iterate.aio(partition=call_id, item_poll_timeout=_POLL_SECONDS):
                    match event:
                        case {"phase": "render", "done": int(done)}:
                            yield done
                        case str():  # the end of its events
                            return
        except (ModalError, OSError) as error:
            _log.warning("the frames of %s are not counted any more: %s", call_id, error)

    async def cancel(self, call_id: str) -> None:
        """See `Calls.cancel`."""
        try:
            await modal.FunctionCall.from_id(call_id).cancel.aio()
        except (ModalError, OSError) as error:
            _log.warning("%s could not be cancelled, and will end after its coordinator: %s", call_id, error)

    def worth_another_attempt(self, error: Exception) -> bool:
        """See `Calls.worth_another_attempt`."""
        if isinstance(error, ReelModalError):
            return error.retryable
        return isinstance(error, ModalError | OSError)


@contextmanager
def ending_with(parent: str, cancellation: CancellationToken) -> Iterator[None]:
    """Set `cancellation` when the call `parent` ends during the block: Modal does not end the calls of an ended call.

    A call whose machine was preempted has not ended: it is started again, and finds this one.
    """
    ended = threading.Event()

    def watch() -> None:
        call: modal.FunctionCall[Any] = modal.FunctionCall.from_id(parent)
        # Many short requests instead of a long one, which would still wait when the container ends.
        while not ended.wait(_WATCH_SECONDS):
            try:
                call.get(timeout=0)
            except TimeoutError as error:
                if not error.args:
                    continue  # it still runs
            except _OUTAGES as error:
                _log.warning("cannot see whether the coordinator %s runs: %s", parent, error)
                continue
            except Exception as error:  # noqa: BLE001 - whatever ended the coordinator, this call ends as well
                _log.info("the coordinator %s has ended: %s", parent, error)
            cancellation.cancel()
            return

    threading.Thread(target=watch, name="reel_modal-coordinator", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
