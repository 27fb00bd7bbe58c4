"""Run a declared function: reuse or run the body, write the receipt, publish. In a container or a worker process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from reel_modal._progress.events import ProgressEvent
from reel_modal._segments import WHOLE, Segment, SegmentReport, SegmentsFinished, SegmentStore
from reel_modal._support.scratch import scratch_dir
from reel_modal.errors import FunctionError, ObjectExistsError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.context import (
    CancellationToken,
    JobContext,
    OnePieceNeeded,
    Reporter,
    SegmentProcesses,
    SegmentWorkers,
)
from reel_modal.functions.contract import PACKAGE_NAME
from reel_modal.functions.metering import Meter
from reel_modal.functions.receipts import Receipt, as_requested
from reel_modal.schema.requests import Request, VideoRequest
from reel_modal.schema.results import Result, Usage
from reel_modal.settings import Settings
from reel_modal.storage import Storage
from reel_modal.storage.urls import required_store

__all__ = ["run_in_context", "run_job"]


def run_job(
    function: AnyFunction,
    payload: Mapping[str, object],
    *,
    settings: Settings,
    send: Callable[[ProgressEvent], None],
    attempt: int = 1,
    cancellation: CancellationToken | None = None,
    folder: Path | None = None,
    meter: Meter | None = None,
    workers: SegmentWorkers | None = None,
    processes: SegmentProcesses | None = None,
    part: Segment | None = None,
    call_id: str | None = None,
) -> dict[str, object]:
    """Run one job in this process, which is reserved for it; return its result as a JSON-compatible dict.

    If the same job has already made its output, or if the request allows reuse of an existing output, the result is
    returned without running the body.

    Args:
        function: The function.
        payload: The request's `to_dict()`.
        settings: Settings of this process; `store_url` is the media store.
        send: Called with each event of the job, in the reporting thread.
        attempt: 1 for the first attempt of the job.
        cancellation: Checked between frames.
        folder: Parent of the job's working directory; None is the system's temporary directory.
        meter: Measures the usage; default: a machine without cost.
        workers: Machines that render the segments of the output; None renders them here.
        processes: Processes on this machine that render several segments at once; None renders one after the other.
        part: Frames of the output whose segments are rendered and stored for another process, which gets the
            `SegmentReport` as a dict; None runs all of the job.
        call_id: Id of the call, if a coordinator made it: for `part`, or for all of an output that it cannot have
            rendered in segments. A coordinator that is started again finds the call by it.

    Raises:
        ConfigError: No store is configured.
        FunctionError: Another call of the same coordinator renders these frames.
        ObjectExistsError: Another output exists, and the request refuses to replace it.
        JobCancelledError: `cancellation` was set.
        ReelModalError: The function failed.
    """
    job = _Job.of(function, payload, settings)
    meter = meter or Meter()
    receipt = Receipt(job.storage, job.request.stored_keys()[1], job.request.request_hash(), function)
    existing = _made_before(job.request, receipt, job.source_version) if part is None else None
    if existing is not None:
        usage = existing.usage if existing.reused_from is None else meter.usage(job.storage.traffic)
        return replace(as_requested(existing, job.request), usage=usage).to_dict()
    with scratch_dir(folder) as workdir, meter.memory.watching():
        context = job.context(
            workdir,
            reporter=Reporter(send, attempt=attempt),
            cancellation=cancellation or CancellationToken(),
            meter=meter,
            output_tags=receipt.tags(job.source_version),
            segments=job.segments(required=workers is not None or part is not None),
            workers=workers,
            processes=processes,
            part=part,
        )
        if call_id is not None and not job.segments(required=True).claim(job.request.job_id, part or WHOLE, call_id):
            raise FunctionError("another call renders these frames", function=function.name)
        if part is not None:
            return _render_part(job, context).to_dict()
        try:
            result = run_in_context(
                function,
                job.request,
                context,
                announce=lambda result, output: receipt.write(result, output, job.source_version),
            )
        except OnePieceNeeded:
            if workers is None:
                raise
            result = function.parse_result(workers.render_elsewhere(context))
            context.meter.add(result.usage or Usage())
            result = replace(result, usage=context.usage())
        if context.segments is not None:
            context.segments.discard()
        return result.to_dict()


def _render_part(job: _Job, context: JobContext) -> SegmentReport:
    """Render and store the segments within a part of an output.

    Raises:
        FunctionError: The output cannot be rendered in segments.
    """
    try:
        job.function.body(job.function.from_request(job.request), context)
    except SegmentsFinished as finished:
        return SegmentReport(rendering=finished.rendering, engine=finished.engine, usage=context.usage())
    raise FunctionError("its output was not rendered in segments", function=job.function.name)


@dataclass(frozen=True, slots=True)
class _Job:
    """A request with its store, and the version of its inputs."""

    function: AnyFunction
    request: Request[Any]
    settings: Settings
    storage: Storage
    source_version: str

    @classmethod
    def of(cls, function: AnyFunction, payload: Mapping[str, object], settings: Settings) -> Self:
        store_url = required_store(settings.store_url)
        request = function.parse_request(payload)
        storage = Storage.from_url(store_url)
        clip_version = " ".join(storage.stat(key).version for key in dict.fromkeys(request.stored_inputs()))
        return cls(
            function, request, settings, storage, _version_of_inputs(function, request, clip_version, settings)
        )

    def segments(self, *, required: bool) -> SegmentStore:
        """Return the store of the job's segments; see `SegmentStore`."""
        source = f"{self.request.stored_keys()[0]} {self.source_version}"
        package = "" if self.function.package == PACKAGE_NAME else self.function.package
        return SegmentStore(
            self.storage, user_id=self.request.user_id, source=source, package=package, required=required
        )

    def context(self, workdir: Path, *, reporter: Reporter, **fields: Any) -> JobContext:
        """Return the context of the body."""
        # A transfer counts no frames, and a job without events would be considered stalled.
        self.storage.on_transfer = reporter.pulse
        context = JobContext(
            storage=self.storage,
            workdir=workdir,
            settings=self.settings,
            reporter=reporter,
            function=self.function.name,
            input_place=self.request.stored_input,
            output_place=self.request.stored_output,
            **fields,
        )
        context.raise_if_cancelled()
        return context


