"""Render a long output in segments that are stored when they are finished, so that no attempt renders them again.

The grid of segments, and so the output, depends on the source and the request alone. A source whose frames may differ
if decoding begins in the middle is rendered in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Self, TypeAlias

from reel_modal._ffmpeg.frame_slots import SpanError, count_slots, shown_ticks
from reel_modal._ffmpeg.muxing import is_mp4_like
from reel_modal._segments import SEGMENT_SECONDS, Engine, segment_grid
from reel_modal._support.scratch import scratch_dir
from reel_modal.ffmpeg_pipe import FramePipe, PipeResult, Writable
from reel_modal.functions.context import JobContext
from reel_modal.functions.exact_source import ExactSource
from reel_modal.functions.stored_parts import OpenFrames, StoredParts, log_one_piece
from reel_modal.media import MediaInfo
from reel_modal.media.frames import Frame
from reel_modal.schema.requests import Request

__all__ = ["Make", "SegmentedRender"]

Make: TypeAlias = Callable[[Iterator[Frame]], Generator[Writable]]
"""Makes one output frame from each source frame. Frames may be changed in place."""

# Encoders that write the same bytes from the same frames, and whose parts can be joined.
_EXACT: Final = frozenset({"libx264"})


@dataclass(frozen=True, slots=True)
class SegmentedRender:
    """A render at a constant rate, of which each segment can be made alone.

    Attributes:
        parts: The segments.
        source: The source.
    """

    parts: StoredParts
    source: ExactSource

    @classmethod
    def plan(
        cls,
        pipe: FramePipe,
        request: Request[Any],
        context: JobContext,
        media: MediaInfo,
        *,
        engine: Engine | None,
        frames: int | None = None,
        kept: tuple[Fraction, Fraction] | None = None,
        segment_seconds: Fraction = SEGMENT_SECONDS,
        refused: str = "",
    ) -> Self | None:
        """Return the plan; None if the output is short, or has to be rendered in one piece.

        Args:
            pipe: The output.
            request: The request.
            context: Context of the job.
            media: The source.
            engine: See `StoredParts`.
            frames: Number of frames of the output; None is all of the source at the rate of `pipe`.
            kept: See `ExactSource.of`.
            segment_seconds: Duration of a segment in seconds; shorter if a frame takes long.
            refused: Reason why the output has to be rendered in one piece, if it is already known.

        Raises:
            InvalidMediaError: The source cannot be read.
            EncoderUnavailableError: The encoder does not start on this machine.
        """
        expected = media.frames_at(pipe.fps) if frames is None else frames
        if expected is None or len(segment_grid(expected, pipe.fps, segment_seconds)) == 1:
            return None
        reason = refused or _unjoinable(pipe)
        try:
            source = ExactSource.of(media, kept) if not reason else None
        except SpanError as error:
            source, reason = None, str(error)
        if source is None:
            log_one_piece(context, media, reason)
            return None
        if frames is None:
            frames = count_slots(media, pipe.fps, media.start_seconds, context.settings.limits)
        grid = segment_grid(frames, pipe.fps, segment_seconds)
        return cls(StoredParts(pipe, request, context, grid, engine), source)

    def render_each(self, make: Make) -> PipeResult | None:
        """Write the output, with a frame for each source frame at its rate, as a phase of the job; see `render`."""
        media, interval = self.source.media, 1 / self.parts.pipe.fps
        try:
            shown = shown_ticks(self.source.ticks, media, self.parts.pipe.fps, self.parts.grid[-1].end)
        except SpanError as error:
            log_one_piece(self.parts.context, media, str(error))
            return None

        @contextmanager
        def opened_frames(first: int, end: int) -> Iterator[Iterator[Writable]]:
            reader = self.source.reader(
                shown[first:end],
                pixel_format=self.parts.pipe.pixel_format,
                settings=self.parts.context.settings,
                first_seconds=media.start_seconds + first * interval,
                interval_seconds=interval,
            )
            with reader, closing(make(iter(reader))) as made:
                yield made

        with self.parts.context.reporter.phase("render", self.parts.grid[-1].end) as advance:
            return self.render(opened_frames, advance)

    def render(self, open_frames: OpenFrames, advance: Callable[[int], None]) -> PipeResult | None:
        """Write the output; return None if it has to be rendered in one piece.

        Args:
            open_frames: Opens a run of output frames.
            advance: Called with the number of finished frames.

        Raises:
            FFmpegError: Encoding failed.
            InvalidMediaError: The source cannot be read.

        Cancellation:
            Raises JobCancelledError between two frames.
        """
        try:
            with scratch_dir(self.parts.context.workdir) as folder:
                paths = self.parts.make(folder, open_frames, advance)
                return self.parts.pipe.join(paths, self.parts.grid[-1].end)
        except SpanError as error:
            log_one_piece(self.parts.context, self.source.media, str(error))
            return None


def _unjoinable(pipe: FramePipe) -> str:
    """Return why the output cannot be joined from parts; empty if it can."""
    encoder = pipe.choice().name
    if encoder not in _EXACT:
        return f"parts of {encoder} are not joined"
    return "" if is_mp4_like(pipe.path) else f"parts are not joined to {pipe.path.suffix}"
