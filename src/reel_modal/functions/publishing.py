"""What every render function does with its output: open it as asked, look at what was made, and only then publish.

It must not know what was drawn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal.errors import MediaError, OutputMismatchError
from reel_modal.ffmpeg_pipe import FramePipe, PipeResult
from reel_modal.frames import ColorTags, PixelFormat
from reel_modal.functions.context import JobContext
from reel_modal.media import MediaInfo, probe, scan_packets
from reel_modal.media.extras import Extras, kept_tags
from reel_modal.media.hdr import HdrMetadata
from reel_modal.media.sound import Sound
from reel_modal.media.timestamps import choose_rate, same_rate
from reel_modal.schema import Degradation, RenderResult
from reel_modal.schema.requests import Request
from reel_modal.storage import publish_file, staging_name

__all__ = [
    "VerifiedFile",
    "output_path",
    "output_pipe",
    "publish_result",
    "result_of",
    "tags_for",
    "verified",
    "with_extras",
]


_COPIED: Final = "copy"
_HDR_BITS: Final = 10


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """A finished file that was looked at: `verified` makes these, and nothing else is published.

    Attributes:
        made: The file, which is what it claims to be.
        media: What a look at it has found.
    """

    made: PipeResult
    media: MediaInfo


def output_path(request: Request, context: JobContext) -> Path:
    """Return where the output is made: in the job's folder, in the container that the key names."""
    return context.workdir / f"output{Path(request.output_key).suffix}"


def output_pipe(
    request: Request,
    context: JobContext,
    *,
    size: tuple[int, int],
    fps: Fraction,
    source: MediaInfo,
    sound: MediaInfo | Sound | None,
    expected_frames: int | None,
    color: ColorTags,
    hdr: HdrMetadata | None,
    sample_aspect_ratio: Fraction = Fraction(1),
    pixel_format: PixelFormat = "yuv420p",
) -> FramePipe:
    """Return the pipe that encodes the output as `request` asks.

    Args:
        request: Says container, encoder, quality and preset.
        context: Of the job, with the tags of the output.
        size: (width, height) of the frames in pixels.
        fps: Frames a second.
        source: Whose tags the output has.
        sound: What goes along; of a source all of its sound.
        expected_frames: How many there will probably be.
        color: Tags of the frames.
        hdr: What the source says of its light.
        sample_aspect_ratio: Width / height of one pixel.
        pixel_format: Of the frames.
    """
    return FramePipe(
        output_path(request, context),
        size=size,
        fps=fps,
        pixel_format=pixel_format,
        encoder=request.encode.encoder,
        quality=request.encode.quality,
        preset=request.encode.preset,
        threads=request.encode.threads,
        audio_from=sound,
        expected_frames=expected_frames,
        color=color,
        hdr=hdr,
        sample_aspect_ratio=sample_aspect_ratio,
        metadata=tags_for(source, request, context),
        settings=context.settings,
    )


def tags_for(source: MediaInfo, request: Request, context: JobContext) -> dict[str, str]:
    """Return the tags of the output: those of the source that are kept, and those of the job."""
    return {**kept_tags(source, request.encode.metadata), **context.output_tags}


def with_extras(made: PipeResult, extras: Extras, request: Request, context: JobContext, function: str) -> PipeResult:
    """Put what goes along with picture and sound into the finished file.

    If that fails, the file stays as it is; a comparison with the source then names what it lacks.

    Args:
        made: The file.
        extras: What goes along.
        request: What was asked for.
        context: Of the job.
        function: Who asks, for the message of a cancellation.

    Cancellation:
        Raises JobCancelledError between two packets.
    """
    if made.fps != extras.media.stored_fps:
        extras = replace(extras, timecode=None)  # it counts by the frame rate
    if extras.empty:
        return made
    staged = staging_name(made.path)
    tags = tags_for(extras.media, request, context)
    try:
        extras.add_to(made.path, staged, tags, context.settings, lambda: context.raise_if_cancelled(function))
        return replace(made, bytes=publish_file(staged, made.path))
    except MediaError as error:
        _log.warning("%s: subtitles, data, chapters and the timecode are left out: %s", made.path.name, error)
        return made
    finally:
        staged.unlink(missing_ok=True)


