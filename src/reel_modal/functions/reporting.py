"""Send the progress of a call from its Modal container to the hosts that listen; also for functions of other apps."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import TracebackType
from typing import Final, Self

import modal

from reel_modal._progress.events import ProgressEvent
from reel_modal.functions.context import Reporter
from reel_modal.functions.specs import EVENTS_QUEUE

__all__ = ["END", "EventSender", "report_progress"]

_log = logging.getLogger(__name__)

END: Final = "end"
"""Marks the end of a call's events."""

_PARTITION_SECONDS: Final = 4 * 3600
"""Time for which the events of a call are kept after the last one, for a host that was offline."""

_FLUSH_SECONDS: Final = 10.0


@contextmanager
def report_progress() -> Iterator[Reporter]:
    """Report the progress of the current call of any Modal function that is not declared with `render_function`.

    Its image needs this package, and its host uses `RemoteFunction.from_modal(..., reports=True)`. Outside of a Modal
    container, as in `function.local()`, the events are discarded.

    Returns:
        A context manager that gives the reporter.

    Example:
        >>> with report_progress() as reporter, reporter.phase("render", total=300) as advance:
        ...     for number in range(300):
        ...         advance(number + 1)
    """
    with EventSender(modal.current_function_call_id()) as sender:
        yield Reporter(sender.send)


class EventSender:
    """Send events to the call's queue partition from a background thread, so that rendering never waits."""

    def __init__(self, call_id: str | None) -> None:
        self._call_id = call_id
        self._pending: queue.SimpleQueue[ProgressEvent | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="reel_modal-events", daemon=True)

    def __enter__(self) -> Self:
        if self._call_id is not None:  # None when the function is called by its .local()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pending.put(None)
        if self._call_id is not None:
            self._thread.join(_FLUSH_SECONDS)

    def send(self, event: ProgressEvent) -> None:
        """Enqueue `event` for the background thread."""
        self._pending.put(event)

    def _run(self) -> None:
        try:
            self._deliver()
        except Exception:  # noqa: BLE001 - every error is logged and rendering continues
            # The job continues without events; its listeners fall back to the plan and report that.
            _log.exception("the events of %s could not be sent", self._call_id)

    def _deliver(self) -> None:
        events = modal.Queue.from_name(EVENTS_QUEUE, create_if_missing=True)
        # A job whose machine was preempted restarts under the same call.
        before = [item["attempt"] for item in events.iterate(partition=self._call_id) if isinstance(item, dict)]
        attempt = 1 + max(before, default=0)
        ended = False
        while not ended:
            batch = [self._pending.get()]
            while not self._pending.empty():
                batch.append(self._pending.get())
            ended = batch[-1] is None
            items = [END if event is None else asdict(replace(event, attempt=attempt)) for event in batch]
            # The timeout is for a full partition (thousands of events), which would block forever.
            events.put_many(items, timeout=_FLUSH_SECONDS, partition=self._call_id, partition_ttl=_PARTITION_SECONDS)
