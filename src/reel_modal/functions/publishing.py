"""The end of every render function: look at what was made, and only then put it in place.

It must not know what was drawn.
"""

from __future__ import annotations

from reel_modal.errors import OutputMismatchError
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.functions.context import JobContext
from reel_modal.media import probe
from reel_modal.timestamps import same_rate

__all__ = ["verify_and_publish"]


def verify_and_publish(made: PipeResult, key: str, context: JobContext) -> int:
    """Publish `made` under `key` when it is what it claims to be, and return its bytes.

    Raises:
        OutputMismatchError: Frames, size, rate or length differ; nothing is published.
        StorageError: It could not be put in place.
    """
    with context.reporter.phase("verify"):
        found = probe(made.path, settings=context.settings, scan=True)
        frames = None if found.scan is None else found.scan.frame_count
        _expect("frames", made.frames, frames)
        _expect("size", made.size, found.size)
        if made.constant_rate and not same_rate(made.fps, found.fps):
            _expect("frame rate", made.fps, found.fps)
        if found.duration_seconds is not None and abs(found.duration_seconds - made.duration_seconds) > 1 / made.fps:
            _expect("seconds", float(made.duration_seconds), float(found.duration_seconds))
    with context.reporter.phase("publish"):
        return context.storage.publish(made.path, key)


def _expect(what: str, asked: object, found: object) -> None:
    if asked != found:
        raise OutputMismatchError(f"the output has another {what} than was asked for: {found}, not {asked}")