def run_in_context(
    function: AnyFunction,
    request: Request[Any],
    context: JobContext,
    *,
    announce: Callable[[Result, Path], None] | None = None,
) -> Result:
    """Run the body of a function, publish what it has made, and return its result with the durations and the usage.

    Args:
        function: The function.
        request: The request, in the form in which it is submitted.
        context: Context of the job.
        announce: Called with the result and the output just before the output is published, to write the receipt.

    Raises:
        JobCancelledError: The job was cancelled; nothing is published.
        ReelModalError: The function failed.
    """
    if not context.function:
        context = replace(context, function=function.name)
    result = function.to_result(function.body(function.from_request(request), context))
    context.raise_if_cancelled()
    place = context.output_place(request.output_key)
    output = context.outputs.pop(place, None)
    named = result.usage
    result = replace(
        result,
        job_id=request.job_id,
        function=function.name,
        output_key=request.output_key,
        stored_key=place,
        bytes=result.bytes if output is None else output.stat().st_size,
    )

    def finished() -> Result:
        usage = context.usage()
        if named is not None:
            usage = replace(usage, model=named.model, ffmpeg=named.ffmpeg, decoder_ffmpeg=named.decoder_ffmpeg)
        return replace(result, seconds_by_phase=dict(context.reporter.seconds_by_phase), usage=usage)

    if output is None and not context.outputs:
        return finished()
    with context.reporter.phase("publish"):
        for other_place, path in context.outputs.items():
            context.storage.publish(path, other_place)
        if output is not None:
            if announce is not None:
                announce(finished(), output)
            refuse = request.store.existing == "refuse"
            context.storage.publish(output, place, existing="refuse" if refuse else "replace")
    return finished()


def _version_of_inputs(function: AnyFunction, request: Request[Any], clip_version: str, settings: Settings) -> str:
    """Return the version of all inputs besides the request, such as the clip and a registered network."""
    if function.input_version is None:
        return clip_version
    return f"{clip_version} {function.input_version(function.from_request(request), settings)}".rstrip()


def _made_before(request: Request[Any], receipt: Receipt, source_version: str) -> Result | None:
    """Return an existing result that this job can use, or None."""
    stored = receipt.find()
    if stored is not None and stored.result.job_id == request.job_id:
        return stored.result  # made by this job before its machine was preempted
    existing = request.store.existing
    if stored is not None and existing != "replace" and stored.source_version == source_version:
        return replace(stored.result, job_id=request.job_id, reused_from=stored.result.job_id)
    is_video = isinstance(request, VideoRequest)
    if is_video and existing != "replace" and (result := receipt.result_from_tags(source_version)):
        return replace(result, job_id=request.job_id)
    if existing == "refuse" and receipt.output_exists():
        raise ObjectExistsError(
            f"{request.output_key!r} exists, but is not the output of this request, and store.existing is 'refuse';"
            " use another key, or remove the output"
        )
    return None
