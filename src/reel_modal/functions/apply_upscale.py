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
from reel_modal.functions.comparing import Made, losses
from reel_modal.functions.context import JobContext
from reel_modal.functions.losses import DecodingReport, not_kept, rate_notes
from reel_modal.functions.output_rate import PictureTimes, rendered_rate
from reel_modal.functions.pictures import as_rendered
from reel_modal.functions.publishing import output_pipe, publish_result, result_of, verified, with_extras
from reel_modal.functions.upscale_plan import UpscalePlan, registered_model
from reel_modal.media import MediaInfo, probe, rated
from reel_modal.media.extras import Extras
from reel_modal.rendering.opencv import load_cv2
from reel_modal.rendering.tiles import Samples
from reel_modal.rendering.upscale import SamplePlanes
from reel_modal.schema import Degradation, RenderResult, UpscaleRequest

__all__ = ["NAME", "StageSeconds", "run", "upscale"]

NAME: Final = "apply_upscale"


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
        media = as_rendered(rated(probe(source, settings=settings), settings.limits), request.encode)
        plan = UpscalePlan.of(request, media, settings, registered)
    made, notes, _ = upscale(plan, request, context)
    extras = Extras.of(plan.media, made.path, request.encode.metadata)
    file = verified(with_extras(made, extras, request, context, NAME), context, NAME)
    finished = Made(file.media, extras, request.encode.metadata)
    degraded = (*plan.notes, *notes, *losses(plan.media, finished, context, NAME))
    result = result_of(file.made, request, function=NAME, engine=plan.engine, degraded=degraded)
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
    fps = rendered_rate(request, media)
    if request.output_rate == "source" and _last_stands(media):
        fps = None
    frames = media.expected_pictures if fps is None else media.frames_at(fps)
    reader = FrameReader(
        media, pixel_format=plan.pixel_format, fps=fps, decoder=plan.decoder, settings=context.settings
    )
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
    times = None if fps is not None else PictureTimes(media, context.settings)
    decoding = Ahead(_frames(reader, plan, times), depth=2 * plan.at_once, name="decode")
    inferring = Ahead(_enlarged(decoding, plan), depth=2 * plan.at_once, name="infer")
    encoding = 0.0
    with pipe, context.reporter.phase("render", frames) as advance, reader, decoding, inferring:
        started = time.monotonic()
        for number, (detail, frame) in enumerate(inferring, 1):
            context.raise_if_cancelled(NAME)
            begun = time.monotonic()
            shown = plan.renderer.finished(detail, frame.planes)
            pipe.write(shown, seconds=frame.seconds, duration_seconds=frame.left_seconds)
            encoding += time.monotonic() - begun
            advance(number)
    wall = time.monotonic() - started
    notes = rate_notes(media, fps, asked=fps == request.output_rate)
    notes += not_kept(media, DecodingReport.of(reader))
    return pipe.result, notes, StageSeconds(decoding.busy_seconds, plan.session.busy_seconds, encoding, wall)


def _last_stands(media: MediaInfo) -> bool:
    """Whether the last of evenly spaced pictures is shown for longer than the others: it is then enlarged once."""
    pictures, frames = media.expected_pictures, media.frames_at(media.stored_fps)
    return pictures is not None and frames is not None and frames > pictures + 1


@dataclass(frozen=True, slots=True)
class _Timed:
    """The planes of a frame; if times are kept, its own from the first frame on, and what is left until the end."""

    planes: SamplePlanes
    seconds: Fraction | None = None
    left_seconds: Fraction | None = None


def _frames(reader: FrameReader, plan: UpscalePlan, times: PictureTimes | None) -> Iterator[_Timed]:
    """Yield each frame, in memory of its own."""
    for frame in reader:
        copy = frame.copy()
        y, u, v = copy.planes if plan.bits == 8 else copy.deep_planes
        if times is None:
            yield _Timed((y, u, v))
        else:
            seconds, _, left = times.of(frame)
            yield _Timed((y, u, v), seconds, left)


def _enlarged(frames: Iterable[_Timed], plan: UpscalePlan) -> Iterator[tuple[Samples, _Timed]]:
    """Yield what the network makes of each frame, with the frame."""
    source = iter(frames)
    while together := list(islice(source, plan.at_once)):
        detail = plan.renderer.detail([frame.planes for frame in together])
        yield from zip(detail, together, strict=True)
