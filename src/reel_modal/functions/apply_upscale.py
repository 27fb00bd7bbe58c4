"""apply_upscale: upscale a clip by a factor of two or four, or to any larger size.

The same code runs on a Modal GPU and on this machine; it uses only its request and its `JobContext`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from typing import Final

from reel_modal._ffmpeg.extra_streams import Extras
from reel_modal._rendering.opencv import load_cv2
from reel_modal._rendering.tiles import Samples
from reel_modal._rendering.upscale import SamplePlanes, UpscaleRenderer
from reel_modal._segments import SLOW_SEGMENT_SECONDS, Engine
from reel_modal._support.prefetch import Prefetcher
from reel_modal._upscaling.manifest import ModelManifest, Network
from reel_modal._upscaling.model import UpscaleModel
from reel_modal._upscaling.session import UpscaleSession
from reel_modal.errors import FunctionError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader, PipeResult, Writable
from reel_modal.functions.comparing import FinishedFile, losses
from reel_modal.functions.context import JobContext
from reel_modal.functions.degradation_notes import DecodingReport, degradation_notes, rate_notes
from reel_modal.functions.outputs import output_pipe, publish_video, result_of, verified, with_extras
from reel_modal.functions.rendered_format import as_rendered
from reel_modal.functions.rendered_rate import PictureTimes, rendered_rate
from reel_modal.functions.segmented import SegmentedRender
from reel_modal.functions.upscale_plan import MOST_AT_ONCE, UpscaleNetwork, UpscalePlan, registered_model
from reel_modal.media import MediaInfo, probe, rated
from reel_modal.media.frames import Frame
from reel_modal.schema import Degradation, RenderResult, UpscaleRequest

__all__ = [
    "NAME",
    "ModelManifest",
    "Network",
    "StageSeconds",
    "UpscaleModel",
    "UpscaleRenderer",
    "UpscaleSession",
    "Upscaled",
    "run",
    "upscale",
]

NAME: Final = "apply_upscale"


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Busy time of each parallel stage in seconds, without waits for the other stages.

    Attributes:
        decode: Decoding of frames.
        infer: Inference of the network.
        encode: Chroma, the final resize, and writing to ffmpeg, including waits for ffmpeg.
        wall: Wall-clock time from the request for the first frame to the finished file.
    """

    decode: float
    infer: float
    encode: float
    wall: float


@dataclass(frozen=True, slots=True)
class Upscaled:
    """An output in the working folder.

    Attributes:
        file: The file.
        engine: What made its frames.
        notes: Differences from the source.
        stages: Busy times of the stages in this process.
    """

    file: PipeResult
    engine: Engine
    notes: list[Degradation]
    stages: StageSeconds


def run(request: UpscaleRequest, context: JobContext) -> RenderResult:
    """Fetch the input, upscale every frame, verify the output and publish it.

    Args:
        request: Size and network; validated on construction.
        context: Storage, reporter, settings, working folder and cancellation.

    Returns:
        The result with the duration of each phase; `engine` names device, precision and network.

    Raises:
        MissingDependencyError: OpenCV cannot be loaded; nothing is fetched.
        RequestError: The clip would not become larger, or too large, or the network is not registered.
        InvalidMediaError: The input is not an accepted video.
        InvalidModelError: The network cannot be used.
        ProviderUnavailableError: The requested device cannot be used.
        FFmpegError: Decoding or encoding failed.
        OutputMismatchError: The output does not match the request; nothing is published.
        StorageError: The input could not be fetched, or the output could not be published.

    Cancellation:
        Raises JobCancelledError between two frames, or between two packets while the output is verified. Nothing is
        published, and no process or thread is left.
    """
    load_cv2()  # fail before anything is fetched
    settings = context.settings
    with context.reporter.phase("fetch"):
        registered = registered_model(request, settings)  # fail before the input, which may be large, is fetched
        source = context.fetch(request.input_key)
        media = as_rendered(rated(probe(source, settings=settings), settings.limits), request.encode)
        plan = UpscalePlan.of(
            request,
            media,
            settings,
            registered,
            load=context.workers is None,
            hardware_decoding=not context.only_segments,
        )
    made = upscale(plan, request, context)
    written, engine = made.file, made.engine
    extras = Extras.of(plan.media, written.path, request.encode.metadata)
    file = verified(with_extras(written, extras, request, context), context)
    finished = FinishedFile(file.media, extras, request.encode.metadata)
    degraded = (*engine.degraded, *made.notes, *losses(plan.media, finished, context))
    result = result_of(file.written, request, function=NAME, engine=engine.name, degraded=degraded)
    decoder = "" if plan.network is None or plan.network.nvdec is None else str(plan.network.nvdec)
    return publish_video(result, file, request, context, model=engine.model, decoder_ffmpeg=decoder)


