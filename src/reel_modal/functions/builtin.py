"""The functions of this package, declared as a host declares its own.

Each body is imported when it runs, so that a host loads neither PyAV nor the engines to declare them.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reel_modal._progress.timing_model import Line, PublishedTimings
from reel_modal._segments import SEGMENT_SECONDS, SLOW_SEGMENT_SECONDS
from reel_modal.errors import InvalidMediaError
from reel_modal.functions.declaration import Command, Work, render_function
from reel_modal.functions.specs import ImageSpec, SegmentSpec
from reel_modal.schema import FramingRequest, OverlayRequest, ReelRequest, RenderResult, UpscaleRequest
from reel_modal.schema.options import ENCODER_THREADS
from reel_modal.settings import BUNDLED_MODELS, MODEL_FAMILIES, Settings

if TYPE_CHECKING:
    from reel_modal.functions.context import JobContext
    from reel_modal.media import MediaInfo

__all__ = ["apply_upscale", "assemble_reel", "process_framing", "render_overlay"]

_GPU_IMAGE: Final = ImageSpec(
    # ONNX Runtime with CUDA 13; its extras install CUDA and cuDNN, so an NVIDIA base image is not needed.
    # onnx reads networks that the operator registered.
    pip=("onnx==1.23.2", "onnxruntime-gpu[cuda,cudnn]==1.31.1", "platformdirs==4.14.8")
)


def _overlay_work(request: OverlayRequest, media: MediaInfo, /, *, settings: Settings, on_gpu: bool) -> Work:
    del settings
    from reel_modal._rendering.overlay import OverlayRenderer
    from reel_modal.functions.efforts import overlay_effort
    from reel_modal.functions.rendered_rate import refuses_copying
    from reel_modal.functions.try_smart import frames_expected

    frames, fps = _frames_at(request, media)
    rendered = copied = None
    if not refuses_copying(request, media):
        changed = OverlayRenderer(request, media.size, media.color).changed_intervals
        expected = partial(frames_expected, media, changed, Path(request.output_key), request.encode)
        rendered = expected(on_gpu=on_gpu)
        copied = rendered if rendered is not None or not on_gpu else expected(on_gpu=False)
    effort = overlay_effort(request, media, frames, rendered)
    return Work(media.size, frames, fps, rendered, copied is None and _joins_segments(request, media), effort)


def _overlay_trial(keys: Mapping[str, str]) -> OverlayRequest:
    keyframes = [{"time": time, "x": x, "y": 90, "radiusX": 60, "radiusY": 50} for time, x in ((0, 80), (1, 240))]
    region = {"id": "trial", "startTime": 0, "endTime": 1, "keyframes": keyframes}
    return OverlayRequest.parse({**keys, "regions": [region]})


def _add_overlay_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--effect", choices=("dark_overlay", "brightness_boost", "original"))


def _overlay_fields(arguments: argparse.Namespace, settings: Settings) -> tuple[Mapping[str, object], Settings]:
    return ({"effect": arguments.effect} if arguments.effect else {}), settings


@render_function(
    name="render_overlay",
    request=OverlayRequest,
    result=RenderResult,
    # The T4 is only for NVENC: drawing is CPU work, and x264 takes four fifths of the time.
    gpu=("T4",),
    cpu=ENCODER_THREADS,
    memory_mb=4096,
    timeout_seconds=600,
    estimate=_overlay_work,
    trial=_overlay_trial,
    # 2700 frames in 1080p took 47.6 s with few frames highlighted and 278 s with all: the geometric mean.
    published=PublishedTimings(Line(0.0, 0.0205), Line(0.0, 0.0205), (1920, 1080), 2700),
    command=Command(
        help="draw highlights that follow keyframes",
        file_option="--regions",
        file_list="regions",
        add_arguments=_add_overlay_options,
        fields=_overlay_fields,
    ),
    # Segments are encoded by x264, so that they can be joined; a GPU would be idle.
    segments=SegmentSpec(seconds=SEGMENT_SECONDS, gpu=()),
)
def render_overlay(request: OverlayRequest, context: JobContext) -> RenderResult:
    """Draw highlights on a clip."""
    from reel_modal.functions.render_overlay import run
    from reel_modal.functions.video_jobs import encoding_video

    with encoding_video(request.encode, context.settings):
        return run(request, context)


def _framing_work(request: FramingRequest, media: MediaInfo, /, *, settings: Settings, on_gpu: bool) -> Work:
    from reel_modal._rendering.framing import CropTrack, output_size
    from reel_modal.functions.efforts import framing_effort
    from reel_modal.functions.framing_plan import FramingPlan, is_trimmed
    from reel_modal.functions.try_smart import frames_expected

    all_frames, fps = _frames_at(request, media)
    frames = request.timeline(media.duration_seconds or all_frames / fps).frame_count(fps)
    upright = media.size if request.rotation_degrees % 180 == 0 else media.size[::-1]
    size = output_size(request, CropTrack(request, upright), media.sample_aspect_ratio)
    try:
        plan = FramingPlan.of(request, media, settings)
    except InvalidMediaError:  # the clip's data is not on this host
        return Work(size, frames, fps, effort=framing_effort(request, media, size, frames, None))
    rendered = None
    if not plan.remakes:
        output = Path(request.output_key)
        rendered = frames_expected(plan.media, (), output, request.encode, on_gpu=on_gpu, trim=plan.trim)
    fetched_in_part = is_trimmed(request) and not media.keeps_decoding_times
    in_one_piece = plan.engine == "ffmpeg-graph" or rendered is not None or fetched_in_part
    effort = framing_effort(request, media, size, frames, rendered)
    return Work(size, frames, fps, rendered, not in_one_piece and _joins_segments(request, media), effort)


def _framing_trial(keys: Mapping[str, str]) -> FramingRequest:
    crop = [{"time": time, "x": x, "y": 0, "width": 100, "height": 180} for time, x in ((0, 0), (1, 200))]
    segments = [{"start": 0.2, "end": 0.6, "speed": 0.5}]
    # The default size, 810 x 1440, would take most of the time of a trial.
    small = {"outputWidth": 200, "outputHeight": 360}
    return FramingRequest.parse({**keys, **small, "crop": crop, "segments": segments, "trimStart": 0.1})


@render_function(
    name="process_framing",
    request=FramingRequest,
    result=RenderResult,
    # No GPU: 180 frames took 16.6 s on a T4 and 10.9 s on a CPU container, at a sixth of the price.
    cpu=ENCODER_THREADS,
    memory_mb=4096,
    timeout_seconds=600,
    estimate=_framing_work,
    trial=_framing_trial,
    # 180 frames of 810 x 1440 took 16.6 s on a T4 and 10.9 s on a CPU container.
    published=PublishedTimings(Line(0.0, 0.079), Line(0.0, 0.052), (810, 1440), 180),
    command=Command(help="crop along keyframes, trim, change speeds", file_list="crop"),
    segments=SegmentSpec(seconds=SEGMENT_SECONDS),
)
def process_framing(request: FramingRequest, context: JobContext) -> RenderResult:
    """Crop, trim and retime a clip."""
    from reel_modal.functions.process_framing import run
    from reel_modal.functions.video_jobs import encoding_video

    with encoding_video(request.encode, context.settings):
        return run(request, context)


def _upscale_work(request: UpscaleRequest, media: MediaInfo, /, *, settings: Settings, on_gpu: bool) -> Work:
    from reel_modal.functions.efforts import upscale_effort

    frames, fps = _frames_at(request, media)
    if request.output_rate == "source" and not media.constant_rate:
        frames = media.frame_count or frames
    effort = upscale_effort(request, media, frames, settings, on_gpu=on_gpu)
    size, in_segments = request.target_size(media.size), _joins_segments(request, media)
    return Work(size, frames, fps, in_segments=in_segments, effort=effort)


def _check_upscale(request: UpscaleRequest, settings: Settings) -> None:
    from reel_modal._upscaling.model import check_registered

    check_registered(request.model, request.model_sha256, settings.models)


def _upscale_trial(keys: Mapping[str, str]) -> UpscaleRequest:
    # Without a GPU, this only checks that the body and the network can be loaded and run.
    return UpscaleRequest.parse({**keys, "scale": 2, "provider": "cpu"})


def _network_version(request: UpscaleRequest, settings: Settings) -> str:
    registered = settings.models.get(request.model or "")
    return "" if registered is None else registered.sha256


def _networks_to_send(settings: Settings) -> Mapping[str, str]:
    from reel_modal.functions.shipped_models import models_to_ship

    return models_to_ship(settings)


def _add_upscale_options(parser: argparse.ArgumentParser) -> None:
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--scale", type=int, choices=(2, 4), help="factor of the width and of the height")
    size.add_argument("--size", metavar="WxH", help="size of the output in pixels, both even, such as 1920x1080")
    parser.add_argument(
        "--model",
        help="small, large, a name in REEL_MODAL_MODELS, or the path or URL of an ONNX file;"
        " the default depends on the device",
    )
    parser.add_argument("--model-sha256", help="SHA-256 of that file; required for a URL")
    parser.add_argument(
        "--model-private", action="store_true", help="allow a private or loopback address of the URL's host"
    )
    parser.add_argument("--provider", choices=("cpu", "cuda"), help="default REEL_MODAL_UPSCALE_PROVIDER, then cpu")
    parser.add_argument(
        "--allow-cpu", action="store_true", help="fall back to the CPU if the GPU is unavailable, and report it"
    )


def _upscale_fields(arguments: argparse.Namespace, settings: Settings) -> tuple[Mapping[str, object], Settings]:
    from reel_modal._upscaling.model import model_at

    model, sha256 = arguments.model, arguments.model_sha256
    if model is not None and model not in {*MODEL_FAMILIES, *BUNDLED_MODELS, *settings.models}:
        model, source = model_at(model, sha256=sha256, allow_private_addresses=arguments.model_private)
        settings, sha256 = dataclasses.replace(settings, models={**settings.models, model: source}), None
    fields = {name: getattr(arguments, name) for name in ("scale", "provider", "allow_cpu")}
    return {**fields, "output_size": arguments.size, "model": model, "model_sha256": sha256}, settings


@render_function(
    name="apply_upscale",
    request=UpscaleRequest,
    result=RenderResult,
    # Besides the GPU, four cores for x264; if ffmpeg supports it, the A10G's NVENC encodes instead.
    gpu=("A10G",),
    cpu=ENCODER_THREADS,
    memory_mb=8192,
    timeout_seconds=900,
    image=_GPU_IMAGE,
    estimate=_upscale_work,
    check=_check_upscale,
    trial=_upscale_trial,
    # The publication's own fitted model of an upscale to 2560 x 1440.
    published=PublishedTimings(on_gpu=Line(50.0, 0.176), typical_size=(2560, 1440), typical_frames=180),
    input_version=_network_version,
    files=_networks_to_send,
    command=Command(
        help="enlarge a clip two or four times, or to a larger size",
        file_option="",
        add_arguments=_add_upscale_options,
        fields=_upscale_fields,
    ),
    segments=SegmentSpec(seconds=SLOW_SEGMENT_SECONDS, uses_all_cores=True),
)
def apply_upscale(request: UpscaleRequest, context: JobContext) -> RenderResult:
    """Upscale a clip with a neural network."""
    from reel_modal.functions.apply_upscale import run
    from reel_modal.functions.video_jobs import encoding_video

    with encoding_video(request.encode, context.settings):
        return run(request, context)


def _reel_work(request: ReelRequest, media: tuple[MediaInfo, ...], /, *, settings: Settings, on_gpu: bool) -> Work:
    from reel_modal.functions.efforts import ClipFrames, reel_effort
    from reel_modal.functions.reel_copying import frames_expected
    from reel_modal.functions.reel_plan import clip_lines, plan_files, size_of

    fps = request.rate if isinstance(request.rate, Fraction) else media[0].fps
    timeline, size, spans = request.timeline(clip_lines(request, media), fps), size_of(request, media[0]), None
    try:
        reel = plan_files(request, media, settings)
    except InvalidMediaError:  # a clip's data is not on this host
        pass
    else:
        timeline, size, spans = reel.timeline, reel.size, frames_expected(request, reel, on_gpu=on_gpu)
    frames = timeline.frame_count
    rendered = None if spans is None else sum(end - start for start, end in spans)
    shown = [ClipFrames.of(clip, each, spans) for clip, each in zip(timeline.clips, media, strict=True)]
    effort = reel_effort(request, shown, size, frames, rendered)
    return Work(size, frames, timeline.fps, rendered, effort=effort)


def _reel_trial(keys: Mapping[str, str]) -> ReelRequest:
    fields = {name: key for name, key in keys.items() if name != "input_key"}
    clips = [{"inputKey": keys["input_key"]}, {"inputKey": keys["input_key"], "trimStart": 0.5}]
    return ReelRequest.parse({**fields, "clips": clips, "transitions": [{"kind": "crossfade", "duration": 0.2}]})


@render_function(
    name="assemble_reel",
    request=ReelRequest,
    result=RenderResult,
    # No GPU, for the reason of process_framing: the same kernels and the same encoder.
    cpu=ENCODER_THREADS,
    memory_mb=4096,
    timeout_seconds=600,
    estimate=_reel_work,
    trial=_reel_trial,
    # Not measured yet: the frames are made like those of process_framing, whose figures these are.
    published=PublishedTimings(Line(0.0, 0.079), Line(0.0, 0.052), (810, 1440), 180),
    command=Command(help="make one video from several clips, with transitions", file_option="", inputs_in_file=True),
)
def assemble_reel(request: ReelRequest, context: JobContext) -> RenderResult:
    """Assemble a reel from several clips."""
    from reel_modal.functions.assemble_reel import run
    from reel_modal.functions.video_jobs import encoding_video

    with encoding_video(request.encode, context.settings):
        return run(request, context)


def _frames_at(request: OverlayRequest | FramingRequest | UpscaleRequest, media: MediaInfo) -> tuple[int, Fraction]:
    """Return the number of frames of the whole clip at the output's rate, and that rate."""
    fps = request.output_rate if isinstance(request.output_rate, Fraction) else media.fps
    return media.frames_at(fps) or 1, fps


def _joins_segments(request: OverlayRequest | FramingRequest | UpscaleRequest, media: MediaInfo) -> bool:
    """Return whether rendered segments can be joined to the output, as far as the request and the headers show."""
    from reel_modal._ffmpeg.frame_slots import SpanError
    from reel_modal._ffmpeg.muxing import is_mp4_like
    from reel_modal.functions.exact_source import refuse_inexact_headers
    from reel_modal.functions.rendered_rate import rendered_rate

    # With `auto`, segments are encoded by x264.
    joined = is_mp4_like(Path(request.output_key)) and request.encode.encoder in {"auto", "libx264"}
    if not joined or rendered_rate(request, media) is None:
        return False
    try:
        refuse_inexact_headers(media)
    except SpanError:
        return False
    return True
