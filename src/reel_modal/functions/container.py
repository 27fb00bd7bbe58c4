"""What a Modal container does around a function body: settings, events through a queue, the body itself.

Imported inside containers alone; it must not know what the bodies do.
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

from reel_modal.config import Settings
from reel_modal.errors import FFmpegError, JobCancelledError
from reel_modal.functions.bodies import NAMES, run_body
from reel_modal.functions.context import BETWEEN_FRAMES_SECONDS, CancellationToken
from reel_modal.functions.contract import Contract, ffmpeg_text, source_hash, spec_row
from reel_modal.functions.metering import Machine, Meter, seconds_since_process_start
from reel_modal.functions.shipped_models import with_shipped_models
from reel_modal.functions.specs import EVENTS_QUEUE, SUBMITTED_AT, load_specs
from reel_modal.media import find_ffmpeg
from reel_modal.pricing import load_rates
from reel_modal.progress.events import ProgressEvent

__all__ = ["END", "heeding_cancellation", "run_in_container", "what_runs_here"]

_log = logging.getLogger(__name__)

END: Final = "end"
"""What follows the last event of a call."""

_PARTITION_SECONDS: Final = 4 * 3600
"""How long the events of a call are kept after the last one: for a host that was away, and no longer."""

_FLUSH_SECONDS: Final = 10.0
_jobs = itertools.count()
"""Of this container, which Modal starts for its first one."""


def run_in_container(name: str, payload: Mapping[str, object]) -> dict[str, object]:
    """Run the body `name` for `payload`, and return its result as JSON holds it.

    Args:
        name: Of the function.
        payload: The request's `to_dict()`, and `submitted_at` where the host says it.

    Raises:
        InputCancellation: Modal cancelled the call; it takes note of that.
        ReelModalError: What the body raises.
    """
    cold = next(_jobs) == 0
    asked = {key: value for key, value in payload.items() if key != SUBMITTED_AT}
    submitted_at = payload.get(SUBMITTED_AT)
    meter = Meter(
        _machine(name),
        submitted_at=submitted_at if isinstance(submitted_at, float) else None,
        startup_seconds=seconds_since_process_start() if cold else 0.0,
    )
    with heeding_cancellation() as cancellation, _EventSender(modal.current_function_call_id()) as sender:
        settings = with_shipped_models(Settings.from_env())
        made = run_body(name, asked, settings=settings, send=sender.send, cancellation=cancellation, meter=meter)
    return made | {"cold_start": cold}


def what_runs_here() -> dict[str, str]:
    """Return the source, bodies and ffmpeg that this container really has."""
    try:
        ffmpeg = find_ffmpeg()
        number = ".".join(map(str, ffmpeg.version))
        found = {"ffmpeg": ffmpeg_text(number, ffmpeg.origin), "ffmpeg_build": str(ffmpeg)}
    except FFmpegError as error:
        found = {"ffmpeg": error.message, "ffmpeg_build": error.message}
    return {"source": source_hash(), "bodies": ", ".join(sorted(NAMES)), **found}


@contextmanager
def heeding_cancellation() -> Iterator[CancellationToken]:
    """Give a token that says when Modal cancels the call: a body then ends between two frames.

    By itself Modal's runtime raises in the main thread, wherever that is. Compiled code may swallow that, as PyAV
    does while it makes an error of its own: the job would go on until its container is killed. So that comes only to
    a body which has not ended some seconds after it was asked to.

    Raises:
        InputCancellation: The body ended since it was cancelled.
    """
    token = CancellationToken()
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield token
        return
    main_thread = threading.get_ident()
    ended, ending = threading.Event(), threading.Lock()
    # A signal handler may come in the midst of anything; of all that tells a thread, only this may be used there.
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def heed(_number: int, _frame: FrameType | None) -> None:
        if token.cancelled and not ended.is_set():
            raise InputCancellation("cancelled in the middle of a step")
        asked.put(None)

    def pass_on() -> None:
        asked.get()
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
            asked.put(None)


def _machine(name: str) -> Machine:
    """Return what the function was deployed with."""
    deployed = os.environ.get("REEL_MODAL_CONTRACT")
    row = Contract.from_json(deployed).functions.get(name) if deployed else None
    row = row or spec_row(load_specs()[name])
    # Of several GPUs that will do, the first is the likeliest; which one it is, only its driver says.
    named = row["gpu"].partition(",")[0]
    gpu = None if named == "none" else named
    rates = load_rates()
    rate = rates.usd_per_second(gpu=gpu, cpu=float(row["cpu"]), memory_mb=float(row["memory_mb"]))
    return Machine(gpu, rate, rates.dated)


class _EventSender:
    """Puts events into the call's partition of the queue from a thread of its own: rendering never waits for it."""

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
        """Take `event`; it is sent as soon as the queue takes it."""
        self._pending.put(event)

    def _run(self) -> None:
        try:
            self._deliver()
        except Exception:  # noqa: BLE001 - whatever it is, it is logged and the rendering goes on
            # A job without news is still a job; its listeners see the plan instead, and say so.
            _log.exception("the events of %s could not be sent", self._call_id)

    def _deliver(self) -> None:
        news = modal.Queue.from_name(EVENTS_QUEUE, create_if_missing=True)
        # A job whose machine was taken away begins again under the same call.
        before = [item["attempt"] for item in news.iterate(partition=self._call_id) if isinstance(item, dict)]
        attempt = 1 + max(before, default=0)
        ended = False
        while not ended:
            batch = [self._pending.get()]
            while not self._pending.empty():
                batch.append(self._pending.get())
            ended = batch[-1] is None
            items = [END if event is None else asdict(replace(event, attempt=attempt)) for event in batch]
            # A partition that is full, which is thousands of events, would take no more for ever.
            news.put_many(items, timeout=_FLUSH_SECONDS, partition=self._call_id, partition_ttl=_PARTITION_SECONDS)
