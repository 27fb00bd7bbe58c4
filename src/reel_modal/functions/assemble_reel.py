"""assemble_reel: make one video from several clips, with transitions and one audio stream.

The same code runs on Modal and on this machine; it uses only its request and its `JobContext`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from reel_modal._ffmpeg.extra_streams import Extras
from reel_modal._ffmpeg.reel_sound import reel_sound_notes
from reel_modal._rendering.opencv import load_cv2
from reel_modal._smart_render import RenderPlan
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.functions.comparing import FinishedFile, losses
from reel_modal.functions.context import JobContext
from reel_modal.functions.degradation_notes import listed
from reel_modal.functions.outputs import (
    VerifiedFile,
    output_path,
    output_pipe,
    publish_video,
    result_of,
    verified,
)
from reel_modal.functions.reel_audio import ReelAudio
from reel_modal.functions.reel_copying import render_copied
from reel_modal.functions.reel_frames import ReelFrames
from reel_modal.functions.reel_layers import ReelLayers
from reel_modal.functions.reel_plan import PlannedClip, ReelPlan, plan_reel
from reel_modal.media import MediaInfo
from reel_modal.schema import Degradation, DegradationCode, ReelRequest, RenderResult

__all__ = ["NAME", "run"]

NAME: Final = "assemble_reel"
_COPY: Final = "packet-copy"
_MOST_NAMED: Final = 3
# Losses that a comparison of the output with a single clip finds correctly.
_COMPARED: Final[frozenset[DegradationCode]] = frozenset(
    {"alpha_dropped", "bit_depth_reduced", "captions_dropped", "chroma_reduced", "source_breaks_off"}
)
_DROPPED: Final[dict[str, DegradationCode]] = {
    "picture": "video_dropped",
    "subtitles": "subtitles_dropped",
    "data": "data_dropped",
    "attachment": "attachment_dropped",
    "cover": "cover_dropped",
}


def run(request: ReelRequest, context: JobContext) -> RenderResult:
    """Fetch the clips, render the reel with its audio, verify the output and publish it.

    Args:
        request: The clips and transitions; validated on construction.
        context: Storage, reporter, settings, working folder and cancellation.

    Returns:
        The result with the duration of each phase; `engine` names the engine that made the frames.

    Raises:
        MissingDependencyError: OpenCV cannot be loaded; nothing is fetched.
        RequestError: The request does not fit the clips: a trim after the end of its clip, transitions longer than
            their clip, HDR to keep beside SDR, or a layer outside of the frame or the reel.
        InvalidMediaError: A clip is not an accepted video, a layer no accepted image, or the music has no audio; the
            message names it.
        FFmpegError: Decoding or encoding failed; the message names the clip.
        OutputMismatchError: The output does not match the request; nothing is published.
        StorageError: An input could not be fetched, or the output could not be published.

    Cancellation:
        Raises JobCancelledError between two clips that are fetched, two frames, or two packets while the output is
        verified. Nothing is published, and no process or file is left.
    """
    load_cv2()  # fail before anything is fetched
    context.begin_one_piece()
    with context.reporter.phase("fetch"):
        plan = plan_reel(request, context)
        layers = ReelLayers(request, plan, context)
        audio = ReelAudio(request, plan, context)
    output = output_path(request, context)
    try:
        copied, file, decoding = _make(request, context, plan, layers, audio)
        degraded = [
            *_notes(request, context, plan, audio=audio, decoding=decoding, output=file.media),
            *audio.notes(),
        ]
        engine = f"opencv-{plan.pixel_format}" if copied.kind == "full" or copied.windows else _COPY
        result = result_of(file.written, request, function=NAME, engine=engine)
        result = replace(
            result,
            plan=copied.kind,
            reason=copied.reason,
            frames_copied=copied.frames_copied,
            degraded=tuple(dict.fromkeys((*degraded, *result.degraded))),
        )
        return publish_video(result, file, request, context)
    except BaseException:
        output.unlink(missing_ok=True)
        raise


def _make(
    request: ReelRequest, context: JobContext, plan: ReelPlan, layers: ReelLayers, audio: ReelAudio
) -> tuple[RenderPlan, VerifiedFile, list[list[Degradation]]]:
    """Make the output; return what was copied, the verified file, and notes on each clip."""
    copied, file, notes = render_copied(request, context, plan, layers, audio)
    if file is None:
        written, notes = _render(request, context, plan, layers, audio)
        file = verified(written, context)
    return copied, file, notes


def _render(
    request: ReelRequest, context: JobContext, plan: ReelPlan, layers: ReelLayers, audio: ReelAudio
) -> tuple[PipeResult, list[list[Degradation]]]:
    """Render all frames of the output; return it with notes on each clip."""
    frame_count = plan.timeline.frame_count
    reel = ReelFrames(request, plan, context)
    with context.reporter.phase("render", frame_count) as advance, audio.encoded() as sound:
        first = plan.clips[0].plan.media
        alike = all(clip.plan.media.hdr == first.hdr for clip in plan.clips)
        pipe = output_pipe(
            request,
            context,
            size=plan.size,
            fps=plan.timeline.fps,
            source=first,
            sound=sound,
            expected_frames=frame_count,
            color=plan.color,
            hdr=first.hdr if alike else None,
            pixel_format=plan.pixel_format,
        )
        with pipe:
            pipe.count_with(advance)
            reel.write_to(pipe, layers)
    return pipe.result, reel.notes


def _notes(
    request: ReelRequest,
    context: JobContext,
    plan: ReelPlan,
    *,
    audio: ReelAudio,
    decoding: list[list[Degradation]],
    output: MediaInfo,
) -> Iterator[Degradation]:
    """Yield the differences between each clip and the finished file; each message names its clip."""
    target = Path(request.output_key)
    named: dict[Degradation, list[str]] = {}
    for clip, sound, found in zip(plan.clips, audio.clips, decoding, strict=True):
        media, line = clip.plan.media, clip.plan.timeline
        extras = Extras(media, line, clip.placed.frames / clip.placed.fps, target, (), None)
        compared = losses(media, FinishedFile(output, extras, request.encode.metadata, sound=False), context)
        notes = [
            *clip.plan.notes,
            *found,
            *(note for note in compared if note.code in _COMPARED),
            *_parts_dropped(clip, output),
            *_regions_outside(request, clip),
            *reel_sound_notes(sound, audio.layout, target),
        ]
        for note in dict.fromkeys(notes):
            named.setdefault(note, []).append(clip.name)
    for note, names in named.items():
        yield Degradation(note.code, f"{listed(names, _MOST_NAMED)}: {note.message}")


def _regions_outside(request: ReelRequest, clip: PlannedClip) -> Iterator[Degradation]:
    """Yield a note if regions are outside of the kept part of the clip."""
    overlay, line = request.overlay(clip.placed.index), clip.plan.timeline
    end = line.source_start if line.source_end is None else line.source_end
    outside = [
        repr(region.id)
        for region in (overlay.regions if overlay is not None else ())
        if region.enabled and (region.start_seconds >= end or region.end_seconds <= line.source_start)
    ]
    if outside:
        named = listed(outside, _MOST_NAMED)
        yield Degradation("regions_not_drawn", f"regions outside of the kept part were not drawn: {named}")


def _parts_dropped(clip: PlannedClip, output: MediaInfo) -> Iterator[Degradation]:
    """Yield a note on each stream of a clip besides its video and audio, and on its chapters and tags."""
    media = clip.plan.media
    for stream in media.contents.streams:
        if stream.index != media.stream_index and (code := _DROPPED.get(stream.kind)) is not None:
            message = f"stream {stream.index} ({stream.kind}) is not in the output: a reel has only video and audio"
            yield Degradation(code, message)
    if media.contents.chapters:
        message = f"its {len(media.contents.chapters)} chapters are not in the output"
        yield Degradation("chapters_dropped", message)
    kept = {name for name, _ in output.contents.tags} if clip.placed.index == 0 else set()
    if lost := sorted(name for name, _ in media.contents.tags if name not in kept):
        yield Degradation("metadata_stripped", f"tags of the clip that were removed: {', '.join(lost)}")
