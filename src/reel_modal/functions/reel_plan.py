"""Plan a reel: fetch and probe its clips, and place them on one timeline."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from reel_modal._ffmpeg.audio_files import probe_sound
from reel_modal._ffmpeg.reel_music import MusicSound
from reel_modal._rendering.framing import CropTrack, output_size
from reel_modal.errors import FFmpegError, InvalidMediaError, MediaError, ReelModalError, RequestError, StorageError
from reel_modal.functions.context import JobContext
from reel_modal.functions.framing_plan import FramingPlan
from reel_modal.functions.inputs import probe_object
from reel_modal.functions.process_framing import fetch_plan
from reel_modal.functions.rendered_format import RenderedFormat, as_rendered
from reel_modal.media import MediaInfo
from reel_modal.media.frames import ColorTags, frame_rate
from reel_modal.schema import FramingRequest, PlacedClip, ReelRequest, ReelTimeline, Timeline
from reel_modal.schema._fields import fields_of, join
from reel_modal.schema._kinds import RATE
from reel_modal.schema.reel import ReelClip
from reel_modal.settings import Settings

__all__ = [
    "PlannedClip",
    "ReelPlan",
    "clip_lines",
    "clip_name",
    "named_error",
    "naming_clip",
    "plan_files",
    "plan_music",
    "plan_reel",
    "size_of",
]

_OF_A_CLIP: Final = frozenset(field.name for field in fields_of(ReelClip))


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """One clip of a reel before its first frame is decoded.

    Attributes:
        name: The clip for messages, such as `clips[1] ('b.mp4')`.
        request: The request of `process_framing` that makes its frames.
        plan: The plan of that request.
        placed: The clip on the timeline.
        volume: Factor of its audio; 0 if it is muted.
    """

    name: str
    request: FramingRequest
    plan: FramingPlan
    placed: PlacedClip
    volume: float


@dataclass(frozen=True, slots=True)
class ReelPlan:
    """A reel before its first frame is decoded.

    Attributes:
        clips: The clips in order.
        timeline: The timeline.
        size: (width, height) of the output.
        color: Color tags of the output: those of the first clip.
        pixel_format: Pixel format of rendered frames: 10 bits if a clip is rendered in 10 bits.
    """

    clips: tuple[PlannedClip, ...]
    timeline: ReelTimeline
    size: tuple[int, int]
    color: ColorTags
    pixel_format: RenderedFormat


def plan_reel(request: ReelRequest, context: JobContext) -> ReelPlan:
    """Fetch the kept part of each clip, and return the plan.

    Raises:
        RequestError: The request does not fit the clips.
        InvalidMediaError: A clip is not an accepted video.
        StorageError: A clip could not be fetched.
    """

    def probed(index: int) -> MediaInfo:
        source = context.open(request.clips[index].input_key)
        return as_rendered(probe_object(source, context.settings), request.encode)

    def fetched(_: int, framing: FramingRequest) -> FramingPlan:
        context.raise_if_cancelled()
        return fetch_plan(framing, context)

    context.raise_if_cancelled()
    return _planned(request, probed, fetched)


def plan_files(request: ReelRequest, media: Sequence[MediaInfo], settings: Settings) -> ReelPlan:
    """Return the plan for clips whose headers are on this machine; fetch nothing.

    Raises:
        RequestError: The request does not fit the clips.
        InvalidMediaError: A clip is not on this machine, or is not an accepted video.
    """
    return _planned(
        request, media.__getitem__, lambda index, framing: FramingPlan.of(framing, media[index], settings)
    )


def _planned(
    request: ReelRequest, media_of: Callable[[int], MediaInfo], plan_of: Callable[[int, FramingRequest], FramingPlan]
) -> ReelPlan:
    """Plan each clip in the size and rate that the first one determines."""
    size, rate = request.output_size, request.rate
    framings: list[FramingRequest] = []
    plans: list[FramingPlan] = []
    for index in range(len(request.clips)):
        with naming_clip(request, index):
            if size is None:
                size = size_of(request, media_of(index))
            framings.append(request.framing(index, output_size=size, rate=rate))
            plan = plan_of(index, framings[-1])
            fps = frame_rate(plan.fps)
            plans.append(replace(plan, fps=fps, frame_count=plan.timeline.frame_count(fps)))
        rate = _rate_of(plans[0])
    fps, color = plans[0].fps, plans[0].color
    timeline = request.timeline([plan.timeline for plan in plans], fps)
    _check_hdr(plans)
    samples: RenderedFormat = "yuv420p"
    if any(plan.pixel_format == "yuv420p10le" for plan in plans):
        samples = "yuv420p10le"
    clips = (
        PlannedClip(
            name=clip_name(request, index),
            request=framings[index],
            plan=replace(plan, pixel_format=samples),
            placed=timeline.clips[index],
            volume=0.0 if request.clips[index].mute else float(request.clips[index].volume),
        )
        for index, plan in enumerate(plans)
    )
    return ReelPlan(tuple(clips), timeline, plans[0].layout.size, color, samples)


def plan_music(request: ReelRequest, context: JobContext) -> MusicSound | None:
    """Fetch the music and return it with its headers; None if the request has none.

    Raises:
        InvalidMediaError: The music has no audio that plays.
        StorageError: The music could not be fetched.
    """
    music = request.music
    if music is None:
        return None
    context.raise_if_cancelled()
    name = f"music ({music.input_key!r})"
    try:
        media = probe_sound(context.fetch(music.input_key), context.settings)
    except (FFmpegError, MediaError, StorageError) as error:
        raise named_error(error, name) from error
    if not media.audio:
        raise InvalidMediaError(f"{name} has no audio stream with a known codec; use a file that plays")
    return MusicSound(name, music, media)


def size_of(request: ReelRequest, first: MediaInfo) -> tuple[int, int]:
    """Return (width, height) of the output: the requested one, or that of the first clip or its crop."""
    framing = request.framing(0, output_size=request.output_size, rate=request.rate)
    turned = framing.rotation_degrees % 180 != 0
    track = CropTrack(framing, first.size[::-1] if turned else first.size)
    pixel_aspect = 1 / first.sample_aspect_ratio if turned else first.sample_aspect_ratio
    if framing.output_size is None and framing.aspect is None:
        crop = track.largest()
        framing = replace(framing, aspect=Fraction(crop.width) * pixel_aspect / Fraction(crop.height))
    return output_size(framing, track, pixel_aspect)


def clip_lines(request: ReelRequest, media: tuple[MediaInfo, ...]) -> list[Timeline]:
    """Return the mapping of each clip, from the lengths in the headers.

    Raises:
        RequestError: A trim starts after the end of its clip.
        InvalidMediaError: The headers of a clip do not state its length.
    """
    lines = []
    for index, clip in enumerate(media):
        with naming_clip(request, index):
            framing = request.framing(index, output_size=None, rate=request.rate)
            if clip.duration_seconds is None and framing.trim_end_seconds is None:
                raise InvalidMediaError("its headers do not state its length")
            lines.append(framing.timeline(clip.duration_seconds))
    return lines


def clip_name(request: ReelRequest, index: int) -> str:
    """Return a clip for messages."""
    return f"clips[{index}] ({request.clips[index].input_key!r})"


@contextmanager
def naming_clip(request: ReelRequest, index: int) -> Iterator[None]:
    """Run the block, and name the clip in the errors that it raises."""
    try:
        yield
    except RequestError as error:
        # The other fields, such as the rate, belong to the whole reel.
        belongs = error.path.partition("[")[0].partition(".")[0] in _OF_A_CLIP
        path = join(join("clips", index), error.path) if belongs else error.path
        raise RequestError(path, error.problem) from error
    except (FFmpegError, MediaError, StorageError) as error:
        raise named_error(error, clip_name(request, index)) from error


def named_error(error: ReelModalError, name: str) -> ReelModalError:
    """Return a copy of `error` whose message begins with the name of an input."""
    named = copy.copy(error)
    if isinstance(error, FFmpegError) and isinstance(named, FFmpegError):
        named.message = f"{name}: {error.message}"
        named.args = (named.message,)
    else:
        named.args = (f"{name}: {error}",)
    return named


def _rate_of(first: FramingPlan) -> Fraction:
    """Return the rate of the first clip as the rate of the reel."""
    try:
        return RATE.convert(first.fps)
    except RequestError as error:
        raise RequestError("rate", f"of the first clip {error.problem}; send a number") from error


def _check_hdr(plans: list[FramingPlan]) -> None:
    """Check that all clips are SDR, or HDR of the same kind."""
    first = plans[0].color
    for index, plan in enumerate(plans):
        if (plan.color.is_hdr or first.is_hdr) and plan.color.transfer != first.transfer:
            raise RequestError(
                "encode.hdr",
                f"is keep, but clips[{index}] has the transfer {plan.color.transfer or 'of SDR'} and clips[0]"
                f" {first.transfer or 'of SDR'}; use sdr",
            )
