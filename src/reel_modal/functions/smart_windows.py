"""Encode the changed parts of a smart render; long ones in segments that are stored when they are finished.

The segments depend on the source and the request alone. Each is decoded from a place that does not depend on the
others, so that the bytes are the same whichever segments an earlier attempt has stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal import _smart_render
from reel_modal._segments import SEGMENT_SECONDS, Engine, Segment, segment_grid
from reel_modal._smart_render import EncodedFrames, Painter, SplicePlan
from reel_modal.errors import SpliceError
from reel_modal.functions.context import JobContext
from reel_modal.functions.stored_parts import StoredParts, log_one_piece
from reel_modal.schema.requests import VideoRequest

__all__ = ["encode_changed"]

_ENGINE: Final = Engine.of_name("smart")


def encode_changed(
    plan: SplicePlan,
    folder: Path,
    request: VideoRequest,
    *,
    painter: Painter | None,
    context: JobContext,
    advance: Callable[[int], None],
) -> EncodedFrames | None:
    """Encode the frames that `plan` does not copy; return None if it copies all.

    Args:
        plan: The plan.
        folder: The folder of the new files.
        request: The request.
        painter: Returns the function that draws on each frame; None leaves the frames unchanged.
        context: Reporter, settings, store and cancellation.
        advance: Called with the number of finished frames.

    Raises:
        EncoderUnavailableError: libx264 does not start on this machine.
        SpliceError: A frame does not decode, or has a different format.
        FFmpegError: Encoding failed.

    Cancellation:
        Raises JobCancelledError between two frames.
    """
    if not plan.windows:
        return None
    done = 0

    def report(frames: int) -> None:
        nonlocal done
        context.raise_if_cancelled()
        done = max(done, frames)
        advance(done)

    grid = _grid(plan)
    if len(grid) > len(plan.windows):
        try:
            return _in_segments(plan, grid, folder, request, painter=painter, context=context, advance=report)
        except SpliceError as error:
            log_one_piece(context, plan.picture.media, str(error))
    context.begin_one_piece()
    return _smart_render.encode_windows(
        plan, folder, encode=request.encode, painter=painter, settings=context.settings, advance=report
    )


def _grid(plan: SplicePlan) -> tuple[Segment, ...]:
    """Return the segments of each render span, which begin with it. An index is the rank of a frame of the source."""
    fps = plan.picture.media.fps
    # An even number of frames: if all frames are IDR pictures, x264 gives the last one another id than the first.
    seconds = 2 * max(1, round(SEGMENT_SECONDS * fps / 2)) / Fraction(fps)
    return tuple(
        Segment(first + each.first, first + each.end)
        for first, end in (window.kept for window in plan.windows)
        for each in segment_grid(end - first, fps, seconds)
    )


def _in_segments(
    plan: SplicePlan,
    grid: tuple[Segment, ...],
    folder: Path,
    request: VideoRequest,
    *,
    painter: Painter | None,
    context: JobContext,
    advance: Callable[[int], None],
) -> EncodedFrames:
    """Encode each segment alone, unless it is in the store."""
    spans = dict(zip(grid, plan.spans_of((each.first, each.end) for each in grid), strict=True))

    @contextmanager
    def opened_frames(first: int, end: int) -> Iterator[Iterator[memoryview]]:
        chosen = [span for segment, span in spans.items() if first <= segment.first < end]
        with _smart_render.opened_frames(plan.picture, chosen, painter, context.settings, exact=True) as frames:
            yield frames

    pipe = _smart_render.window_pipe(plan, folder, request.encode, context.settings)
    paths = StoredParts(pipe, request, context, grid, _ENGINE).make(folder, opened_frames, advance)
    return EncodedFrames(paths, [each.first for each in grid], pipe)
