"""The function bodies by name, and the one way in which a container and a worker process run them.

It must not know which of the two it is in; it is imported where a job runs, never by a host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from reel_modal.config import Settings
from reel_modal.errors import ConfigError, EncoderUnavailableError, ObjectExistsError, RequestError
from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.functions.metering import Meter
from reel_modal.media.encoders import try_encoder
from reel_modal.progress.events import ProgressEvent
from reel_modal.records import OutputRecord, as_requested
from reel_modal.rendering.opencv import load_cv2
from reel_modal.schema import EncodeOptions, RenderResult
from reel_modal.scratch import scratch_folder
from reel_modal.storage import Storage

__all__ = ["NAMES", "check_encoder", "run_body"]


@dataclass(frozen=True, slots=True)
class _Body:
    """A function: what it takes, and what it does."""

    request_type: type[Any]
    run: Callable[[Any, JobContext], RenderResult]


def _render_overlay() -> _Body:
    from reel_modal.functions import render_overlay
    from reel_modal.schema import OverlayRequest

    return _Body(OverlayRequest, render_overlay.run)


def _process_framing() -> _Body:
    from reel_modal.functions import process_framing
    from reel_modal.schema import FramingRequest

    return _Body(FramingRequest, process_framing.run)


def _apply_upscale() -> _Body:
    from reel_modal.functions import apply_upscale
    from reel_modal.schema import UpscaleRequest

    return _Body(UpscaleRequest, apply_upscale.run)


_BODIES: Mapping[str, Callable[[], _Body]] = {
    "render_overlay": _render_overlay,
    "process_framing": _process_framing,
    "apply_upscale": _apply_upscale,
}
NAMES = frozenset(_BODIES)

# The one falls back by itself, the other is in every ffmpeg that this package brings.
_NEED_NO_TRIAL: Final = frozenset({"auto", "libx264"})


def run_body(
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
    """Run one job in this process, which is the job's own, and return its result as JSON holds it.

    An output that this very job has made before, or that the request says to reuse, is returned without rendering.

    Args:
        name: Of the function.
        payload: The request's `to_dict()`.
        settings: Of this process; its `store_url` is where the media lie.
        send: Takes the job's events, in this thread.
        attempt: 1 for the first try of the job.
        cancellation: Looked at between frames.
        folder: Where the job's own folder is made; None is the system's place for temporary files.
        meter: Measures the receipt; default: one of a machine that costs nothing.

    Raises:
        ConfigError: The function has no body in this version, or no store is set.
        ObjectExistsError: There is another output, and the request says to refuse.
        JobCancelledError: `cancellation` asks for the end.
        ReelModalError: What the body raises.
    """
    meter = meter or Meter()
    if name not in _BODIES:
        raise ConfigError(f"{name!r} has no body in this version of reel_modal; it has {', '.join(sorted(_BODIES))}")
    if settings.store_url is None:
        raise ConfigError("no store is set: REEL_MODAL_STORE_URL must say where media lie, such as file:///srv/media")
    body = _BODIES[name]()
    request = body.request_type.parse(payload)
    source_place, output_place = request.places()
    storage = Storage.from_url(settings.store_url)
    record = OutputRecord(storage, output_place, request.request_hash())
    source_version = _version_of_inputs(request, storage.stat(source_place).version, settings)
    before = _rendered_before(name, request, record, source_version)
    if before is not None:
        usage = before.usage if before.reused_from is None else meter.usage(storage.traffic)
        return replace(as_requested(before, request), usage=usage).to_dict()
    check_encoder(request.encode, settings)
    # The encoder's own threads fill the cores; more for a frame's few milliseconds of drawing only cost.
    load_cv2().setNumThreads(1)
    with scratch_folder(folder) as workdir:
        reporter = Reporter(send, attempt=attempt)
        # A transfer counts no frames, and a job without news would be taken for stuck.
        storage.on_transfer = reporter.pulse
        context = JobContext(
            storage=storage,
            workdir=workdir,
            settings=settings,
            reporter=reporter,
            cancellation=cancellation or CancellationToken(),
            meter=meter,
            announce=lambda result, made: record.write(as_requested(result, request), made, source_version),
            output_tags=record.tags(source_version),
            places=(source_place, output_place),
        )
        context.raise_if_cancelled(name)
        with _encoder_named(request.encode):
            return as_requested(body.run(request, context), request).to_dict()


def check_encoder(encode: EncodeOptions, settings: Settings) -> None:
    """Try the encoder that a request names, before its input is fetched.

    Raises:
        RequestError: It does not start here.
        FFmpegNotFoundError: There is no ffmpeg.
    """
    if encode.encoder not in _NEED_NO_TRIAL:
        with _encoder_named(encode):
            try_encoder(settings, encode.encoder)


@contextmanager
def _encoder_named(encode: EncodeOptions) -> Iterator[None]:
    """Report an encoder that the request names and that does not start as an error of the request."""
    try:
        yield
    except EncoderUnavailableError as error:
        if encode.encoder == "auto":
            raise
        raise RequestError("encode.encoder", error.message) from error


def _version_of_inputs(request: Any, clip_version: str, settings: Settings) -> str:
    """Return what an output depends on besides its request: the clip, and the file of a registered network."""
    registered = settings.models.get(getattr(request, "model", None) or "")
    return clip_version if registered is None else f"{clip_version} {registered.sha256}"


def _rendered_before(function: str, request: Any, record: OutputRecord, source_version: str) -> RenderResult | None:
    """Return the result that is there already and does for this job."""
    found = record.find()
    if found is not None and found.result.job_id == request.job_id:
        return found.result  # this job's own, before its machine was taken away
    existing = request.store.existing
    if found is not None and existing != "replace" and found.source_version == source_version:
        return replace(found.result, job_id=request.job_id, reused_from=found.result.job_id)
    if existing != "replace" and (told := record.told_by_output(function, source_version)) is not None:
        return replace(told, job_id=request.job_id)
    if existing == "refuse" and record.output_is_there():
        raise ObjectExistsError(
            f"there is an output under {request.output_key!r} that is not this request's, and it is not to be"
            " replaced; name another key, or remove it"
        )
    return None
