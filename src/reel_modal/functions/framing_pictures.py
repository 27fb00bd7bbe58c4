"""Make the output frames of process_framing from source frames: choose, crop, resize and blend them."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np

from reel_modal._ffmpeg.filtergraph import ROUNDED_FRAMES
from reel_modal._rendering.frame_schedule import Schedule
from reel_modal._rendering.framing import FramingRenderer, mix
from reel_modal._rendering.region_track import STANDING_SECONDS
from reel_modal._rendering.resampling import Rect
from reel_modal.errors import FrameError
from reel_modal.functions.exact_source import ExactSource
from reel_modal.functions.framing_plan import FramingPlan
from reel_modal.functions.rendered_format import planes_of
from reel_modal.media import MediaInfo
from reel_modal.media.frame_buffers import FrameBufferPool
from reel_modal.media.frames import Frame, U8Array, frame_bytes
from reel_modal.schema import FramingRequest
from reel_modal.settings import Settings

__all__ = ["FramedOutput", "PlannedFrames", "SourcePicture", "framing_of", "source_seconds"]


def source_seconds(media: MediaInfo, pts_seconds: Fraction) -> Fraction:
    """Return the time of a source frame in seconds from the first one; exact if frames are evenly spaced."""
    seconds = pts_seconds - media.start_seconds
    if media.constant_rate:
        # Undo the container's rounding of timestamps.
        number = round(seconds * media.fps)
        if abs(seconds * media.fps - number) < ROUNDED_FRAMES:
            return number / media.fps
    return seconds


def framing_of(plan: FramingPlan, request: FramingRequest) -> FramingRenderer:
    """Return the renderer that crops and resizes the frames of a plan."""
    return FramingRenderer(
        plan.track,
        plan.layout,
        request.background,
        plan.color,
        plan.media.chroma_origin,
        pixel_format=plan.pixel_format,
    )


class FramedOutput:
    """The output frames at a constant rate, from `first_index` on.

    Args:
        plan: The plan of the request.
        request: The request.
        first_index: Index of the first output frame.

    Attributes:
        schedule: Which source frames fill which output frames.
        last_seconds: Time of the last source frame that was read.
        filled: Number of output frames that were filled before the source ended.
    """

    def __init__(self, plan: FramingPlan, request: FramingRequest, first_index: int = 0) -> None:
        self.schedule: Schedule = _schedule(plan, request, first_index)
        self.last_seconds: Fraction = Fraction(0)
        self.filled: int = 0
        self._plan = plan
        framing = framing_of(plan, request)
        self._pictures = [SourcePicture(framing, plan) for _ in range(2)]

    def frames(self, source: Iterable[Frame]) -> Generator[Frame]:
        """Yield the output frames; `source` begins with the source frame that the first of them shows."""
        (older, newer), plan = self._pictures, self._plan
        empty = True
        for frame in source:
            empty = False
            newer.take(frame)
            for shown in self.schedule.picture(newer.seconds):
                yield older.mixed(newer, shown.share, plan.timeline.to_source(shown.index / plan.fps))
            older, newer = newer, older
            if self.schedule.complete:
                break
        if empty:
            return
        self.last_seconds = older.seconds
        self.filled = self.schedule.next_index
        for shown in self.schedule.rest():
            yield older.mixed(newer, shown.share, plan.timeline.to_source(shown.index / plan.fps))


@dataclass(frozen=True, slots=True)
class PlannedFrames:
    """The output frames at a constant rate, of which any run can be made without the frames before it.

    Attributes:
        plan: The plan of the request.
        request: The request.
        source: The source.
        older: For each output frame, the rank of the source frame that it shows, or of the first of two.
        last: Rank of the last source frame that is needed.
        dropped: Number of source frames that no output frame shows.
        filled: Number of output frames that are filled before the source ends.
    """

    plan: FramingPlan
    request: FramingRequest
    source: ExactSource
    older: Sequence[int]
    last: int
    dropped: int
    filled: int

    @classmethod
    def of(cls, plan: FramingPlan, request: FramingRequest, source: ExactSource, ranks: range) -> Self:
        """Return the frames of a plan, from the timestamps of the source alone.

        Args:
            plan: The plan of the request.
            request: The request.
            source: The source.
            ranks: Ranks of the source frames that a reader of the kept part returns.
        """
        schedule = _schedule(plan, request, 0)
        older = array("q")
        rank = ranks.start
        for rank in ranks:
            moment = source_seconds(plan.media, source.ticks[rank] * plan.media.time_base)
            older.extend(rank - 1 for _ in schedule.picture(moment))
            if schedule.complete:
                break
        filled = schedule.next_index
        older.extend(rank for _ in schedule.rest())
        return cls(plan, request, source, older, rank, schedule.dropped, filled)

    @contextmanager
    def opened(self, first: int, end: int, settings: Settings) -> Iterator[Iterator[Frame]]:
        """Open the output frames from `first` to `end`, exclusive."""
        ranks = range(self.older[first], min(self.last, self.older[end - 1] + 1) + 1)
        reader = self.source.reader(
            self.source.ticks[ranks.start : ranks.stop],
            pixel_format=self.plan.pixel_format,
            settings=settings,
            retain_frames=2,
        )
        output = FramedOutput(self.plan, self.request, first)
        with reader, closing(output.frames(reader)) as frames:
            yield frames


def _schedule(plan: FramingPlan, request: FramingRequest, first_index: int) -> Schedule:
    """Return the schedule of a plan, from an output frame on."""
    return Schedule(
        plan.timeline,
        plan.fps,
        request.slow_motion,
        most_late_frames=plan.most_late_frames,
        first_index=first_index,
    )


class SourcePicture:
    """One source frame, which is cropped to the output only if it is shown."""

    def __init__(self, framing: FramingRenderer, plan: FramingPlan) -> None:
        self.seconds: Fraction = Fraction(0)
        self._framing = framing
        self._plan = plan
        self._media = plan.media
        self._crop: Rect | None = None
        self._size = plan.layout.size
        self._frame: Frame | None = None
        self._rendered: Frame | None = None
        self._format = plan.pixel_format
        bytes_each = frame_bytes(self._format, self._size)
        self._memory = FrameBufferPool(bytes_each) if FrameBufferPool.usable() else None
        self._output: U8Array = np.empty(bytes_each if self._memory is None else 0, np.uint8)
        self._mixture: U8Array = np.empty(bytes_each, np.uint8)

    def take(self, frame: Frame) -> None:
        """Set the source frame; its memory is valid until the reader has read two more frames."""
        self._frame, self._rendered = frame, None
        self.seconds = source_seconds(self._media, frame.pts_seconds)

    def mixed(self, newer: SourcePicture, share: float, moment: Fraction) -> Frame:
        """Return this frame in the output's size, blended with `share` of the newer one.

        Args:
            newer: The frame after this one.
            share: Weight of the newer frame, 0..1.
            moment: Source time of the output frame; the crop keeps moving while a frame is shown for long.
        """
        stands = moment - self.seconds > STANDING_SECONDS
        if share <= 0:
            return self._shown(moment if stands else self.seconds)
        mix(self._shown(self.seconds).data, newer._shown(newer.seconds).data, share, self._mixture, self._format)
        return Frame(self._mixture, self._size, self._format, self.seconds, 0)

    def _shown(self, moment: Fraction) -> Frame:
        if self._frame is None:
            raise FrameError("no source frame has been read yet")
        crop = self._plan.track.at(moment)
        if self._rendered is None or crop != self._crop:
            self._crop = crop
            shared = None if self._memory is None else self._memory.take()
            data = self._output if shared is None else shared.data
            self._framing.render(planes_of(self._frame), moment, data)
            self._rendered = Frame(data, self._size, self._format, self.seconds, self._frame.index, shared)
        return self._rendered
