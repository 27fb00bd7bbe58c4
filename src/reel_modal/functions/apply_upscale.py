"""apply_upscale: a clip in, the same clip two or four times as large out, or of any larger size.

The same body on a Modal GPU and on this machine; all that it may touch comes with the `JobContext`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from reel_modal.ahead import Ahead
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader, PipeResult
from reel_modal.functions.context import JobContext
from reel_modal.functions.losses import not_kept
from reel_modal.functions.publishing import verify_and_publish
from reel_modal.functions.upscale_plan import UpscalePlan
from reel_modal.media import probe
from reel_modal.rendering.tiles import Samples
from reel_modal.rendering.upscale import SamplePlanes
from reel_modal.schema import RenderResult, UpscaleRequest

__all__ = ["NAME", "StageSeconds", "run", "upscale"]

NAME: Final = "apply_upscale"


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """What each stage took while the others ran: busy, without waits for one another.

    Attributes:
        decode: Frames out of the file.
        infer: The network.
        encode: Chroma, the last resize, and frames into ffmpeg, waits for it included.
        wall: From the first frame that is wanted to the last that is encoded.
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
        RequestError: The clip is larger already, or would become too large.
        InvalidMediaError: The input is no video that we accept.
        InvalidModelError: The network cannot be used.
        ProviderUnavailableError: The device that was asked for cannot be used.
        FFmpegError: Decoding or encoding failed.
        OutputMismatchError: The output is not what was asked for; nothing is published.
        StorageError: The input could not be fetched or the output not put in place.

    Cancellation:
        Raises JobCancelledError between two frames; nothing is published and no process or thread is left.
    """
    with context.reporter.phase("fetch"):
        source = context.storage.fetch(request.input_key, context.workdir)
        plan = UpscalePlan.of(request, probe(source, settings=context.settings), context.settings)
    made, notes, _ = upscale(plan, request, context)
    size_bytes = verify_and_publish(made, request.output_key, context)
    return RenderResult(
        job_id=request.job_id,
        function=NAME,
        output_key=request.output_key,
        frames=made.frames,
        size=made.size,
        fps=made.fps,
        duration_seconds=made.duration_seconds,
        bytes=size_bytes,
        engine=plan.session.engine,
        encoder=made.encoder,
        seconds_by_phase=dict(context.reporter.seconds_by_phase),
        degraded=(*plan.notes, *notes, *made.degraded),
    )


def upscale(
    plan: UpscalePlan, request: UpscaleRequest, context: JobContext
) -> tuple[PipeResult, list[str], StageSeconds]:
    """Make the file in the working folder: decoding, the network and encoding each in a thread of its own.

    Returns:
        The file, what of the source is not in it, and what each stage took.
    """
    media = plan.media
    reader = FrameReader(
        media, pixel_format=plan.pixel_format, fps=media.fps, decoder="in_process", settings=context.settings
    )
    pipe = FramePipe(
        context.workdir / f"output{Path(request.output_key).suffix}",
        size=plan.target,
        fps=media.fps,
        pixel_format=plan.pixel_format,
        encoder=request.encode.encoder,
        quality=request.encode.quality,
        preset=request.encode.preset,
        audio_from=media.path,
        color=plan.color,
        sample_aspect_ratio=plan.sample_aspect_ratio,
        settings=context.settings,
    )
    started = time.monotonic()
    decoding = Ahead(_frames(reader, plan), depth=2 * plan.at_once, name="decode")
    inferring = Ahead(_enlarged(decoding, plan), depth=2 * plan.at_once, name="infer")
    encoding = 0.0
    with pipe, context.reporter.phase("render", media.expected_frames) as advance, reader, decoding, inferring:
        for number, (detail, frame) in enumerate(inferring, 1):
            context.raise_if_cancelled(NAME)
            begun = time.monotonic()
            pipe.write(plan.renderer.finished(detail, frame))
            encoding += time.monotonic() - begun
            advance(number)
    wall = time.monotonic() - started
    notes = not_kept(media, reader.broken_packets, fps=media.fps, bits=plan.bits)
    return pipe.result, notes, StageSeconds(decoding.busy_seconds, plan.session.busy_seconds, encoding, wall)


def _frames(reader: FrameReader, plan: UpscalePlan) -> Iterator[SamplePlanes]:
    """Yield the planes of each frame, in memory of their own."""
    for frame in reader:
        copy = frame.copy()
        y, u, v = copy.planes if plan.bits == 8 else copy.deep_planes
        yield y, u, v


def _enlarged(frames: Iterable[SamplePlanes], plan: UpscalePlan) -> Iterator[tuple[Samples, SamplePlanes]]:
    """Yield what the network makes of each frame, with the frame."""
    source = iter(frames)
    while together := list(islice(source, plan.at_once)):
        yield from zip(plan.renderer.detail(together), together, strict=True)
