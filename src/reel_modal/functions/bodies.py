"""The function bodies by name, and the one way in which a container and a worker process run them.

It must not know which of the two it is in; it is imported where a job runs, never by a host.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from reel_modal.config import Settings
from reel_modal.errors import ConfigError
from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.progress.events import ProgressEvent
from reel_modal.rendering.opencv import load_cv2
from reel_modal.schema import RenderResult
from reel_modal.storage import Storage

__all__ = ["NAMES", "run_body"]


def _render_overlay(payload: Mapping[str, object], context: JobContext) -> RenderResult:
    from reel_modal.functions import render_overlay
    from reel_modal.schema import OverlayRequest

    return render_overlay.run(OverlayRequest.parse(payload), context)


def _process_framing(payload: Mapping[str, object], context: JobContext) -> RenderResult:
    from reel_modal.functions import process_framing
    from reel_modal.schema import FramingRequest

    return process_framing.run(FramingRequest.parse(payload), context)


def _apply_upscale(payload: Mapping[str, object], context: JobContext) -> RenderResult:
    from reel_modal.functions import apply_upscale
    from reel_modal.schema import UpscaleRequest

    return apply_upscale.run(UpscaleRequest.parse(payload), context)


_BODIES: Mapping[str, Callable[[Mapping[str, object], JobContext], RenderResult]] = {
    "render_overlay": _render_overlay,
    "process_framing": _process_framing,
    "apply_upscale": _apply_upscale,
}
NAMES = frozenset(_BODIES)


def run_body(
    name: str,
    payload: Mapping[str, object],
    *,
    settings: Settings,
    send: Callable[[ProgressEvent], None],
    attempt: int = 1,
    cancellation: CancellationToken | None = None,
    folder: Path | None = None,
) -> dict[str, object]:
    """Run one job in this process, which is the job's own, and return its result as JSON holds it.

    Args:
        name: Of the function.
        payload: The request's `to_dict()`.
        settings: Of this process; its `store_url` is where the media lie.
        send: Takes the job's events, in this thread.
        attempt: 1 for the first try of the job.
        cancellation: Looked at between frames.
        folder: Where the job's own folder is made; None is the system's place for temporary files.

    Raises:
        ConfigError: The function has no body in this version, or no store is set.
        ReelModalError: What the body raises.
    """
    body = _BODIES.get(name)
    if body is None:
        raise ConfigError(f"{name!r} has no body in this version of reel_modal; it has {', '.join(sorted(_BODIES))}")
    if settings.store_url is None:
        raise ConfigError("no store is set: REEL_MODAL_STORE_URL must say where media lie, such as file:///srv/media")
    # The encoder's own threads fill the cores; more for a frame's few milliseconds of drawing only cost.
    load_cv2().setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="reel_modal-", dir=folder) as workdir:
        context = JobContext(
            storage=Storage.from_url(settings.store_url),
            workdir=Path(workdir),
            settings=settings,
            reporter=Reporter(send, attempt=attempt),
            cancellation=cancellation or CancellationToken(),
        )
        return body(payload, context).to_dict()
