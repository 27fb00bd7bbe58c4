"""Run a job in a Modal container: settings, cancellation, and events through a queue.

Imported only inside containers.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Final

import modal
from modal.exception import InputCancellation

from reel_modal._costs.rates import load_rates
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._segments import Segment
from reel_modal._support.tracing import TRACEPARENT, continued
from reel_modal.errors import FFmpegError, JobCancelledError
from reel_modal.functions.catalog import AnyFunction, find_function
from reel_modal.functions.context import BETWEEN_FRAMES_SECONDS, CancellationToken
from reel_modal.functions.contract import Contract, ffmpeg_text, package_text, source_hash, spec_row
from reel_modal.functions.examination import examine_container
from reel_modal.functions.fan_out import FanOut
from reel_modal.functions.metering import Machine, Meter, seconds_since_process_start
from reel_modal.functions.modal_calls import ModalCalls, ending_with
from reel_modal.functions.reporting import EventSender
from reel_modal.functions.resources import Resources
from reel_modal.functions.runner import run_job
from reel_modal.functions.segment_processes import WorkerProcesses, segments_at_once
from reel_modal.functions.shipped_models import with_shipped_models
from reel_modal.functions.specs import COORDINATOR_SUFFIX, SEGMENTS_SUFFIX, SUBMITTED_AT, app_name
from reel_modal.settings import Settings

__all__ = ["container_facts", "heeding_cancellation", "run_in_container"]

_log = logging.getLogger(__name__)

_CLOCK_SECONDS: Final = 5.0
"""Accepted difference between the clocks of the host and of the container."""

_jobs = itertools.count()
"""Counter of the jobs of this container; Modal started the container for the first one."""


def run_in_container(
    module: str, name: str, payload: Mapping[str, object], how: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Run the function `name` for `payload`; return its result, or the report about its segments, as a dict.

    Args:
        module: Module that declares the function.
        name: Name of the function.
        payload: The request's `to_dict()`, and `submitted_at` and `traceparent` if the host sent them.
        how: Part of the job that this call has; default all of it. `{"workers": …, "version": …}` has other calls
            render its segments, `{"parent": …, "first": …, "end": …}` renders some of them, and `{"parent": …}` is
            all of the job, but of a coordinator that could not have it rendered in segments. `"resources"` has those
            of the call in place of the deployed ones; for a coordinator, those of its calls. `{"examine": …}` has no
            request, and returns facts about this container.

    Raises:
        InputCancellation: Modal cancelled the call; Modal's runtime handles this exception.
        ReelModalError: The function failed.
    """
    function = find_function(module, name)
    cold = next(_jobs) == 0 and _started_for(payload)
    how = how or {}
    resources = _resources_in(how)
    settings = with_shipped_models(Settings.from_env())
    if resources is not None and resources.cpu is not None and "workers" not in how:
        settings = replace(settings, cpu=resources.cpu)
    with heeding_cancellation() as cancellation:
        call = _Call(
            function=function,
            payload=payload,
            settings=settings,
            resources=resources,
            cancellation=cancellation,
            call_id=modal.current_function_call_id(),
            startup_seconds=seconds_since_process_start() if cold else 0.0,
        )
        match dict(how):
            case {"examine": str(what)}:
                return examine_container(what, settings, startup_seconds=call.startup_seconds)
            case {"parent": str(parent), "first": int(first), "end": int(end)}:
                return call.render_part(Segment(first, end), parent)
            case {"parent": str(parent)}:
                result = call.run_for(parent)
            case {"workers": int(workers), "version": int(version)}:
                result = call.coordinate(workers, version)
            case _:
                result = call.run()
    return result | {"cold_start": cold}


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a function in this container.

    Attributes:
        function: The function.
        payload: The request's `to_dict()`, and `submitted_at` and `traceparent` if the host sent them.
        settings: Settings of this container.
        resources: Resources in place of the deployed ones: of this call, or those of the calls of a coordinator.
        cancellation: Set when Modal cancels the call.
        call_id: Id of the call; None if it runs outside of Modal.
        startup_seconds: Startup time of the container, if it was started for this call.
    """

    function: AnyFunction
    payload: Mapping[str, object]
    settings: Settings
    resources: Resources | None
    cancellation: CancellationToken
    call_id: str | None
    startup_seconds: float

    def run(self) -> dict[str, object]:
        """Run all of the job here."""
        return self._run_job(self.call_id, self._meter())

    def run_for(self, parent: str) -> dict[str, object]:
        """Run all of the job of the call `parent` here, with events of that call; end if that call ends."""
        with ending_with(parent, self.cancellation):
            return self._run_job(parent, self._meter(), call_id=self.call_id)

    def coordinate(self, workers: int, version: int) -> dict[str, object]:
        """Run the job, but have its segments rendered by up to `workers` calls of the deployed `version`."""
        segments = _deployed_row(self.function, SEGMENTS_SUFFIX)
        calls = ModalCalls(
            app_name(self.settings),
            self.function.name,
            version,
            self.payload,
            parent=str(self.call_id),
            resources=self.resources,
            segments_on_gpu=segments["gpu"] != "none",
        )
        own_cores = None if self.resources is None else self.resources.cpu
        at_once = segments_at_once(self.function, self.payload, own_cores or float(segments["cpu"]))
        fan_out = FanOut(calls, str(self.payload["job_id"]), workers, at_once)
        return self._run_job(self.call_id, self._meter(COORDINATOR_SUFFIX), workers=fan_out)

    def render_part(self, part: Segment, parent: str) -> dict[str, object]:
        """Render and store some segments of the job of the call `parent`; end if that call ends."""
        with ending_with(parent, self.cancellation):
            return self._run_job(self.call_id, self._meter(SEGMENTS_SUFFIX), part=part, call_id=self.call_id)

    def _run_job(
        self,
        report_to: str | None,
        meter: Meter,
        *,
        workers: FanOut | None = None,
        part: Segment | None = None,
        call_id: str | None = None,
    ) -> dict[str, object]:
        request = {key: value for key, value in self.payload.items() if key not in {SUBMITTED_AT, TRACEPARENT}}
        at_once = 1 if workers else segments_at_once(self.function, request, self.settings.cpu or 1)
        traceparent = self.payload.get(TRACEPARENT)
        with continued(traceparent if isinstance(traceparent, str) else None), EventSender(report_to) as sender:
            return run_job(
                self.function,
                request,
                settings=self.settings,
                send=sender.send,
                cancellation=self.cancellation,
                meter=meter,
                workers=workers,
                processes=WorkerProcesses(self.function, request, self.settings, at_once) if at_once > 1 else None,
                part=part,
                call_id=call_id,
            )

    def _meter(self, suffix: str = "") -> Meter:
        submitted_at = self.payload.get(SUBMITTED_AT)
        return Meter(
            _machine(self.function, suffix, None if suffix == COORDINATOR_SUFFIX else self.resources),
            submitted_at=submitted_at if isinstance(submitted_at, float) else None,
            startup_seconds=self.startup_seconds,
        )


def container_facts(contract: Contract) -> dict[str, str]:
    """Return the actual source hash, packages of functions and ffmpeg of this container."""
    try:
        ffmpeg = find_ffmpeg()
        number = ".".join(map(str, ffmpeg.version))
        versions = {"ffmpeg": ffmpeg_text(number, ffmpeg.origin), "ffmpeg_build": str(ffmpeg)}
    except FFmpegError as error:
        versions = {"ffmpeg": error.message, "ffmpeg_build": error.message}
    modules = {row["module"] for row in contract.functions.values()}
    packages = {name: package_text(name) for name in {module.partition(".")[0] for module in modules}}
    return {"source": source_hash(), "packages": json.dumps(packages), **versions}


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


def _started_for(payload: Mapping[str, object]) -> bool:
    """Return whether this container was started after the submission of the job, and not in advance."""
    submitted_at = payload.get(SUBMITTED_AT)
    if not isinstance(submitted_at, float):
        return True
    return seconds_since_process_start() <= time.time() - submitted_at + _CLOCK_SECONDS


def _resources_in(how: Mapping[str, object]) -> Resources | None:
    """Return the resources that the host sent with a call."""
    values = how.get("resources")
    return Resources.from_dict(values) if isinstance(values, Mapping) else None


def _deployed_row(function: AnyFunction, suffix: str) -> Mapping[str, str]:
    """Return the resources with which the function on Modal, `function.name + suffix`, was deployed."""
    deployed, name = os.environ.get("REEL_MODAL_CONTRACT"), function.name + suffix
    row = Contract.from_json(deployed).functions.get(name) if deployed else None
    return row or spec_row(function.deployed_specs()[name])


def _machine(function: AnyFunction, suffix: str, resources: Resources | None) -> Machine:
    """Return the GPU and the price of this container, of the function on Modal `function.name + suffix`."""
    chosen = {} if resources is None else resources.to_dict()
    row = {**_deployed_row(function, suffix), **{name: str(value) for name, value in chosen.items()}}
    # If several GPU types are allowed, assume the first, the most likely one; only the driver knows the actual one.
    named = row["gpu"].partition(",")[0]
    gpu = None if named == "none" else named
    rates = load_rates()
    rate = rates.usd_per_second(
        gpu=gpu, cpu=float(row["cpu"]), memory_mb=float(row["memory_mb"]), in_region="region" in chosen
    )
    return Machine(gpu, rate, rates.dated, "" if resources is None else resources.to_text())
