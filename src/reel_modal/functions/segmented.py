"""Render a long output in segments that are stored when they are finished, so that no attempt renders them again.

The grid of segments, and so the output, depends on the source and the request alone. A source whose frames may differ
if decoding begins in the middle is rendered in one piece.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from reel_modal._ffmpeg.frame_slots import SpanError, count_slots, shown_ticks
from reel_modal._ffmpeg.muxing import is_mp4_like
from reel_modal._segments import SEGMENT_SECONDS, Engine, Rendering, Segment, SegmentsFinished, segment_grid
from reel_modal._support.scratch import scratch_dir
from reel_modal.errors import FunctionError, StorageError
from reel_modal.ffmpeg_pipe import FramePipe, PipeResult, Writable
from reel_modal.functions.context import JobContext, SegmentWorkers
from reel_modal.functions.contract import source_hash
from reel_modal.functions.exact_source import ExactSource
from reel_modal.media import MediaInfo
from reel_modal.media.frames import Frame
from reel_modal.media.open import opened, packets_of
from reel_modal.schema.requests import Request

__all__ = ["Make", "OpenFrames", "SegmentedRender"]

_log = logging.getLogger(__name__)

Make: TypeAlias = Callable[[Iterator[Frame]], Generator[Writable]]
"""Makes one output frame from each source frame. Frames may be changed in place."""

OpenFrames: TypeAlias = Callable[[int, int], AbstractContextManager[Iterator[Writable]]]
"""Opens the output frames from one index to another, exclusive."""

# Encoders that write the same bytes from the same frames, and whose parts can be joined.
_EXACT: Final = frozenset({"libx264"})
# With these options x264 writes no keyframe after the first one.
_ONE_KEYFRAME: Final = {"sc_threshold": "0", "g": "1000000"}


@dataclass(slots=True)
class SegmentedRender:
    """A render at a constant rate, of which each segment can be made alone.

    Attributes:
        pipe: The output; it is not entered.
        request: The request.
        context: Context of the job.
        source: The source.
        grid: The segments, in order.
        engine: What makes the frames; None if other processes render them and have not reported it yet.
    """

    pipe: FramePipe
    request: Request[Any]
    context: JobContext
    source: ExactSource
    grid: tuple[Segment, ...]
    engine: Engine | None

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
            engine: See `SegmentedRender`.
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
            _log_one_piece(context, media, reason)
            return None
        if frames is None:
            frames = count_slots(media, pipe.fps, media.start_seconds, context.settings.limits)
        return cls(pipe, request, context, source, segment_grid(frames, pipe.fps, segment_seconds), engine)

    def render_each(self, make: Make) -> PipeResult | None:
        """Write the output, with a frame for each source frame at its rate, as a phase of the job; see `render`."""
        media, interval = self.source.media, 1 / self.pipe.fps
        try:
            shown = shown_ticks(self.source.ticks, media, self.pipe.fps, self.grid[-1].end)
        except SpanError as error:
            _log_one_piece(self.context, media, str(error))
            return None

        @contextmanager
        def opened_frames(first: int, end: int) -> Iterator[Iterator[Writable]]:
            reader = self.source.reader(
                shown[first:end],
                pixel_format=self.pipe.pixel_format,
                settings=self.context.settings,
                first_seconds=media.start_seconds + first * interval,
                interval_seconds=interval,
            )
            with reader, closing(make(iter(reader))) as made:
                yield made

        with self.context.reporter.phase("render", self.grid[-1].end) as advance:
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
            with scratch_dir(self.context.workdir) as folder:
                parts = self._parts(folder, open_frames, advance)
                return self.pipe.join(parts, self.grid[-1].end)
        except SpanError as error:
            _log_one_piece(self.context, self.source.media, str(error))
            return None

    def _parts(self, folder: Path, open_frames: OpenFrames, advance: Callable[[int], None]) -> list[Path]:
        """Return a file for each segment: of the store, or rendered here.

        Raises:
            SegmentsFinished: This process renders only a part of the output, and its segments are stored.
        """
        paths = {segment: folder / f"{segment.first}-{segment.end}.mp4" for segment in self.grid}
        if self.context.workers is not None:
            return self._parts_of_workers(self.context.workers, paths, advance)
        rendering = "" if self.context.segments is None else self._rendering(self.context.segments.source).hash()
        if self.context.part is None:
            self._render_missing(rendering, paths, open_frames, advance)
            return list(paths.values())
        part = self.context.part
        mine = {
            segment: path
            for segment, path in paths.items()
            if part.first <= segment.first and segment.end <= part.end
        }
        self._render_missing(rendering, mine, open_frames, advance)
        raise SegmentsFinished(rendering, self.known_engine())

    def _parts_of_workers(
        self, workers: SegmentWorkers, paths: dict[Segment, Path], advance: Callable[[int], None]
    ) -> list[Path]:
        report = workers.render(self.grid, self.context, advance)
        self.engine = report.engine
        if missing := paths.keys() - self._fetch(report.rendering, paths):
            first = min(missing, key=lambda segment: segment.first)
            raise StorageError(
                f"{len(missing)} segments were stored and have disappeared, from frame {first.first} on"
            )
        return list(paths.values())

    def _render_missing(
        self, rendering: str, paths: dict[Segment, Path], open_frames: OpenFrames, advance: Callable[[int], None]
    ) -> None:
        """Fetch the stored ones of some segments, and render and store the others."""
        found = self._fetch(rendering, paths)
        count = _FrameCount(sum(segment.frames for segment in found), advance)
        advance(count.done)
        for run in _runs(list(paths), found):
            with open_frames(run[0].first, run[-1].end) as frames:
                for segment in run:
                    self._write(segment, frames, paths[segment], {}, count.add)
                    if segment != self.grid[-1] and _ends_with_same_idr(paths[segment]):
                        # Two IDR pictures in a row must have different ids (ITU-T H.264, 7.4.3, idr_pic_id).
                        with open_frames(segment.first, segment.end) as same:
                            self._write(segment, same, paths[segment], _ONE_KEYFRAME, lambda: None)
                    if self.context.segments is not None:
                        self.context.segments.write(rendering, segment, paths[segment])

    def known_engine(self) -> Engine:
        """Return what makes, or has made, the frames.

        Raises:
            FunctionError: Other processes render them, and have not reported it yet.
        """
        if self.engine is None:
            raise FunctionError("what makes the frames is not known", function=self.context.function)
        return self.engine

    def _rendering(self, source: str) -> Rendering:
        ffmpeg = self.pipe.choice().ffmpeg
        return Rendering(
            source=source,
            request=self.request,
            function=self.context.function,
            engine=self.known_engine().exact,
            encoding=self.pipe.encoding_arguments(),
            ffmpeg=f"{ffmpeg.version_text} {ffmpeg.build}",
            code=source_hash(),
        )

    def _fetch(self, rendering: str, paths: dict[Segment, Path]) -> set[Segment]:
        """Fetch the stored segments; return those that are complete."""
        store, found = self.context.segments, set[Segment]()
        sealed = frozenset[Segment]() if store is None else store.sealed(rendering)
        for segment, path in paths.items():
            self.context.raise_if_cancelled()
            if store is not None and segment in sealed and store.fetch(rendering, segment, path):
                found.add(segment)
        return found

    def _write(
        self,
        segment: Segment,
        frames: Iterator[Writable],
        path: Path,
        options: Mapping[str, str],
        count: Callable[[], None],
    ) -> None:
        """Encode a segment from the next `frames`; call `count` after each."""
        with self.pipe.part(path, options) as part:
            for frame in islice(frames, segment.frames):
                self.context.raise_if_cancelled()
                part.write(frame)
                count()


@dataclass(slots=True)
class _FrameCount:
    """Number of finished frames, which is reported after each."""

    done: int
    advance: Callable[[int], None]

    def add(self) -> None:
        """Count one more frame."""
        self.done += 1
        self.advance(self.done)


def _log_one_piece(context: JobContext, media: MediaInfo, reason: str) -> None:
    _log.info("%s renders %s in one piece: %s", context.function, media.path.name, reason)


def _unjoinable(pipe: FramePipe) -> str:
    """Return why the output cannot be joined from parts; empty if it can."""
    encoder = pipe.choice().name
    if encoder not in _EXACT:
        return f"parts of {encoder} are not joined"
    return "" if is_mp4_like(pipe.path) else f"parts are not joined to {pipe.path.suffix}"


def _runs(grid: Sequence[Segment], found: set[Segment]) -> Iterator[list[Segment]]:
    """Yield the runs of consecutive segments that are not `found`."""
    run: list[Segment] = []
    for segment in grid:
        if segment not in found:
            run.append(segment)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _ends_with_same_idr(path: Path) -> bool:
    """Return whether the last packet of a part is an IDR picture with the id of the first one.

    x264 alternates between two ids.
    """
    with opened(path, packets_only=True) as video:
        keyframes = [packet.is_keyframe for packet in packets_of(video, video.streams.video[0]) if packet.size]
    return keyframes[-1] and sum(keyframes) % 2 == 1
