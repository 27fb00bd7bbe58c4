"""The functions by name, and the common entry point that runs them in a container or a worker process.

Imported only by processes that run jobs, never by a host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from reel_modal._ffmpeg.encoders import try_encoder
from reel_modal._progress.events import ProgressEvent
from reel_modal._rendering.opencv import load_cv2
from reel_modal._support.scratch import scratch_dir
from reel_modal.errors import ConfigError, EncoderUnavailableError, ObjectExistsError, RequestError
from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.functions.metering import Meter
from reel_modal.functions.receipts import Receipt, as_requested
from reel_modal.schema import EncodeOptions, RenderResult
from reel_modal.settings import Settings
from reel_modal.storage import Storage

__all__ = ["FUNCTION_NAMES", "check_encoder", "run_job"]


@dataclass(frozen=True, slots=True)
class Handler:
    """Request type and implementation of a function."""

    request_type: type[Any]
    run: Callable[[Any, JobContext], RenderResult]


def _render_overlay() -> Handler:
    from reel_modal.functions import render_overlay
    from reel_modal.schema import OverlayRequest

    return Handler(OverlayRequest, render_overlay.run)


def _process_framing() -> Handler:
    from reel_modal.functions import process_framing
    from reel_modal.schema import FramingRequest

    return Handler(FramingRequest, process_framing.run)


def _apply_upscale() -> Handler:
    from reel_modal.functions import apply_upscale
    from reel_modal.schema import UpscaleRequest

    return Handler(UpscaleRequest, apply_upscale.run)


_HANDLERS: Mapping[str, Callable[[], Handler]] = {
    "render_overlay": _render_overlay,
    "process_framing": _process_framing,
    "apply_upscale": _apply_upscale,
}
FUNCTION_NAMES = frozenset(_HANDLERS)

# `auto` falls back by itself; libx264 is in every ffmpeg that this package bundles.
_ALWAYS_AVAILABLE: Final = frozenset({"auto", "libx264"})


def run_job(
    name: str,
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
    returned without rendering.

    Args:
        name: Name of the function.
        payload: The request's `to_dict()`.
        settings: Settings of this process; `store_url` is the media store.
        send: Called with each event of the job, in the reporting thread.
        attempt: 1 for the first attempt of the job.
        cancellation: Checked between frames.
        folder: Parent of the job's working directory; None is the system's temporary directory.
        meter: Measures the usage; default: a machine without cost.

    Raises:
        ConfigError: The function is unknown in this version, or no store is configured.
        ObjectExistsError: Another output exists, and the request refuses to replace it.
        JobCancelledError: `cancellation` was set.
        ReelModalError: The function failed.
    """
    meter = meter or Meter()
    if name not in _HANDLERS:
        known = ", ".join(sorted(_HANDLERS))
        raise ConfigError(f"the function {name!r} is unknown in this version of reel_modal; known are {known}")
    if settings.store_url is None:
        raise ConfigError(
            "no store is set: REEL_MODAL_STORE_URL must be the URL of the media, such as file:///srv/media"
        )
    handler = _HANDLERS[name]()
    request = handler.request_type.parse(payload)
    source_key, output_key = request.stored_keys()
    storage = Storage.from_url(settings.store_url)
    receipt = Receipt(storage, output_key, request.request_hash())
    source_version = _version_of_inputs(request, storage.stat(source_key).version, settings)
    existing = _rendered_before(name, request, receipt, source_version)
    if existing is not None:
        usage = existing.usage if existing.reused_from is None else meter.usage(storage.traffic)
        return replace(as_requested(existing, request), usage=usage).to_dict()
    check_encoder(request.encode, settings)
    # The encoder's threads use all cores; more threads for a few milliseconds of drawing per frame only add overhead.
    load_cv2().setNumThreads(1)
    with scratch_dir(folder) as workdir:
        reporter = Reporter(send, attempt=attempt)
        # A transfer counts no frames, and a job without events would be considered stalled.
        storage.on_transfer = reporter.pulse
        context = JobContext(
            storage=storage,
            workdir=workdir,
            settings=settings,
            reporter=reporter,
            cancellation=cancellation or CancellationToken(),
            meter=meter,
            announce=lambda result, output: receipt.write(as_requested(result, request), output, source_version),
            output_tags=receipt.tags(source_version),
            places=(source_key, output_key),
        )
        context.raise_if_cancelled(name)
        with _encoder_named(request.encode):
            return as_requested(handler.run(request, context), request).to_dict()


def check_encoder(encode: EncodeOptions, settings: Settings) -> None:
    """Check that the encoder of a request starts, before the input is fetched.

    Raises:
        RequestError: The encoder does not start here.
        FFmpegNotFoundError: ffmpeg was not found.
    """
    if encode.encoder not in _ALWAYS_AVAILABLE:
        with _encoder_named(encode):
            try_encoder(settings, encode.encoder)


@contextmanager
def _encoder_named(encode: EncodeOptions) -> Iterator[None]:
    """Convert EncoderUnavailableError to RequestError if the request names the encoder."""
    try:
        yield
    except EncoderUnavailableError as error:
        if encode.encoder == "auto":
            raise
        raise RequestError("encode.encoder", error.message) from error


def _version_of_inputs(request: Any, clip_version: str, settings: Settings) -> str:
    """Return the version of all inputs besides the request: the clip, and the file of a registered network."""
    registered = settings.models.get(getattr(request, "model", None) or "")
    return clip_version if registered is None else f"{clip_version} {registered.sha256}"


def _rendered_before(function: str, request: Any, receipt: Receipt, source_version: str) -> RenderResult | None:
    """Return an existing result that this job can use, or None."""
    stored = receipt.find()
    if stored is not None and stored.result.job_id == request.job_id:
        return stored.result  # made by this job before its machine was preempted
    existing = request.store.existing
    if stored is not None and existing != "replace" and stored.source_version == source_version:
        return replace(stored.result, job_id=request.job_id, reused_from=stored.result.job_id)
    if existing != "replace" and (result := receipt.result_from_tags(function, source_version)) is not None:
        return replace(result, job_id=request.job_id)
    if existing == "refuse" and receipt.output_exists():
        raise ObjectExistsError(
            f"{request.output_key!r} exists, but is not the output of this request, and store.existing is 'refuse';"
            " use another key, or remove the output"
        )
    return None
