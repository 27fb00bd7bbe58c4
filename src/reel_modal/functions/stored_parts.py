"""Make the parts of an output, each encoded alone: take those that are in the store, and store the others."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Final, TypeAlias

from reel_modal._segments import Engine, Rendering, Segment, SegmentsFinished, SegmentStore
from reel_modal.errors import FunctionError, ReelModalError, StorageError
from reel_modal.ffmpeg_pipe import FramePipe, Writable
from reel_modal.functions.context import JobContext, SegmentWorkers
from reel_modal.functions.contract import package_text, source_hash
from reel_modal.media import MediaInfo
from reel_modal.media.open import opened, packets_of
from reel_modal.schema.requests import Request

__all__ = ["OpenFrames", "StoredParts", "log_one_piece"]

_log = logging.getLogger("reel_modal.functions.segmented")

OpenFrames: TypeAlias = Callable[[int, int], AbstractContextManager[Iterator[Writable]]]
"""Opens the output frames from one index to another, exclusive."""

# With these parameters x264 writes no keyframe after the first one.
_ONE_KEYFRAME: Final = "keyint=1000000:scenecut=0"


@dataclass(slots=True)
class StoredParts:
    """The parts of an output.

    Attributes:
        pipe: The pipe of which `part` encodes each; it is not entered.
        request: The request.
        context: Context of the job.
        grid: The frames of each part, in order.
        engine: What makes the frames; None if other processes make them, and have not reported it yet.
    """

    pipe: FramePipe
    request: Request[Any]
    context: JobContext
    grid: Sequence[Segment]
    engine: Engine | None

    def make(self, folder: Path, open_frames: OpenFrames, advance: Callable[[int], None]) -> list[Path]:
        """Return a file for each part, in order: of the store, of other processes, or encoded here.

        Args:
            folder: The folder of the files.
            open_frames: Opens a run of frames.
            advance: Called with the number of finished frames.

        Raises:
            SegmentsFinished: This process makes only some of the parts, and they are stored.
            FFmpegError: Encoding failed.

        Cancellation:
            Raises JobCancelledError between two frames.
        """
        paths = {part: folder / f"{part.first}-{part.end}.mp4" for part in self.grid}
        workers, whole = self.context.workers, self.context.part
        if whole is None:
            advance = self._naming_parts(advance)
        if workers is not None:
            self._have_made(workers, paths, advance)
            return list(paths.values())
        store = self.context.segments
        rendering = "" if store is None else self._rendering(store).hash()
        if whole is None:
            self._make_missing(rendering, paths, open_frames, advance)
            return list(paths.values())
        own = {part: path for part, path in paths.items() if whole.first <= part.first and part.end <= whole.end}
        self._make_missing(rendering, own, open_frames, advance)
        raise SegmentsFinished(rendering, self.known_engine())

    def _naming_parts(self, advance: Callable[[int], None]) -> Callable[[int], None]:
        """Return `advance` with the number of the part in its events, such as `segment 7 of 20`."""
        ends, reporter = list(accumulate(part.frames for part in self.grid)), self.context.reporter

        def named(frames: int) -> None:
            number = min(bisect_right(ends, frames) + 1, len(ends))
            reporter.detail = f"segment {number} of {len(ends)}"
            advance(frames)

        return named if len(ends) > 1 else advance

    def _have_made(
        self, workers: SegmentWorkers, paths: Mapping[Segment, Path], advance: Callable[[int], None]
    ) -> None:
        """Have other processes make all parts, and fetch them from the store."""
        report = workers.render(self.grid, self.context, advance)
        self.engine = report.engine
        if missing := sorted(part.first for part in paths.keys() - self._fetch(report.rendering, paths)):
            raise StorageError(f"{len(missing)} segments have disappeared from the store, from frame {missing[0]} on")

    def _make_missing(
        self,
        rendering: str,
        paths: Mapping[Segment, Path],
        open_frames: OpenFrames,
        advance: Callable[[int], None],
    ) -> None:
        """Fetch the stored ones of some parts, and encode and store the others."""
        found = self._fetch(rendering, paths)
        count = _FrameCount(sum(part.frames for part in found), advance)
        count.show(0)
        found |= self._make_at_once(rendering, [part for part in paths if part not in found], paths, count)
        count.done = sum(part.frames for part in found)
        followed = {part.first for part in self.grid}
        for run in _runs(list(paths), found):
            with open_frames(run[0].first, run[-1].end) as frames:
                for part in run:
                    self._write(part, frames, paths[part], count=count.show)
                    count.add(part.frames)
                    if part.end in followed and _ends_with_same_idr(paths[part]):
                        # Two IDR pictures in a row must have different ids (ITU-T H.264, 7.4.3, idr_pic_id).
                        with open_frames(part.first, part.end) as same:
                            self._write(part, same, paths[part], _ONE_KEYFRAME)
                    if self.context.segments is not None:
                        self.context.segments.write(rendering, part, paths[part])

    def _make_at_once(
        self, rendering: str, missing: Sequence[Segment], paths: Mapping[Segment, Path], count: _FrameCount
    ) -> set[Segment]:
        """Have processes of this machine make several parts at once, and fetch them; return those that are made."""
        store, processes = self.context.segments, self.context.processes
        if processes is None or len(missing) < 2 or store is None or not store.usable:
            return set()
        try:
            processes.render(missing, self.context, count.show)
        except ReelModalError as error:
            self.context.raise_if_cancelled()
            _log.warning("%s renders its segments one after the other: %s", self.context.function, error)
        return self._fetch(rendering, {part: paths[part] for part in missing})

    def known_engine(self) -> Engine:
        """Return what makes, or has made, the frames.

        Raises:
            FunctionError: Other processes make them, and have not reported it yet.
        """
        if self.engine is None:
            raise FunctionError("what makes the frames is not known", function=self.context.function)
        return self.engine

    def _rendering(self, segments: SegmentStore) -> Rendering:
        ffmpeg = self.pipe.choice().ffmpeg
        return Rendering(
            source=segments.source,
            request=self.request,
            function=self.context.function,
            engine=self.known_engine().exact,
            encoding=self.pipe.encoding_arguments(),
            ffmpeg=f"{ffmpeg.version_text} {ffmpeg.build}",
            code=f"{source_hash()} {package_text(segments.package)}" if segments.package else source_hash(),
        )

    def _fetch(self, rendering: str, paths: Mapping[Segment, Path]) -> set[Segment]:
        """Fetch the stored parts; return those that are complete."""
        store, found = self.context.segments, set[Segment]()
        sealed = frozenset[Segment]() if store is None else store.sealed(rendering)
        for part, path in paths.items():
            self.context.raise_if_cancelled()
            if store is not None and part in sealed and store.fetch(rendering, part, path):
                found.add(part)
        return found

    def _write(
        self,
        part: Segment,
        frames: Iterator[Writable],
        path: Path,
        x264_parameters: str = "",
        count: Callable[[int], None] | None = None,
    ) -> None:
        """Encode a part from the next `frames`; call `count` with the number of its finished frames."""
        with self.pipe.part(path, x264_parameters) as pipe:
            if count is not None:
                pipe.count_with(count)
            for frame in islice(frames, part.frames):
                self.context.raise_if_cancelled()
                pipe.write(frame)


@dataclass(slots=True)
class _FrameCount:
    """Number of finished frames of several parts, which never falls."""

    done: int
    advance: Callable[[int], None]
    shown: int = 0

    def show(self, more: int) -> None:
        """Report the frames of finished parts, and `more`: those of the current part, or of other processes."""
        self.shown = max(self.shown, self.done + more)
        self.advance(self.shown)

    def add(self, frames: int) -> None:
        """Count a finished part."""
        self.done += frames
        self.show(0)


def log_one_piece(context: JobContext, media: MediaInfo, reason: str) -> None:
    """Log why frames that could be stored in parts are encoded in one piece."""
    _log.info("%s renders %s in one piece: %s", context.function, media.path.name, reason)


def _runs(grid: Sequence[Segment], found: set[Segment]) -> Iterator[list[Segment]]:
    """Yield the runs of consecutive frames that are not `found`."""
    run: list[Segment] = []
    for part in grid:
        if part in found:
            continue
        if run and run[-1].end != part.first:
            yield run
            run = []
        run.append(part)
    if run:
        yield run


def _ends_with_same_idr(path: Path) -> bool:
    """Return whether the last packet of a part is an IDR picture with the id of the first one.

    x264 alternates between two ids.
    """
    with opened(path, packets_only=True) as video:
        keyframes = [packet.is_keyframe for packet in packets_of(video, video.streams.video[0]) if packet.size]
    return keyframes[-1] and sum(keyframes) % 2 == 1