def upscale(plan: UpscalePlan, request: UpscaleRequest, context: JobContext) -> Upscaled:
    """Write the output in the working folder; decoding, inference and encoding run in parallel threads."""
    media = plan.media
    # At a constant rate, frames are read on the grid of that rate, which fills gaps of undecodable packets. Otherwise
    # each frame is upscaled once and keeps its time.
    fps = rendered_rate(request, media)
    if request.output_rate == "source" and _last_stands(media):
        fps = None
    frames = media.frame_count if fps is None else media.frames_at(fps)
    pipe = output_pipe(
        request,
        context,
        size=plan.target,
        fps=fps or media.fps,
        source=media,
        sound=media,
        expected_frames=None if fps is None else frames,
        color=plan.color,
        hdr=media.hdr,
        sample_aspect_ratio=plan.sample_aspect_ratio,
        pixel_format=plan.pixel_format,
    )
    notes = rate_notes(media, fps, requested=fps == request.output_rate)
    stages, started = _Stages(plan), time.monotonic()
    if fps is not None and (written := _in_segments(plan, request, context, pipe, stages)) is not None:
        file, engine = written
        notes += degradation_notes(media, DecodingReport())
        return Upscaled(file, engine, notes, stages.seconds(time.monotonic() - started))
    context.begin_one_piece()
    network = stages.network
    reader = FrameReader(
        media, pixel_format=plan.pixel_format, fps=fps, decoder=network.decoder, settings=context.settings
    )
    times = None if fps is not None else PictureTimes(media, context.settings)
    enlarged = stages.enlarged(reader, times)
    with context.reporter.phase("render", frames) as advance, pipe, reader, closing(enlarged):
        pipe.count_with(advance)
        for frame in enlarged:
            context.raise_if_cancelled()
            pipe.write(frame.planes, seconds=frame.seconds, duration_seconds=frame.left_seconds)
    notes += degradation_notes(media, DecodingReport.of(reader))
    return Upscaled(pipe.result, network.engine, notes, stages.seconds(time.monotonic() - started))


def _in_segments(
    plan: UpscalePlan, request: UpscaleRequest, context: JobContext, pipe: FramePipe, stages: _Stages
) -> tuple[PipeResult, Engine] | None:
    """Write a long output in segments; return None if it has to be written in one piece."""
    network = plan.network

    def made(frames: Iterator[Frame]) -> Generator[Writable]:
        for frame in stages.enlarged(frames, None):
            yield frame.planes

    segmented = SegmentedRender.plan(
        pipe,
        request,
        context,
        plan.media,
        engine=None if network is None else network.engine,
        refused="its frames are decoded on a GPU" if network is not None and network.nvdec else "",
        segment_seconds=max(SLOW_SEGMENT_SECONDS, MOST_AT_ONCE / pipe.fps),
    )
    if segmented is None or (file := segmented.render_each(made)) is None:
        return None
    return file, segmented.parts.known_engine()


def _last_stands(media: MediaInfo) -> bool:
    """Return whether the last evenly spaced frame is shown longer than the others; it is then upscaled only once."""
    pictures, frames = media.frame_count, media.frames_at(media.stored_fps)
    return pictures is not None and frames is not None and frames > pictures + 1


@dataclass(frozen=True, slots=True)
class _Timed:
    """Planes of a frame; if times are kept, also its time from the first frame and the time left until the end."""

    planes: SamplePlanes
    seconds: Fraction | None = None
    left_seconds: Fraction | None = None


class _Stages:
    """Decoding, inference and encoding in parallel threads, and their busy times."""

    def __init__(self, plan: UpscalePlan) -> None:
        self._plan = plan
        self._decode = self._encode = 0.0

    @property
    def network(self) -> UpscaleNetwork:
        """The network; it is loaded wherever frames are made."""
        if self._plan.network is None:
            raise FunctionError("its network is not loaded, since other processes render the frames", function=NAME)
        return self._plan.network

    def enlarged(self, frames: Iterable[Frame], times: PictureTimes | None) -> Generator[_Timed]:
        """Yield the frames in the target size; with `times`, each has its time."""
        network, bits = self.network, self._plan.bits
        decoding = Prefetcher(_frames(frames, bits, times), depth=2 * network.at_once, name="decode")
        inferring = Prefetcher(_enlarged(decoding, network), depth=2 * network.at_once, name="infer")
        with decoding, inferring:
            for detail, frame in inferring:
                started_at = time.monotonic()
                yield replace(frame, planes=network.renderer.finished(detail, frame.planes))
                self._encode += time.monotonic() - started_at
        self._decode += decoding.busy_seconds

    def seconds(self, wall: float) -> StageSeconds:
        """Return the busy times so far."""
        network = self._plan.network
        return StageSeconds(
            self._decode, 0.0 if network is None else network.session.busy_seconds, self._encode, wall
        )


def _frames(frames: Iterable[Frame], bits: int, times: PictureTimes | None) -> Iterator[_Timed]:
    """Yield a copy of each frame."""
    for frame in frames:
        copy = frame.copy()
        y, u, v = copy.planes if bits == 8 else copy.deep_planes
        if times is None:
            yield _Timed((y, u, v))
        else:
            seconds, _, left = times.of(frame)
            yield _Timed((y, u, v), seconds, left)


def _enlarged(frames: Iterable[_Timed], network: UpscaleNetwork) -> Iterator[tuple[Samples, _Timed]]:
    """Yield the network's output for each frame, together with the frame."""
    source = iter(frames)
    while batch := list(islice(source, network.at_once)):
        detail = network.renderer.detail([frame.planes for frame in batch])
        yield from zip(detail, batch, strict=True)