def result_of(
    made: PipeResult, request: Request, *, function: str, engine: str, degraded: Iterable[Degradation] = ()
) -> RenderResult:
    """Return what is known of the result once its file is made.

    Args:
        made: The finished file.
        request: What was asked for.
        function: The function's name.
        engine: What did the per-frame work.
        degraded: What is not as asked, besides what the file itself says.
    """
    return RenderResult(
        job_id=request.job_id,
        function=function,
        output_key=request.output_key,
        stored_key=request.output_key,
        frames=made.frames,
        size=made.size,
        fps=made.fps,
        duration_seconds=made.duration_seconds,
        bytes=made.bytes,
        engine=engine,
        encoder=made.encoder,
        seconds_by_phase={},
        degraded=(*degraded, *made.degraded),
    )


def publish_result(
    result: RenderResult,
    file: VerifiedFile,
    request: Request,
    context: JobContext,
    *,
    model: str | None = None,
    decoder_ffmpeg: str = "",
) -> RenderResult:
    """Publish `file`, and return the result with its receipt.

    Args:
        result: What is known of it.
        file: The finished file.
        request: What was asked for.
        context: Of the job.
        model: The network that made pixels.
        decoder_ffmpeg: The ffmpeg that decoded on a GPU.

    Raises:
        StorageError: It could not be put in place.
    """

    def measured() -> RenderResult:
        usage = replace(context.usage(model), ffmpeg=file.made.ffmpeg, decoder_ffmpeg=decoder_ffmpeg)
        return replace(result, seconds_by_phase=dict(context.reporter.seconds_by_phase), usage=usage)

    with context.reporter.phase("publish"):
        context.announce(measured(), file.made.path)
        refuse = request.store.existing == "refuse"
        context.storage.publish(
            file.made.path, context.places_of(request)[1], existing="refuse" if refuse else "replace"
        )
    return measured()


def verified(made: PipeResult, context: JobContext, function: str) -> VerifiedFile:
    """Look at the file that `made` tells of.

    Args:
        made: What was made.
        context: Of the job.
        function: Who asks, for the message of a cancellation.

    Raises:
        OutputMismatchError: Frames, size, rate or length differ.
        InvalidMediaError: It cannot be read.

    Cancellation:
        Raises JobCancelledError between two packets, and at the end: what is cancelled meanwhile is not published.
    """

    def check() -> None:
        context.raise_if_cancelled(function)

    with context.reporter.phase("verify"):
        found = probe(made.path, settings=context.settings)
        scan = scan_packets(made.path, start_seconds=found.start_seconds, check=check)
        _expect("frames", made.frames, scan.frame_count)
        _expect("size", made.size, found.size)
        if found.color.is_hdr and made.encoder != _COPIED:
            _expect("count of bits a sample, in HDR", max(found.bit_depth, _HDR_BITS), found.bit_depth)
        # Rounded times of a few frames may stand for several rates.
        if made.constant_rate and not same_rate(made.fps, choose_rate(scan.times, [made.fps])):
            _expect("frame rate", made.fps, found.fps)
        # Headers of MP4 count by decoding times, which is another length if pictures come unevenly.
        seconds = found.duration_seconds if made.constant_rate else scan.times.stated_seconds
        if seconds is not None and abs(seconds - made.duration_seconds) > 1 / made.fps:
            _expect("seconds", float(made.duration_seconds), float(seconds))
    check()
    return VerifiedFile(
        made if made.constant_rate else replace(made, duration_seconds=scan.times.stated_seconds), found
    )


def _expect(what: str, asked: object, found: object) -> None:
    if asked != found:
        raise OutputMismatchError(f"the output has another {what} than was asked for: {found}, not {asked}")
