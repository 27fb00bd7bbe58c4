"""apply_upscale: a clip in, the same clip two or four times as large out, or of any larger size.

The same body on a Modal GPU and on this machine; all that it may touch comes with the `JobContext`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Final

from reel_modal.ahead import Ahead
from reel_modal.ffmpeg_pipe import FrameReader, PipeResult
from reel_modal.functions.context import JobContext
from reel_modal.functions.losses import DecodingReport, not_kept
from reel_modal.functions.pictures import as_rendered
from reel_modal.functions.publishing import output_pipe, publish_result, result_of, verified
from reel_modal.functions.upscale_plan import UpscalePlan, registered_model
from reel_modal.media import probe, scan_packets
from reel_modal.rendering.opencv import load_cv2
from reel_modal.rendering.tiles import Samples
from reel_modal.rendering.upscale import SamplePlanes
from reel_modal.schema import Degradation, RenderResult, UpscaleRequest

__all__ = ["NAME", "StageSeconds", "run", "upscale"]

NAME: Final = "apply_upscale"
_TICK_SECONDS: Final = Fraction(1, 90_000)


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """What each stage took while the others ran: busy, without waits for one another.

    Attributes:
        decode: Frames out of the file.
        infer: The network.
        encode: Chroma, the last resize, and frames into ffmpeg, waits for it included.
        wall: From the first frame that is wanted to the file finished.
    """

    decode: float
    infer: float
    encode: float
    wall: float


def run(request: UpscaleRequest, context: JobContext) -> RenderResult:
    """Fetch the input, enlarge every frame, verify the output and publish it.

    Args:
        request: How large; it has been validated by its construction.
        context: Storage, reporter, settings, working folder and cancellation.

    Returns:
        What was made and how long each phase took; `engine` names device, precision and network.

    Raises:
        MissingDependencyError: OpenCV does not load; nothing is fetched.
        RequestError: The clip is larger already, or would become too large; or the network is not registered.
        InvalidMediaError: The input is no video that we accept.
        InvalidModelError: The network cannot be used.
        ProviderUnavailableError: The device that was asked for cannot be used.
        FFmpegError: Decoding or encoding failed.
        OutputMismatchError: The output is not what was asked for; nothing is published.
        StorageError: The input could not be fetched or the output not put in place.

    Cancellation:
        Raises JobCancelledError between two frames, or two packets of the output that is verified; nothing is
        published, and no process or thread is left.
    """
    load_cv2()  # if it does not load, nothing is fetched
    settings = context.settings
    with context.reporter.phase("fetch"):
        registered = registered_model(request, settings)  # before the input, which may be large
        source = context.storage.fetch(context.places_of(request)[0], context.workdir)
        media = as_rendered(probe(source, settings=settings), request.encode)
        plan = UpscalePlan.of(request, media, settings, registered)
    made, notes, _ = upscale(plan, request, context)
    result = result_of(made, request, function=NAME, engine=plan.engine, degraded=(*plan.notes, *notes))
    file = verified(made, context, NAME)
    decoder = "" if plan.nvdec is None else str(plan.nvdec)
    return publish_result(
        result, file, request, context, model=plan.session.model.manifest.name, decoder_ffmpeg=decoder
    )


def upscale(
    plan: UpscalePlan, request: UpscaleRequest, context: JobContext
) -> tuple[PipeResult, list[Degradation], StageSeconds]:
    """Make the file in the working folder: decoding, the network and encoding each in a thread of its own.

    Returns:
        The file, what of the source is not in it, and what each stage took.
    """
    media = plan.media
    # Evenly spaced frames are read on the grid of their rate, which fills what does not decode. Others are each
    # enlarged once, and keep their times.
    fps = media.fps if media.constant_rate else None
    reader = FrameReader(
        media, pixel_format=plan.pixel_format, fps=fps, decoder=plan.decoder, settings=context.settings
    )
    pipe = output_pipe(
        request,
        context,
        size=plan.target,
        fps=media.fps,
        sound=media,
        expected_frames=media.expected_frames if media.constant_rate else None,
        color=plan.color,
        hdr=media.hdr,
        sample_aspect_ratio=plan.sample_aspect_ratio,
        pixel_format=plan.pixel_format,
    )
    decoding = Ahead(_frames(reader, plan), depth=2 * plan.at_once, name="decode")
    inferring = Ahead(_enlarged(decoding, plan), depth=2 * plan.at_once, name="infer")
    encoding = 0.0
    frames = media.expected_frames if fps is not None else scan_packets(media.path).frame_count
    with pipe, context.reporter.phase("render", frames) as advance, reader, decoding, inferring:
        started = time.monotonic()
        for number, (detail, frame) in enumerate(inferring, 1):
            context.raise_if_cancelled(NAME)
            begun = time.monotonic()
            pipe.write(plan.renderer.finished(detail, frame.planes), seconds=frame.seconds)
            encoding += time.monotonic() - begun
            advance(number)
    wall = time.monotonic() - started
    notes = not_kept(media, DecodingReport.of(reader), fps=None, bits=plan.bits)
    return pipe.result, notes, StageSeconds(decoding.busy_seconds, plan.session.busy_seconds, encoding, wall)


@dataclass(frozen=True, slots=True)
class _Timed:
    """The planes of a frame, and its time from the first one on where times are kept one by one."""

    planes: SamplePlanes
    seconds: Fraction | None


def _frames(reader: FrameReader, plan: UpscalePlan) -> Iterator[_Timed]:
    """Yield each frame, in memory of its own."""
    first = latest = None
    for frame in reader:
        copy = frame.copy()
        y, u, v = copy.planes if plan.bits == 8 else copy.deep_planes
        seconds = None
        if reader.fps is None:
            first = frame.pts_seconds if first is None else first
            seconds = frame.pts_seconds - first
            if latest is not None:  # a careless muxer may write two frames at one time
                seconds = max(seconds, latest + _TICK_SECONDS)
            latest = seconds
        yield _Timed((y, u, v), seconds)


def _enlarged(frames: Iterable[_Timed], plan: UpscalePlan) -> Iterator[tuple[Samples, _Timed]]:
    """Yield what the network makes of each frame, with the frame."""
    source = iter(frames)
    while together := list(islice(source, plan.at_once)):
        detail = plan.renderer.detail([frame.planes for frame in together])
        yield from zip(detail, together, strict=True)
