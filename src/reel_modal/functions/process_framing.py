"""process_framing: a clip in, a part of its picture and of its length out, at other speeds, with its sound.

The same body on a Modal machine and on this one; all that it may touch comes with the `JobContext`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from reel_modal.config import MediaLimits
from reel_modal.errors import FrameError, InvalidMediaError
from reel_modal.ffmpeg_graph import LEEWAY_SECONDS, ROUNDED_FRAMES, GraphEdit, encode_graph
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader, PipeResult
from reel_modal.frame_memory import FrameMemory
from reel_modal.frames import Frame, U8Array, frame_bytes
from reel_modal.functions.comparing import Made, losses
from reel_modal.functions.context import JobContext
from reel_modal.functions.framing_plan import FramingPlan
from reel_modal.functions.losses import DecodingReport, not_kept, rate_notes
from reel_modal.functions.pictures import as_rendered, planes_of
from reel_modal.functions.publishing import (
    VerifiedFile,
    output_path,
    output_pipe,
    publish_result,
    result_of,
    tags_for,
    verified,
    with_extras,
)
from reel_modal.functions.smart import render_smart
from reel_modal.functions.sources import Reach, fetch_part, look_at, reach_of
from reel_modal.media import MediaInfo
from reel_modal.media.extras import Extras
from reel_modal.media.picture_end import picture_end
from reel_modal.media.picture_sizes import changes_size
from reel_modal.media.probing import picture_shown_at
from reel_modal.media.retimed_sound import sound_for
from reel_modal.media.sound import Sound
from reel_modal.rendering.framing import FramingRenderer, mix
from reel_modal.rendering.opencv import load_cv2
from reel_modal.rendering.resampling import Window
from reel_modal.rendering.schedule import Schedule, Shown
from reel_modal.rendering.timeline import STANDING_SECONDS
from reel_modal.schema import Degradation, FramingRequest, RenderResult
from reel_modal.smart_render import RenderPlan

__all__ = ["NAME", "run"]

NAME: Final = "process_framing"

_COPY: Final = "packet-copy"

_WHOLE_BYTES: Final = 64 << 20
"""Up to this, a source is fetched whole so that a part of it can be copied; making that anew costs less above it."""

# Behind the last moment that is kept comes the picture that the last one is blended with.
_LATER_FRAMES: Final = 2


def run(request: FramingRequest, context: JobContext) -> RenderResult:
    """Fetch the input, cut and retime it, verify the output and publish it.

    Args:
        request: What to keep; it has been validated by its construction.
        context: Storage, reporter, settings, working folder and cancellation.

    Returns:
        What was made and how long each phase took; `engine` says who made the frames.

    Raises:
        MissingDependencyError: OpenCV does not load; nothing is fetched.
        RequestError: The request does not fit the clip: a trim behind its end, or with `outside="refuse"` a crop
            out of its frame.
        InvalidMediaError: The input is no video that we accept.
        FFmpegError: Decoding or encoding failed.
        OutputMismatchError: The output is not what was asked for; nothing is published.
        StorageError: The input could not be fetched or the output not put in place.

    Cancellation:
        Raises JobCancelledError between two frames, or two packets of the output that is verified; nothing is
        published, and no process or file is left.
    """
    load_cv2()  # if it does not load, nothing is fetched
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
                plan = replace(plan, engine="opencv-yuv420p")  # the crop may lie outside of a smaller picture
            made, notes = _render(request, context, plan, output)
            file = verified(with_extras(made, extras, request, context, NAME), context, NAME)
        finished = Made(file.media, extras, request.encode.metadata, sound=request.audio)
        engine = _COPY if smart.kind == "smart" else plan.engine
        degraded = (*plan.notes, *notes, *losses(plan.media, finished, context, NAME))
        result = result_of(file.made, request, function=NAME, engine=engine, degraded=degraded)
        result = replace(result, plan=smart.kind, reason=smart.reason, frames_copied=smart.frames_copied)
        return publish_result(result, file, request, context)
    finally:
        output.unlink(missing_ok=True)


def _fetch(request: FramingRequest, context: JobContext) -> FramingPlan:
    """Get what the request shows of the source, which may be a small part of it, and plan the rest."""
    source = context.storage.open(context.places_of(request)[0], context.workdir)
    media = as_rendered(look_at(source, context.settings), request.encode)
    trimmed = request.trim_start_seconds > 0 or request.trim_end_seconds is not None
    reach: Reach = "whole" if source.whole or not trimmed else reach_of(media, request.trim_end_seconds)

    def on_clock(moment: Fraction | None) -> Fraction | None:
        return None if moment is None else media.start_seconds + moment

    # Planning reads times alone, which an index holds.
    if reach != "index":
        start = media.start_seconds + request.trim_start_seconds
        media = fetch_part(source, media, reach, start, on_clock(request.trim_end_seconds))
    plan = FramingPlan.of(request, media, context.settings, fetched_in_part=reach in {"cues", "stream"})
    if reach == "cues" and request.encode.smart and not plan.remakes:
        # Copying wants to know all packets.
        if source.info.bytes > _WHOLE_BYTES:
            plan = replace(plan, in_part=True)
        else:
            reach = "whole"
    if reach != "stream":
        fetch_part(source, media, reach, plan.first_seconds, on_clock(plan.timeline.source_end))
    return plan


def _copy(
    request: FramingRequest, context: JobContext, plan: FramingPlan, extras: Extras
) -> tuple[RenderPlan, VerifiedFile | None]:
    """Copy what a trim keeps, where nothing else is asked for; return how, and what was made."""
    return render_smart(
        plan.media,
        (),
        extras.target,
        request,
        extras=extras,
        painter=None,
        context=context,
        function=NAME,
        trim=replace(plan.trim, sound=request.audio),
        refused=plan.remakes,
    )


def _render(
    request: FramingRequest, context: JobContext, plan: FramingPlan, output: Path
) -> tuple[PipeResult, list[Degradation]]:
    """Make the file `output`; return it and what of the source is not in it."""
    with context.reporter.phase("render", plan.frame_count) as advance:
        sound = None
        if request.audio:
            sound = sound_for(
                plan.media,
                plan.timeline,
                output,
                length_seconds=plan.length_seconds,
                settings=context.settings,
                check=lambda: context.raise_if_cancelled(NAME),
            )
        make = _in_one_graph if plan.engine == "ffmpeg-graph" else _frame_by_frame
        try:
            made, decoding, notes = make(_Job(request, context, plan, output, sound), advance)
        finally:
            if sound is not None:
                sound.discard()
    return made, [*not_kept(plan.media, decoding), *notes]


@dataclass(frozen=True, slots=True)
class _Job:
    """What both ways of making the frames need."""

    request: FramingRequest
    context: JobContext
    plan: FramingPlan
    output: Path
    sound: Sound | None


def _in_one_graph(job: _Job, advance: Callable[[int], None]) -> tuple[PipeResult, DecodingReport, list[Degradation]]:
    """Let one ffmpeg do it all."""

    def looked(frames: int) -> None:
        job.context.raise_if_cancelled(NAME)
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
    made, broken_packets = encode_graph(
        edit,
        job.output,
        job.request.encode,
        sound=job.sound,
        settings=job.context.settings,
        advance=looked,
        metadata=tags_for(job.plan.media, job.request, job.context),
    )
    return made, DecodingReport(broken_later=broken_packets), []


def _frame_by_frame(
    job: _Job, advance: Callable[[int], None]
) -> tuple[PipeResult, DecodingReport, list[Degradation]]:
    """Cut every picture out of the source and write the frames that show it."""
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
            raise InvalidMediaError(f"{plan.media.path.name!r} has no picture in the part that is kept")
    return pipe.result, DecodingReport.of(reader), notes


def _write_frames(
    job: _Job, reader: FrameReader, pipe: FramePipe, pictures: list[_Picture], advance: Callable[[int], None]
) -> list[Degradation]:
    """Write frames of a constant rate; return what that changes."""
    plan, (older, newer) = job.plan, pictures
    schedule = Schedule(plan.timeline, plan.fps, job.request.slow_motion, most_late_frames=plan.most_late_frames)

    def write(shown: Iterable[Shown]) -> None:
        for frame in shown:
            job.context.raise_if_cancelled(NAME)
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
        asked=plan.fps_asked,
        dropped=0 if faster else schedule.dropped,
        pictures=reader.frames_read,
    )
    return [*notes, *_ends_early(plan, last, filled, job.context.settings.limits)]


def _write_pictures(
    job: _Job, reader: FrameReader, pipe: FramePipe, pictures: list[_Picture], advance: Callable[[int], None]
) -> list[Degradation]:
    """Write each picture once, at its own time in the output; return what that changes."""
    line, (older, newer) = job.plan.timeline, pictures
    length = line.duration_seconds
    written, latest = 0, Fraction(-1)

    def write(until: Fraction | None) -> None:
        nonlocal written, latest
        job.context.raise_if_cancelled(NAME)
        start = max(Fraction(0), line.to_output(older.seconds))
        end = length if until is None else min(length, line.to_output(until))
        if max(start, latest) < end and start > latest:  # a careless muxer may write two pictures at one time
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
    """Return the reader of the pictures that are kept, and of those around them that may be seen."""
    media, line = plan.media, plan.timeline
    start = plan.first_seconds - LEEWAY_SECONDS if line.source_start > 0 else None
    end = None if line.source_end is None else media.start_seconds + line.source_end + _LATER_FRAMES / media.fps
    # A render function has a process of its own, so it may decode in it.
    return FrameReader(
        media,
        pixel_format=plan.pixel_format,
        start=start,
        end=end,
        decoder="in_process",
        valid_frames=2,
        settings=context.settings,
    )


def _ends_early(plan: FramingPlan, last: Fraction, filled: int, limits: MediaLimits) -> list[Degradation]:
    """Say so where the pictures end well before they should."""
    end = plan.timeline.source_end
    if filled >= plan.frame_count or end is None or not plan.media.constant_rate:
        return []
    missing = end - last - 1 / plan.media.fps
    if missing <= _LATER_FRAMES / plan.media.fps or _stands(plan.media, last, end, limits):
        return []
    message = f"the last picture of the source was shown for its last {float(missing):.2f} s, which do not decode"
    return [Degradation("pictures_undecodable", message)]


def _stands(media: MediaInfo, last: Fraction, end: Fraction, limits: MediaLimits) -> bool:
    """Return whether the picture that begins at `last` is shown until `end` by what the file says."""
    shown = picture_shown_at(media, media.start_seconds + end)
    if shown is None or shown - media.start_seconds > last + 1 / (2 * media.fps):
        return False
    return picture_end(media, limits) - media.start_seconds >= end


class _Picture:
    """One picture of the source, cut to the output once it is known that it shows."""

    def __init__(self, framing: FramingRenderer, plan: FramingPlan) -> None:
        self.seconds = Fraction(0)
        self._framing = framing
        self._plan = plan
        self._media = plan.media
        self._crop: Window | None = None
        self._size = plan.layout.size
        self._frame: Frame | None = None
        self._made: Frame | None = None
        self._format = plan.pixel_format
        bytes_each = frame_bytes(self._format, self._size)
        self._memory = FrameMemory(bytes_each) if FrameMemory.usable() else None
        self._output: U8Array = np.empty(bytes_each if self._memory is None else 0, np.uint8)
        self._mixture: U8Array = np.empty(bytes_each, np.uint8)

    def take(self, frame: Frame) -> None:
        """Be the picture that `frame` shows, which stays valid until the next but one is taken."""
        self._frame, self._made = frame, None
        self.seconds = frame.pts_seconds - self._media.start_seconds
        if self._media.constant_rate:
            # The exact times of evenly spaced pictures, whatever the container has rounded.
            number = round(self.seconds * self._media.fps)
            if abs(self.seconds * self._media.fps - number) < ROUNDED_FRAMES:
                self.seconds = number / self._media.fps

    def mixed(self, newer: _Picture, share: float, moment: Fraction) -> Frame:
        """Return this picture in the output's size, with `share` of the newer one in it.

        Args:
            newer: The picture after this one.
            share: 0..1.
            moment: Of the source: the crop of a picture that stands goes on moving.
        """
        stands = moment - self.seconds > STANDING_SECONDS
        if share <= 0:
            return self._shown(moment if stands else self.seconds)
        mix(self._shown(self.seconds).data, newer._shown(newer.seconds).data, share, self._mixture, self._format)
        return Frame(self._mixture, self._size, self._format, self.seconds, 0)

    def _shown(self, moment: Fraction) -> Frame:
        if self._frame is None:
            raise FrameError("no picture was read that could be shown")
        crop = self._plan.track.at(moment)
        if self._made is None or crop != self._crop:
            self._crop = crop
            shared = None if self._memory is None else self._memory.take()
            data = self._output if shared is None else shared.data
            self._framing.render(planes_of(self._frame), moment, data)
            self._made = Frame(data, self._size, self._format, self.seconds, self._frame.index, shared)
        return self._made
