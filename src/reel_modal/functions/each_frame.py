"""Render every frame of a clip into an output of the same size, with the audio of the clip."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from fractions import Fraction
from typing import TypeAlias

from reel_modal._segments import Engine
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader, PipeResult
from reel_modal.functions.context import JobContext
from reel_modal.functions.degradation_notes import DecodingReport, degradation_notes, rate_notes
from reel_modal.functions.outputs import output_pipe
from reel_modal.functions.rendered_format import rendered_format
from reel_modal.functions.rendered_rate import PictureTimes, rendered_rate
from reel_modal.functions.segmented import SegmentedRender
from reel_modal.media import MediaInfo
from reel_modal.media.frames import Frame
from reel_modal.schema import Degradation
from reel_modal.schema.requests import VideoRequest

__all__ = ["DrawFrame", "WriteTimed", "render_each_frame"]

DrawFrame: TypeAlias = Callable[[Frame, Fraction], None]
"""Draws on a frame in place; takes the frame and its time in seconds from the first frame of the clip."""

WriteTimed: TypeAlias = Callable[[FramePipe, Frame, PictureTimes], None]
"""Draws on a frame, and writes it at its own time."""


def render_each_frame(
    request: VideoRequest,
    context: JobContext,
    media: MediaInfo,
    draw: DrawFrame,
    *,
    write_timed: WriteTimed,
    engine: str,
) -> tuple[PipeResult, list[Degradation]]:
    """Draw on every frame and write the output; return it with notes on differences from the source.

    A long output is rendered in segments, so a frame must not depend on earlier ones.

    Args:
        request: The request, with rate and encoding.
        context: Context of the job.
        media: The source as it is rendered, with the rate of the whole clip; see `as_rendered` and `rated`.
        draw: Draws on one frame, if the output has a constant rate.
        write_timed: Draws on one frame and writes it, if frames keep their times.
        engine: What draws, as far as the request does not determine it.

    Raises:
        FFmpegError: Decoding or encoding failed.

    Cancellation:
        Raises JobCancelledError between two frames.
    """
    rate = rendered_rate(request, media)
    frames = media.frame_count if rate is None else media.frames_at(rate)
    layout = rendered_format(media, request.encode)
    pipe = output_pipe(
        request,
        context,
        size=media.size,
        fps=rate or media.fps,
        source=media,
        sound=media,
        expected_frames=None if rate is None else frames,
        color=media.color,
        hdr=media.hdr,
        sample_aspect_ratio=media.sample_aspect_ratio,
        pixel_format=layout,
    )
    notes = rate_notes(media, rate, requested=rate == request.output_rate)

    def drawn(pictures: Iterable[Frame]) -> Generator[Frame]:
        for frame in pictures:
            draw(frame, frame.pts_seconds - media.start_seconds)
            yield frame

    if rate is not None:
        segmented = SegmentedRender.plan(pipe, request, context, media, engine=Engine.of_name(engine))
        if segmented is not None and (written := segmented.render_each(drawn)) is not None:
            return written, [*notes, *degradation_notes(media, DecodingReport())]
    context.begin_one_piece()
    # At a constant rate, repeated and dropped frames keep video and audio in sync if frames are unevenly spaced or
    # undecodable. A render function has a separate process, so a crash of the in-process decoder ends only this job.
    reader = FrameReader(
        media, pixel_format=layout, fps=rate, decoder="in_process", zero_copy=True, settings=context.settings
    )
    times = PictureTimes(media, context.settings) if rate is None else None
    with context.reporter.phase("render", frames) as advance, reader, pipe:
        pipe.count_with(advance)
        for frame in drawn(reader) if times is None else reader:
            context.raise_if_cancelled()
            if times is None:
                pipe.write(frame)
            else:
                write_timed(pipe, frame, times)
    return pipe.result, [*notes, *degradation_notes(media, DecodingReport.of(reader))]
