"""Run a job in a Modal container: settings, cancellation, and events through a queue.

Imported only inside containers.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import FrameType, TracebackType
from typing import Final, Self

import modal
from modal.exception import InputCancellation

from reel_modal._costs.rates import load_rates
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._progress.events import ProgressEvent
from reel_modal.errors import FFmpegError, JobCancelledError
from reel_modal.functions.context import BETWEEN_FRAMES_SECONDS, CancellationToken
from reel_modal.functions.contract import Contract, ffmpeg_text, source_hash, spec_row
from reel_modal.functions.metering import Machine, Meter, seconds_since_process_start
from reel_modal.functions.runner import FUNCTION_NAMES, run_job
from reel_modal.functions.shipped_models import with_shipped_models
from reel_modal.functions.specs import EVENTS_QUEUE, SUBMITTED_AT, load_specs
from reel_modal.settings import Settings

__all__ = ["END", "container_facts", "heeding_cancellation", "run_in_container"]

_log = logging.getLogger(__name__)

END: Final = "end"
"""Marks the end of a call's events."""

_PARTITION_SECONDS: Final = 4 * 3600
"""Time for which the events of a call are kept after the last one, for a host that was offline."""

_FLUSH_SECONDS: Final = 10.0
_jobs = itertools.count()
"""Counter of the jobs of this container; Modal started the container for the first one."""


def run_in_container(name: str, payload: Mapping[str, object]) -> dict[str, object]:
    """Run the function `name` for `payload`; return its result as a JSON-compatible dict.

    Args:
        name: Name of the function.
        payload: The request's `to_dict()`, and `submitted_at` if the host sent it.

    Raises:
        InputCancellation: Modal cancelled the call; Modal's runtime handles this exception.
        ReelModalError: The function failed.
    """
    cold = next(_jobs) == 0
    request = {key: value for key, value in payload.items() if key != SUBMITTED_AT}
    submitted_at = payload.get(SUBMITTED_AT)
    meter = Meter(
        _machine(name),
        submitted_at=submitted_at if isinstance(submitted_at, float) else None,
        startup_seconds=seconds_since_process_start() if cold else 0.0,
    )
    with heeding_cancellation() as cancellation, _EventSender(modal.current_function_call_id()) as sender:
        settings = with_shipped_models(Settings.from_env())
        result = run_job(name, request, settings=settings, send=sender.send, cancellation=cancellation, meter=meter)
    return result | {"cold_start": cold}


def container_facts() -> dict[str, str]:
    """Return the actual source hash, functions and ffmpeg of this container."""
    try:
        ffmpeg = find_ffmpeg()
        number = ".".join(map(str, ffmpeg.version))
        versions = {"ffmpeg": ffmpeg_text(number, ffmpeg.origin), "ffmpeg_build": str(ffmpeg)}
    except FFmpegError as error:
        versions = {"ffmpeg": error.message, "ffmpeg_build": error.message}
    return {"source": source_hash(), "bodies": ", ".join(sorted(FUNCTION_NAMES)), **versions}


@contextmanager
def heeding_cancellation() -> Iterator[CancellationToken]:
    """Yield a token that is set when Modal cancels the call; the function then stops between two frames.

    By default, Modal's runtime raises in the main thread at any point. Compiled code may swallow that exception, as
    PyAV does while it creates one: the job would continue until its container is killed. Therefore the exception is
    raised only if the function has not ended `BETWEEN_FRAMES_SECONDS` after the token was set.

    Raises:
        InputCancellation: The function ended because it was cancelled.
    """
    token = CancellationToken()
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield token
        return
    main_thread = threading.get_ident()
    ended, ending = threading.Event(), threading.Lock()
    # A signal handler can interrupt any code; to notify a thread, only SimpleQueue.put is safe there (reentrant).
    signals: queue.SimpleQueue[None] = queue.SimpleQueue()

    def heed(_number: int, _frame: FrameType | None) -> None:
        if token.cancelled and not ended.is_set():
            raise InputCancellation("cancelled in the middle of a step")
        signals.put(None)

    def pass_on() -> None:
        signals.get()
        if ended.is_set():
            return
        token.cancel()
        if not ended.wait(BETWEEN_FRAMES_SECONDS):
            with ending:
                if not ended.is_set():
                    signal.pthread_kill(main_thread, signal.SIGUSR1)

    former = signal.signal(signal.SIGUSR1, heed)
    try:
        threading.Thread(target=pass_on, name="reel_modal-cancellation", daemon=True).start()
        yield token
    except JobCancelledError as error:
        raise InputCancellation(str(error)) from error
    finally:
        try:
            with ending:
                ended.set()
        finally:
            signal.signal(signal.SIGUSR1, former)
            signals.put(None)


def _machine(name: str) -> Machine:
    """Return the GPU and the price with which the function was deployed."""
    deployed = os.environ.get("REEL_MODAL_CONTRACT")
    row = Contract.from_json(deployed).functions.get(name) if deployed else None
    row = row or spec_row(load_specs()[name])
    # If several GPU types are allowed, assume the first, the most likely one; only the driver knows the actual one.
    named = row["gpu"].partition(",")[0]
    gpu = None if named == "none" else named
    rates = load_rates()
    rate = rates.usd_per_second(gpu=gpu, cpu=float(row["cpu"]), memory_mb=float(row["memory_mb"]))
    return Machine(gpu, rate, rates.dated)


class _EventSender:
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
