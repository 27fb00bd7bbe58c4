"""Run a declared function: reuse or run the body, write the receipt, publish. In a container or a worker process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reel_modal._progress.events import ProgressEvent
from reel_modal._segments import SegmentStore
from reel_modal._support.scratch import scratch_dir
from reel_modal.errors import ObjectExistsError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.functions.metering import Meter
from reel_modal.functions.receipts import Receipt, as_requested
from reel_modal.schema.requests import Request, VideoRequest
from reel_modal.schema.results import Result
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

    Raises:
        ConfigError: No store is configured.
        ObjectExistsError: Another output exists, and the request refuses to replace it.
        JobCancelledError: `cancellation` was set.
        ReelModalError: The function failed.
    """
    meter = meter or Meter()
    store_url = required_store(settings.store_url)
    request = function.parse_request(payload)
    source_key, output_key = request.stored_keys()
    storage = Storage.from_url(store_url)
    receipt = Receipt(storage, output_key, request.request_hash(), function)
    source_version = _version_of_inputs(function, request, storage.stat(source_key).version, settings)
    existing = _made_before(request, receipt, source_version)
    if existing is not None:
        usage = existing.usage if existing.reused_from is None else meter.usage(storage.traffic)
        return replace(as_requested(existing, request), usage=usage).to_dict()
    with scratch_dir(folder) as workdir:
        reporter = Reporter(send, attempt=attempt)
        # A transfer counts no frames, and a job without events would be considered stalled.
        storage.on_transfer = reporter.pulse
        segments = SegmentStore(storage, user_id=request.user_id, source=f"{source_key} {source_version}")
        context = JobContext(
            storage=storage,
            workdir=workdir,
            settings=settings,
            reporter=reporter,
            cancellation=cancellation or CancellationToken(),
            meter=meter,
            function=function.name,
            output_tags=receipt.tags(source_version),
            input_place=request.stored_input,
            output_place=request.stored_output,
            segments=segments,
        )
        context.raise_if_cancelled()
        result = run_in_context(
            function,
            request,
            context,
            announce=lambda result, output: receipt.write(result, output, source_version),
        )
        segments.discard()
        return result.to_dict()


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
