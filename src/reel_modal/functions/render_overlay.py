"""render_overlay: draw highlights on a clip. The same code runs on a Modal GPU and on this machine."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final

from reel_modal import _smart_render
from reel_modal._ffmpeg.extra_streams import Extras
from reel_modal._rendering.opencv import load_cv2
from reel_modal._rendering.overlay import OverlayRenderer
from reel_modal._smart_render import Draw, RenderPlan, RenderSpan, SplicePlan, Trim
from reel_modal.ffmpeg_pipe import FramePipe, PipeResult
from reel_modal.functions.comparing import FinishedFile, losses
from reel_modal.functions.context import JobContext
from reel_modal.functions.degradation_notes import listed
from reel_modal.functions.each_frame import render_each_frame
from reel_modal.functions.outputs import output_path, publish_video, result_of, verified, with_extras
from reel_modal.functions.rendered_format import as_rendered, planes_of, rendered_format
from reel_modal.functions.rendered_rate import PictureTimes, refuses_copying, rendered_rate
from reel_modal.functions.try_smart import render_smart
from reel_modal.media import MediaInfo, probe, rated
from reel_modal.media.frames import Frame, PixelFormat
from reel_modal.schema import Degradation, OverlayRequest, RenderResult

__all__ = ["NAME", "OverlayRenderer", "RenderPlan", "RenderSpan", "Trim", "plan_for", "run"]

NAME: Final = "render_overlay"
_MOST_NAMED: Final = 5


def run(request: OverlayRequest, context: JobContext) -> RenderResult:
    """Fetch the input, draw the highlights, verify the output and publish it.

    Args:
        request: The highlights; validated on construction.
        context: Storage, reporter, settings, working folder and cancellation.

    Returns:
        The result with the duration of each phase and the usage.

    Raises:
        MissingDependencyError: OpenCV cannot be loaded; nothing is fetched.
        InvalidMediaError: The input is not an accepted video.
        FFmpegError: Decoding or encoding failed.
        OutputMismatchError: The output does not match the request; nothing is published.
        StorageError: The input could not be fetched, or the output could not be published.

    Cancellation:
        Raises JobCancelledError between two frames, or between two packets while the output is verified. Nothing is
        published, and no process is left.
    """
    load_cv2()  # fail before anything is fetched
    with context.reporter.phase("fetch"):
        source = context.fetch(request.input_key)
        media = probe(source, settings=context.settings)
        if isinstance(request.output_rate, Fraction):
            media = rated(media, context.settings.limits)
    overlay = OverlayRenderer(request, media.size, media.color)

    def painter(pixel_format: PixelFormat) -> Draw:
        renderer = OverlayRenderer(request, media.size, media.color, pixel_format)
        return partial(renderer.draw, frame_seconds=1 / media.fps)

    extras = Extras.of(media, output_path(request, context), request.encode.metadata)
    plan, file = render_smart(
        media,
        overlay.changed_intervals,
        extras.target,
        request,
        extras=extras,
        painter=painter,
        context=context,
        refused=refuses_copying(request, media),
    )
    notes: list[Degradation] = []
    if file is None:
        media = rated(media, context.settings.limits)
        written, notes = _render(request, context, as_rendered(media, request.encode))
        file = verified(with_extras(written, extras, request, context), context)
    finished = FinishedFile(file.media, extras, request.encode.metadata, pictures_remade=plan.frames_rendered > 0)
    degraded = [*notes, *losses(media, finished, context)]
    copied_from = plan.picture if isinstance(plan, SplicePlan) else None
    drawn_on = rendered_format(media, request.encode) if copied_from is None else copied_from.pixel_format
    result = result_of(file.written, request, function=NAME, engine=f"opencv-{drawn_on}", degraded=degraded)
    degraded = [*result.degraded, *_after_the_end(request, result.duration_seconds)]
    result = replace(
        result, plan=plan.kind, reason=plan.reason, frames_copied=plan.frames_copied, degraded=tuple(degraded)
    )
    return publish_video(result, file, request, context)


def plan_for(request: OverlayRequest, media: MediaInfo) -> RenderPlan:
    """Return the plan of which parts of `media` are copied and which are rendered; the job's duration depends on it.

    Args:
        request: The highlights.
        media: The input of the request.

    Raises:
        InvalidMediaError: The file cannot be read.
    """
    overlay = OverlayRenderer(request, media.size, media.color)
    if reason := refuses_copying(request, media):
        return RenderPlan.full(reason)
    return _smart_render.plan_render(
        media, overlay.changed_intervals, output=Path(request.output_key), encode=request.encode
    )


def _after_the_end(request: OverlayRequest, duration_seconds: Fraction) -> list[Degradation]:
    """Return a note if regions start after the end of the clip, so that they are not visible."""
    late = [each for each in request.regions if each.enabled and each.start_seconds >= duration_seconds]
    if not late:
        return []
    named = listed([f"{each.id!r} at {float(each.start_seconds):g} s" for each in late], _MOST_NAMED)
    message = f"the clip ends at {float(duration_seconds):g} s; regions that start later were not drawn: {named}"
    return [Degradation("regions_not_drawn", message)]


def _render(request: OverlayRequest, context: JobContext, media: MediaInfo) -> tuple[PipeResult, list[Degradation]]:
    """Draw on every frame that a region changes; the other frames are encoded unchanged."""
    layout = rendered_format(media, request.encode)
    overlay = OverlayRenderer(request, media.size, media.color, layout)
    frame_seconds = 1 / (rendered_rate(request, media) or media.fps)

    def draw(frame: Frame, seconds: Fraction) -> None:
        overlay.draw(planes_of(frame), seconds, frame_seconds)

    return render_each_frame(
        request, context, media, draw, write_timed=partial(_write_picture, overlay), engine=f"opencv-{layout}"
    )


def _write_picture(overlay: OverlayRenderer, pipe: FramePipe, frame: Frame, times: PictureTimes) -> None:
    """Write a frame at its own time; if highlights change while it is shown, write it as several frames."""
    start, end, left = times.of(frame)
    moments = list(overlay.moments(start, end, 1 / pipe.fps))
    for moment in moments:
        shown = frame if moment == moments[-1] else frame.copy()
        if overlay.active(moment):
            overlay.render(planes_of(shown), moment)
        pipe.write(shown, seconds=moment, duration_seconds=left - (moment - start))
