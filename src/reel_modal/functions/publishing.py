"""The end of every render function: look at what was made, and only then put it in place, with its receipt.

It must not know what was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from reel_modal.errors import OutputMismatchError
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.functions.context import JobContext
from reel_modal.media import probe
from reel_modal.schema import RenderResult, StoreOptions
from reel_modal.timestamps import same_rate

__all__ = ["publish_result", "result_of"]


class _Request(Protocol):
    @property
    def job_id(self) -> str: ...
    @property
    def output_key(self) -> str: ...
    @property
    def store(self) -> StoreOptions: ...


def result_of(
    made: PipeResult, request: _Request, *, function: str, engine: str, degraded: Iterable[str] = ()
) -> RenderResult:
    """Return what is known of the result once its file is made.

    Args:
        made: The finished file.
        request: What was asked for.
        function: The function's name.
        engine: What did the per-frame work.
        degraded: What is not as asked, besides what the file itself says.
    """
    return RenderResult(
        job_id=request.job_id,
        function=function,
        output_key=request.output_key,
        frames=made.frames,
        size=made.size,
        fps=made.fps,
        duration_seconds=made.duration_seconds,
        bytes=made.bytes,
        engine=engine,
        encoder=made.encoder,
        seconds_by_phase={},
        degraded=(*degraded, *made.degraded),
    )


def publish_result(
    result: RenderResult, made: PipeResult, request: _Request, context: JobContext, *, model: str | None = None
) -> RenderResult:
    """Publish `made` when it is what it claims to be, and return the result with its receipt.

    Args:
        result: What is known of it.
        made: The finished file.
        request: What was asked for.
        context: Of the job.
        model: The network that made pixels.

    Raises:
        OutputMismatchError: Frames, size, rate or length differ; nothing is published.
        StorageError: It could not be put in place.
    """
    with context.reporter.phase("verify"):
        _verify(made, context)
    with context.reporter.phase("publish"):
        context.announce(_measured(result, context, model), made.path)
        refuse = request.store.existing == "refuse"
        context.storage.publish(made.path, request.output_key, existing="refuse" if refuse else "replace")
    return _measured(result, context, model)


def _measured(result: RenderResult, context: JobContext, model: str | None) -> RenderResult:
    seconds = dict(context.reporter.seconds_by_phase)
    return replace(result, seconds_by_phase=seconds, usage=context.usage(model))


def _verify(made: PipeResult, context: JobContext) -> None:
    found = probe(made.path, settings=context.settings, scan=True)
    frames = None if found.scan is None else found.scan.frame_count
    _expect("frames", made.frames, frames)
    _expect("size", made.size, found.size)
    if made.constant_rate and not same_rate(made.fps, found.fps):
        _expect("frame rate", made.fps, found.fps)
    if found.duration_seconds is not None and abs(found.duration_seconds - made.duration_seconds) > 1 / made.fps:
        _expect("seconds", float(made.duration_seconds), float(found.duration_seconds))


def _expect(what: str, asked: object, found: object) -> None:
    if asked != found:
        raise OutputMismatchError(f"the output has another {what} than was asked for: {found}, not {asked}")
