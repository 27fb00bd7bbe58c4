"""process_framing: crop, trim and retime a clip, with its audio.

The same code runs on Modal and on this machine; it uses only its request and its `JobContext`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from reel_modal._ffmpeg.audio import Sound
from reel_modal._ffmpeg.audio_retime import sound_for
from reel_modal._ffmpeg.extra_streams import Extras
from reel_modal._ffmpeg.filtergraph import LEEWAY_SECONDS, ROUNDED_FRAMES, GraphEdit, encode_graph
from reel_modal._rendering.frame_schedule import Schedule, Shown
from reel_modal._rendering.framing import CropTrack, FramingRenderer, Layout, mix
from reel_modal._rendering.opencv import load_cv2
from reel_modal._rendering.region_track import STANDING_SECONDS
from reel_modal._rendering.resampling import Rect
from reel_modal._smart_render import RenderPlan
from reel_modal.errors import FrameError, InvalidMediaError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader, PipeResult
from reel_modal.functions.comparing import FinishedFile, losses
from reel_modal.functions.context import JobContext
from reel_modal.functions.degradation_notes import DecodingReport, degradation_notes, rate_notes
from reel_modal.functions.framing_plan import FramingPlan
from reel_modal.functions.inputs import SeekStrategy, fetch_range, probe_object, seek_strategy
from reel_modal.functions.outputs import (
    VerifiedFile,
    output_path,
    output_pipe,
    publish_video,
    result_of,
    tags_for,
    verified,
    with_extras,
)
from reel_modal.functions.rendered_format import as_rendered, planes_of
from reel_modal.functions.try_smart import render_smart
from reel_modal.media import MediaInfo
from reel_modal.media.frame_buffers import FrameBufferPool
from reel_modal.media.frames import Frame, U8Array, frame_bytes
from reel_modal.media.picture_end import picture_end
from reel_modal.media.picture_sizes import changes_size
from reel_modal.media.probing import picture_shown_at
from reel_modal.schema import Degradation, FramingRequest, RenderResult
from reel_modal.settings import MediaLimits

__all__ = ["NAME", "CropTrack", "FramingRenderer", "Layout", "run"]

NAME: Final = "process_framing"

_COPY: Final = "packet-copy"

_WHOLE_BYTES: Final = 64 << 20
"""Up to this size, a source is fetched whole so that a part can be copied; above it, re-encoding costs less."""

# Frames to read after the end of the kept part: the last output frame may be blended with the next source frame.
_LATER_FRAMES: Final = 2


def run(request: FramingRequest, context: JobContext) -> RenderResult:
    """Fetch the input, cut and retime it, verify the output and publish it.

    Args:
        request: The parts to keep and their speeds; validated on construction.
        context: Storage, reporter, settings, working folder and cancellation.

    Returns:
        The result with the duration of each phase; `engine` names the engine that made the frames.

    Raises:
        MissingDependencyError: OpenCV cannot be loaded; nothing is fetched.
        RequestError: The request does not fit the clip: a trim after its end, or with `outside="refuse"` a crop
            outside of its frame.
        InvalidMediaError: The input is not an accepted video.
        FFmpegError: Decoding or encoding failed.
        OutputMismatchError: The output does not match the request; nothing is published.
        StorageError: The input could not be fetched, or the output could not be published.

    Cancellation:
        Raises JobCancelledError between two frames, or between two packets while the output is verified. Nothing is
        published, and no process or file is left.
    """
    load_cv2()  # fail before anything is fetched
    with context.reporter.phase("fetch"):
        plan = _fetch(request, context)
    output = output_path(request, context)
    try:
        extras = Extras.of(
            plan.media,
            output,
            request.encode.metadata,
            timeline=plan.timeline,
            length_seconds=plan.frame_count / plan.fps,
        )
        smart, file = _copy(request, context, plan, extras)
        notes: list[Degradation] = []
        if file is None:
            if plan.engine == "ffmpeg-graph" and changes_size(plan.media, context.settings):
                plan = replace(plan, engine="opencv-yuv420p")  # the crop may be outside of a smaller frame
            written, notes = _render(request, context, plan, output)
            file = verified(with_extras(written, extras, request, context), context)
        finished = FinishedFile(file.media, extras, request.encode.metadata, sound=request.audio)
        engine = _COPY if smart.kind == "smart" else plan.engine
        degraded = (*plan.notes, *notes, *losses(plan.media, finished, context))
        result = result_of(file.written, request, function=NAME, engine=engine, degraded=degraded)
        result = replace(result, plan=smart.kind, reason=smart.reason, frames_copied=smart.frames_copied)
        return publish_video(result, file, request, context)
    except BaseException:
        output.unlink(missing_ok=True)
        raise


def _fetch(request: FramingRequest, context: JobContext) -> FramingPlan:
    """Fetch the part of the source that the request shows, which may be small; return the plan."""
    source = context.open(request.input_key)
    media = as_rendered(probe_object(source, context.settings), request.encode)
    trimmed = request.trim_start_seconds > 0 or request.trim_end_seconds is not None
    strategy: SeekStrategy = (
        "whole" if source.whole or not trimmed else seek_strategy(media, request.trim_end_seconds)
    )

    def on_clock(moment: Fraction | None) -> Fraction | None:
        return None if moment is None else media.start_seconds + moment

    # Planning needs only timestamps, and an index contains them.
    if strategy != "index":
        start = media.start_seconds + request.trim_start_seconds
        media = fetch_range(source, media, strategy, start, on_clock(request.trim_end_seconds))
    plan = FramingPlan.of(request, media, context.settings, fetched_in_part=strategy in {"cues", "stream"})
    if strategy == "cues" and request.encode.smart and not plan.remakes:
        # Copying needs the list of all packets.
        if source.info.bytes > _WHOLE_BYTES:
            plan = replace(plan, in_part=True)
        else:
            strategy = "whole"
    if strategy != "stream":
        fetch_range(source, media, strategy, plan.first_seconds, on_clock(plan.timeline.source_end))
    return plan


def _copy(
    request: FramingRequest, context: JobContext, plan: FramingPlan, extras: Extras
) -> tuple[RenderPlan, VerifiedFile | None]:
    """Copy the kept part if the request only trims; return the plan, and the file or None."""
    return render_smart(
        plan.media,
        (),
        extras.target,
        request,
        extras=extras,
        painter=None,
        context=context,
        trim=replace(plan.trim, sound=request.audio),
        refused=plan.remakes,
    )


def _render(
    request: FramingRequest, context: JobContext, plan: FramingPlan, output: Path
) -> tuple[PipeResult, list[Degradation]]:
    """Render the file `output`; return it with notes on differences from the source."""
    with context.reporter.phase("render", plan.frame_count) as advance:
        sound = None
        if request.audio:
            sound = sound_for(
                plan.media,
                plan.timeline,
                output,
                length_seconds=plan.length_seconds,
                settings=context.settings,
                check=context.raise_if_cancelled,
            )
        make = _in_one_graph if plan.engine == "ffmpeg-graph" else _frame_by_frame
        try:
            written, decoding, notes = make(_Job(request, context, plan, output, sound), advance)
        finally:
            if sound is not None:
                sound.discard()
    return written, [*degradation_notes(plan.media, decoding), *notes]


@dataclass(frozen=True, slots=True)
class _Job:
    """Common input of both engines."""

    request: FramingRequest
    context: JobContext
    plan: FramingPlan
    output: Path
    sound: Sound | None


def _in_one_graph(job: _Job, advance: Callable[[int], None]) -> tuple[PipeResult, DecodingReport, list[Degradation]]:
    """Render with one ffmpeg process from the source to the output."""

    def report(frames: int) -> None:
        job.context.raise_if_cancelled()
        advance(frames)

    edit = GraphEdit(
        media=job.plan.media,
        timeline=job.plan.timeline,
        first_seconds=job.plan.first_seconds,
        fps=job.plan.fps,
        frame_count=job.plan.frame_count,
        window=job.plan.still or (0, 0, *job.plan.media.size),
        size=job.plan.layout.size,
        color=job.plan.color,
    )
    written, broken_packets = encode_graph(
        edit,
        job.output,
        job.request.encode,
        sound=job.sound,
        settings=job.context.settings,
        advance=report,
        metadata=tags_for(job.plan.media, job.request, job.context),
    )
    return written, DecodingReport(broken_later=broken_packets), []


def _frame_by_frame(
    job: _Job, advance: Callable[[int], None]
) -> tuple[PipeResult, DecodingReport, list[Degradation]]:
    """Crop each source frame and write the output frames that show it."""
    plan = job.plan
    reader = _reader(plan, job.context)
    pipe = output_pipe(
        job.request,
        job.context,
        size=plan.layout.size,
        fps=plan.encoded_fps,
        source=plan.media,
        sound=job.sound,
        expected_frames=None if plan.keeps_times else plan.frame_count,
        color=plan.color,
        hdr=plan.media.hdr,
        pixel_format=plan.pixel_format,
    )
    framing = FramingRenderer(
        plan.track,
        plan.layout,
        job.request.background,
        plan.color,
        plan.media.chroma_origin,
        pixel_format=plan.pixel_format,
    )
    pictures = [_Picture(framing, plan) for _ in range(2)]
    with reader, pipe:
        write = _write_pictures if plan.keeps_times else _write_frames
        notes = write(job, reader, pipe, pictures, advance)
        if reader.frames_read == 0:
            raise InvalidMediaError(f"{plan.media.path.name!r} has no frame in the kept part")
    return pipe.result, DecodingReport.of(reader), notes


def _write_frames(
    job: _Job, reader: FrameReader, pipe: FramePipe, pictures: list[_Picture], advance: Callable[[int], None]
) -> list[Degradation]:
    """Write frames at a constant rate; return notes on the changes that this makes."""
    plan, (older, newer) = job.plan, pictures
    schedule = Schedule(plan.timeline, plan.fps, job.request.slow_motion, most_late_frames=plan.most_late_frames)

    def write(shown: Iterable[Shown]) -> None:
        for frame in shown:
            job.context.raise_if_cancelled()
            pipe.write(older.mixed(newer, frame.share, plan.timeline.to_source(frame.index / plan.fps)))
            advance(frame.index + 1)

    for frame in reader:
        newer.take(frame)
        write(schedule.picture(newer.seconds))
        older, newer = newer, older
        if schedule.complete:
            break
    if reader.frames_read == 0:
        return []
    last, filled = older.seconds, schedule.next_index
    write(schedule.rest())
    faster = any(piece.speed > 1 for piece in plan.timeline.pieces)
    notes = rate_notes(
        plan.media,
        plan.fps,
        requested=plan.fps_requested,
        dropped=0 if faster else schedule.dropped,
        pictures=reader.frames_read,
    )
    return [*notes, *_ends_early(plan, last, filled, job.context.settings.limits)]


def _write_pictures(
    job: _Job, reader: FrameReader, pipe: FramePipe, pictures: list[_Picture], advance: Callable[[int], None]
) -> list[Degradation]:
    """Write each source frame once, at its own time in the output; return no notes."""
    line, (older, newer) = job.plan.timeline, pictures
    length = line.duration_seconds
    written, latest = 0, Fraction(-1)

    def write(until: Fraction | None) -> None:
        nonlocal written, latest
        job.context.raise_if_cancelled()
        start = max(Fraction(0), line.to_output(older.seconds))
        end = length if until is None else min(length, line.to_output(until))
        if max(start, latest) < end and start > latest:  # some muxers write two frames with the same timestamp
            latest = start
            moment = max(older.seconds, line.source_start)
            pipe.write(older.mixed(newer, 0, moment), seconds=start, duration_seconds=length - start)
            written += 1
            advance(written)

    for frame in reader:
        newer.take(frame)
        if frame.index:
            write(newer.seconds)
        older, newer = newer, older
    if reader.frames_read:
        write(None)
    return []


def _reader(plan: FramingPlan, context: JobContext) -> FrameReader:
    """Return the reader of the kept frames and of the adjacent frames that may be visible."""
    media, line = plan.media, plan.timeline
    start = plan.first_seconds - LEEWAY_SECONDS if line.source_start > 0 else None
    end = None if line.source_end is None else media.start_seconds + line.source_end + _LATER_FRAMES / media.fps
    # A render function has a separate process, so a crash of the in-process decoder ends only this job.
    return FrameReader(
        media,
        pixel_format=plan.pixel_format,
        start=start,
        end=end,
        decoder="in_process",
        retain_frames=2,
        settings=context.settings,
    )


def _ends_early(plan: FramingPlan, last: Fraction, filled: int, limits: MediaLimits) -> list[Degradation]:
    """Return a note if the frames end well before the kept part does."""
    end = plan.timeline.source_end
    if filled >= plan.frame_count or end is None or not plan.media.constant_rate:
        return []
    missing = end - last - 1 / plan.media.fps
    if missing <= _LATER_FRAMES / plan.media.fps or _stands(plan.media, last, end, limits):
        return []
    message = f"the last {float(missing):.2f} s of the source do not decode; the last frame is shown instead"
    return [Degradation("pictures_undecodable", message)]


def _stands(media: MediaInfo, last: Fraction, end: Fraction, limits: MediaLimits) -> bool:
    """Return whether, according to the file, the frame that begins at `last` is shown until `end`."""
    shown = picture_shown_at(media, media.start_seconds + end)
    if shown is None or shown - media.start_seconds > last + 1 / (2 * media.fps):
        return False
    return picture_end(media, limits) - media.start_seconds >= end


class _Picture:
    """One source frame, which is cropped to the output only if it is shown."""

    def __init__(self, framing: FramingRenderer, plan: FramingPlan) -> None:
        self.seconds = Fraction(0)
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
        self.seconds = frame.pts_seconds - self._media.start_seconds
        if self._media.constant_rate:
            # Undo the container's rounding of timestamps: evenly spaced frames have exact times.
            number = round(self.seconds * self._media.fps)
            if abs(self.seconds * self._media.fps - number) < ROUNDED_FRAMES:
                self.seconds = number / self._media.fps

    def mixed(self, newer: _Picture, share: float, moment: Fraction) -> Frame:
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
