"""Make the frames of a reel: decode each clip once, crop and resize each frame once, and mix the transitions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from fractions import Fraction

from reel_modal._rendering.overlay import OverlayRenderer
from reel_modal._rendering.transitions import ColorConversion, FrameMixer
from reel_modal.errors import InvalidMediaError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.functions.context import JobContext
from reel_modal.functions.degradation_notes import DecodingReport, degradation_notes
from reel_modal.functions.framing_pictures import FramedOutput, source_seconds
from reel_modal.functions.process_framing import constant_rate_notes, framed_reader
from reel_modal.functions.reel_layers import ReelLayers
from reel_modal.functions.reel_plan import PlannedClip, ReelPlan, naming_clip
from reel_modal.functions.rendered_format import planes_of
from reel_modal.media.frames import Frame
from reel_modal.schema import Degradation, ReelRequest

__all__ = ["ReelFrames"]


class ReelFrames:
    """The frames of a reel, in order, each exactly once.

    Args:
        request: The request.
        plan: Its plan.
        context: Context of the job.

    Attributes:
        notes: Differences from each clip, by the index of the clip; complete after the last frame.
    """

    def __init__(self, request: ReelRequest, plan: ReelPlan, context: JobContext) -> None:
        self.notes: list[list[Degradation]] = [[] for _ in request.clips]
        self._request = request
        self._plan = plan
        self._context = context
        self._mixer = FrameMixer(plan.size, plan.pixel_format, plan.color)

    def frames(self, enter: Callable[[int], None]) -> Generator[Frame]:
        """Yield the frames; a frame is valid until the next one is requested.

        Args:
            enter: Called with the index of each clip before its first frame.

        Raises:
            FFmpegError: A clip could not be decoded; the message names the clip.
            InvalidMediaError: A clip has no frame in its kept part.
        """
        leaving: Generator[Frame] | None = None
        with ExitStack() as opened:
            for clip in self._plan.clips:
                enter(clip.placed.index)
                frames = opened.enter_context(closing(self._of_clip(clip)))
                yield from self._alone_or_mixed(clip, frames, leaving)
                leaving = frames

    def write_to(self, pipe: FramePipe, layers: ReelLayers, first: int = 0) -> None:
        """Write all frames with their layers to `pipe`; the progress of the job names the clip.

        Args:
            pipe: The pipe.
            layers: The layers of the reel.
            first: Number of the first frame in the reel.

        Raises:
            FFmpegError: A clip could not be decoded, or encoding failed.
            InvalidMediaError: A clip has no frame in its kept part.

        Cancellation:
            Raises JobCancelledError between two frames.
        """
        count = len(self._request.clips)

        def enter(index: int) -> None:
            self._context.reporter.detail = f"clip {index + 1} of {count}"

        with closing(self.frames(enter)) as frames:
            for number, frame in enumerate(frames, first):
                self._context.raise_if_cancelled()
                pipe.write(layers.drawn(frame, number))

    def _alone_or_mixed(
        self, clip: PlannedClip, frames: Iterator[Frame], leaving: Iterator[Frame] | None
    ) -> Generator[Frame]:
        """Yield the frames of a clip up to the last one that it does not share with the next clip."""
        placed = clip.placed
        shared = placed.entry_frames if leaving is not None and placed.entry == "crossfade" else 0
        for number in range(placed.first, placed.first + shared):
            older = next(leaving) if leaving is not None else None
            yield self._mixed(next(frames), placed.share(number), older)
        if leaving is not None:
            _end(leaving)
        for number in range(placed.first + shared, placed.end - placed.shared_frames):
            yield self._mixed(next(frames), placed.share(number))
        if not placed.shared_frames:
            _end(frames)

    def _mixed(self, frame: Frame, share: Fraction, other: Frame | None = None) -> Frame:
        if share == 1:
            return frame
        data = self._mixer.mixed(frame.data, float(share), None if other is None else other.data)
        return replace(frame, data=data, shared=None)

    def _drawn(self, clip: PlannedClip, source: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames of a source with the highlights of the clip, which are drawn in place."""
        request, plan = self._request.overlay(clip.placed.index), clip.plan
        if request is None:
            yield from source
            return
        overlay = OverlayRenderer(request, plan.media.size, plan.media.color, plan.pixel_format)
        for frame in source:
            seconds = source_seconds(plan.media, frame.pts_seconds)
            overlay.draw(planes_of(frame), seconds, 1 / plan.media.fps)
            yield frame

    def _of_clip(self, clip: PlannedClip) -> Generator[Frame]:
        """Yield the frames of one clip in the size and color of the reel; errors name the clip."""
        plan = clip.plan
        output = FramedOutput(plan, clip.request)
        conversion = None
        if ColorConversion.needed(plan.color, self._plan.color, self._plan.size[1]):
            conversion = ColorConversion(plan.color, self._plan.color, self._plan.size, plan.pixel_format)
        with naming_clip(self._request, clip.placed.index), framed_reader(plan, self._context) as reader:
            with _naming_frame(reader), closing(output.frames(self._drawn(clip, reader))) as frames:
                for frame in frames:
                    if conversion is None:
                        yield frame
                    else:
                        yield replace(frame, data=conversion.converted(frame.data), shared=None)
            if reader.frames_read == 0:
                raise InvalidMediaError("it has no frame in the kept part")
            notes = constant_rate_notes(
                plan,
                self._context,
                dropped=output.schedule.dropped,
                read=reader.frames_read,
                last_seconds=output.last_seconds,
                filled=output.filled,
            )
            self.notes[clip.placed.index] += [*degradation_notes(plan.media, DecodingReport.of(reader)), *notes]


@contextmanager
def _naming_frame(reader: FrameReader) -> Iterator[None]:
    """Run the block, and name the frame of the clip after which decoding failed."""
    try:
        yield
    except InvalidMediaError as error:
        raise InvalidMediaError(f"after {reader.frames_read} decoded frames: {error}") from error


def _end(frames: Iterator[Frame]) -> None:
    """Read past the last frame of a clip, so that its decoder ends and its notes are complete."""
    for _ in frames:
        raise InvalidMediaError("it has more frames than planned")
