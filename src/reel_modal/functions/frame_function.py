"""The body of a function that draws on each frame of a clip: fetch, render in segments, verify, publish."""

from __future__ import annotations

from reel_modal._ffmpeg.extra_streams import Extras
from reel_modal.ffmpeg_pipe import FramePipe
from reel_modal.functions.comparing import FinishedFile, losses
from reel_modal.functions.context import JobContext
from reel_modal.functions.each_frame import DrawFrame, render_each_frame
from reel_modal.functions.outputs import output_path, publish_video, result_of, verified, with_extras
from reel_modal.functions.rendered_format import as_rendered
from reel_modal.functions.rendered_rate import PictureTimes
from reel_modal.media import probe, rated
from reel_modal.media.frames import Frame
from reel_modal.schema import RenderResult
from reel_modal.schema.requests import VideoRequest

__all__ = ["DrawFrame", "render_frames"]


def render_frames(request: VideoRequest, context: JobContext, draw: DrawFrame, *, engine: str) -> RenderResult:
    """Draw on each frame of the input, and publish the output, which has the size and the audio of the input.

    A long output is stored in segments while it is rendered, so that a job that was killed continues. For that, what
    `draw` does to a frame must depend on the frame, its time and the request alone: not on earlier frames, the
    machine or the current time.

    Args:
        request: A request of the function; its type is a subclass of `VideoRequest`.
        context: Context of the job.
        draw: Called as `draw(frame, seconds)` for each frame of the output, which it changes in place. The frame is
            upright and in 4:2:0: uint8 in `frame.planes`, or uint16 in `frame.deep_planes` if `encode.hdr` is `keep`
            and the clip has more than 8 bits. The time is in seconds from the first frame, 0 or more.
        engine: Name and version of what draws, such as `tint 1`. Change it if frames may change for a reason that is
            neither in the request nor in the package that declares the function, such as another version of a
            library or of a network. The result contains it.

    Returns:
        The result, to be returned by the body.

    Raises:
        InvalidMediaError: The input is not an accepted video.
        FFmpegError: Decoding or encoding failed.
        OutputMismatchError: The output does not match the request; nothing is published.
        StorageError: The input could not be fetched.

    Cancellation:
        Raises JobCancelledError between two frames, or between two packets while the output is verified.

    Example:
        >>> def tint(request: TintRequest, context: JobContext) -> RenderResult:
        ...     def draw(frame: Frame, seconds: Fraction) -> None:
        ...         frame.planes[1][:] = request.level
        ...
        ...     return render_frames(request, context, draw, engine="tint 1")
    """
    with context.reporter.phase("fetch"):
        media = probe(context.fetch(request.input_key), settings=context.settings)
        media = rated(media, context.settings.limits)
    extras = Extras.of(media, output_path(request, context), request.encode.metadata)

    def write_timed(pipe: FramePipe, frame: Frame, times: PictureTimes) -> None:
        start, _, left = times.of(frame)
        draw(frame, start)
        pipe.write(frame, seconds=start, duration_seconds=left)

    shown = as_rendered(media, request.encode)
    written, notes = render_each_frame(request, context, shown, draw, write_timed=write_timed, engine=engine)
    file = verified(with_extras(written, extras, request, context), context)
    finished = FinishedFile(file.media, extras, request.encode.metadata)
    degraded = [*notes, *losses(media, finished, context)]
    result = result_of(file.written, request, function=context.function, engine=engine, degraded=degraded)
    return publish_video(result, file, request, context)
