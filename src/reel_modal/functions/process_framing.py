"""process_framing: crop, trim and retime a clip, with its audio.

The same code runs on Modal and on this machine; it uses only its request and its `JobContext`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

from reel_modal._ffmpeg.audio import Sound
from reel_modal._ffmpeg.audio_retime import sound_for
from reel_modal._ffmpeg.extra_streams import Extras
from reel_modal._ffmpeg.filtergraph import LEEWAY_SECONDS, GraphEdit, encode_graph
from reel_modal._rendering.framing import CropTrack, FramingRenderer, Layout
from reel_modal._rendering.opencv import load_cv2
from reel_modal._segments import Engine
from reel_modal._smart_render import RenderPlan
from reel_modal.errors import InvalidMediaError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader, PipeResult
from reel_modal.functions.comparing import FinishedFile, losses
from reel_modal.functions.context import JobContext
from reel_modal.functions.degradation_notes import DecodingReport, degradation_notes, rate_notes
from reel_modal.functions.framing_pictures import (
    FramedOutput,
    PlannedFrames,
    SourcePicture,
    framing_of,
    source_seconds,
)
from reel_modal.functions.framing_plan import FramingPlan, is_trimmed
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
from reel_modal.functions.rendered_format import as_rendered
from reel_modal.functions.segmented import SegmentedRender
from reel_modal.functions.try_smart import render_smart
from reel_modal.media import MediaInfo
from reel_modal.media.picture_end import picture_end
from reel_modal.media.picture_sizes import changes_size
from reel_modal.media.probing import picture_shown_at
from reel_modal.schema import Degradation, FramingRequest, RenderResult
from reel_modal.settings import MediaLimits

__all__ = [
    "NAME",
    "CropTrack",
    "FramingRenderer",
    "Layout",
    "constant_rate_notes",
    "fetch_plan",
    "framed_reader",
    "run",
]

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
        plan = fetch_plan(request, context)
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


def fetch_plan(request: FramingRequest, context: JobContext) -> FramingPlan:
    """Fetch the part of the source that the request shows, which may be small; return the plan.

    Raises:
        RequestError: The request does not fit the clip.
        InvalidMediaError: The input is not an accepted video.
        StorageError: The input could not be fetched.
    """
    source = context.open(request.input_key)
    media = as_rendered(probe_object(source, context.settings), request.encode)
    strategy: SeekStrategy = "whole"
    if is_trimmed(request) and not source.whole:
        strategy = seek_strategy(media, request.trim_end_seconds)

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
        if request.audio and context.part is None:
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
    job.context.begin_one_piece()

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
    if not plan.keeps_times and (segmented := _in_segments(job, pipe, advance)) is not None:
        return segmented
    job.context.begin_one_piece()
    reader = framed_reader(plan, job.context)
    with reader, pipe:
        pipe.count_with(advance)
        write = _write_pictures if plan.keeps_times else _write_frames
        notes = write(job, reader, pipe)
        if reader.frames_read == 0:
            raise InvalidMediaError(f"{plan.media.path.name!r} has no frame in the kept part")
    return pipe.result, DecodingReport.of(reader), notes


def _in_segments(
    job: _Job, pipe: FramePipe, advance: Callable[[int], None]
) -> tuple[PipeResult, DecodingReport, list[Degradation]] | None:
    """Write a long output in segments; return None if it has to be written in one piece."""
    plan, line = job.plan, job.plan.timeline
    segmented = SegmentedRender.plan(
        pipe,
        job.request,
        job.context,
        plan.media,
        engine=Engine.of_name(plan.engine),
        frames=plan.frame_count,
        kept=None if line.source_end is None else (line.source_start, line.source_end),
        refused=_refuses_segments(job),
    )
    if segmented is None:
        return None
    start, end = _bounds(plan)
    ticks, tick_seconds = segmented.source.ticks, plan.media.time_base
    first = 0 if start is None else bisect_left(ticks, start / tick_seconds)
    stop = len(ticks) if end is None else bisect_left(ticks, end / tick_seconds)
    if first == stop:
        return None  # a pass over the file raises the error
    planned = PlannedFrames.of(plan, job.request, segmented.source, range(first, stop))
    written = segmented.render(partial(planned.opened, settings=job.context.settings), advance)
    if written is None:
        return None
    last = source_seconds(plan.media, ticks[planned.last] * tick_seconds)
    read = planned.last + 1 - first
    notes = constant_rate_notes(
        plan, job.context, dropped=planned.dropped, read=read, last_seconds=last, filled=planned.filled
    )
    return written, DecodingReport(), notes


def _refuses_segments(job: _Job) -> str:
    """Return why the output is written in one piece, in every store; empty if that is not known yet."""
    if not is_trimmed(job.request):
        return ""
    partly = seek_strategy(job.plan.media, job.request.trim_end_seconds) in {"cues", "stream"}
    return "only the kept part of such a file is fetched" if partly else ""


def _write_frames(job: _Job, reader: FrameReader, pipe: FramePipe) -> list[Degradation]:
    """Write frames at a constant rate; return notes on the changes that this makes."""
    output = FramedOutput(job.plan, job.request)
    for frame in output.frames(reader):
        job.context.raise_if_cancelled()
        pipe.write(frame)
    if reader.frames_read == 0:
        return []
    return constant_rate_notes(
        job.plan,
        job.context,
        dropped=output.schedule.dropped,
        read=reader.frames_read,
        last_seconds=output.last_seconds,
        filled=output.filled,
    )


def constant_rate_notes(
    plan: FramingPlan, context: JobContext, *, dropped: int, read: int, last_seconds: Fraction, filled: int
) -> list[Degradation]:
    """Return notes on an output at a constant rate.

    Args:
        plan: The plan of the request.
        context: Context of the job.
        dropped: Number of source frames that are not shown.
        read: Number of source frames that were read.
        last_seconds: Time of the last of them.
        filled: Number of output frames that were filled before the source ended.
    """
    faster = any(piece.speed > 1 for piece in plan.timeline.pieces)
    notes = rate_notes(
        plan.media, plan.fps, requested=plan.fps_requested, dropped=0 if faster else dropped, pictures=read
    )
    return [*notes, *_ends_early(plan, last_seconds, filled, context.settings.limits)]


def _write_pictures(job: _Job, reader: FrameReader, pipe: FramePipe) -> list[Degradation]:
    """Write each source frame once, at its own time in the output; return no notes."""
    line, framing = job.plan.timeline, framing_of(job.plan, job.request)
    older, newer = (SourcePicture(framing, job.plan) for _ in range(2))
    length = line.duration_seconds
    latest = Fraction(-1)

    def write(until: Fraction | None) -> None:
        nonlocal latest
        job.context.raise_if_cancelled()
        start = max(Fraction(0), line.to_output(older.seconds))
        end = length if until is None else min(length, line.to_output(until))
        if max(start, latest) < end and start > latest:  # some muxers write two frames with the same timestamp
            latest = start
            moment = max(older.seconds, line.source_start)
            pipe.write(older.mixed(newer, 0, moment), seconds=start, duration_seconds=length - start)

    for frame in reader:
        newer.take(frame)
        if frame.index:
            write(newer.seconds)
        older, newer = newer, older
    if reader.frames_read:
        write(None)
    return []


def framed_reader(plan: FramingPlan, context: JobContext) -> FrameReader:
    """Return the reader of the kept frames and of the adjacent frames that may be visible."""
    start, end = _bounds(plan)
    # A render function has a separate process, so a crash of the in-process decoder ends only this job.
    return FrameReader(
        plan.media,
        pixel_format=plan.pixel_format,
        start=start,
        end=end,
        decoder="in_process",
        retain_frames=2,
        settings=context.settings,
    )


def _bounds(plan: FramingPlan) -> tuple[Fraction | None, Fraction | None]:
    """Return the timestamps at which reading begins and ends; None is the beginning and the end of the file."""
    media, line = plan.media, plan.timeline
    start = plan.first_seconds - LEEWAY_SECONDS if line.source_start > 0 else None
    end = None if line.source_end is None else media.start_seconds + line.source_end + _LATER_FRAMES / media.fps
    return start, end


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
