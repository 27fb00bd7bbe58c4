"""Open, verify and publish the output of any render function; an unverified file is never published."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal._ffmpeg.audio import Sound
from reel_modal._ffmpeg.extra_streams import Extras, kept_tags
from reel_modal.errors import MediaError, OutputMismatchError
from reel_modal.ffmpeg_pipe import FramePipe, PipeResult
from reel_modal.functions.context import JobContext
from reel_modal.media import MediaInfo, probe, scan_packets
from reel_modal.media.frames import ColorTags, PixelFormat
from reel_modal.media.hdr import HdrMetadata
from reel_modal.media.timestamps import choose_rate, same_rate
from reel_modal.schema import Degradation, RenderResult, Usage
from reel_modal.schema.requests import VideoRequest
from reel_modal.storage import publish_file, staging_name

__all__ = [
    "VerifiedFile",
    "output_path",
    "output_pipe",
    "publish_video",
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
    """A finished and verified file; only `verified` creates these, and only these are published.

    Attributes:
        written: The file, with its verified properties.
        media: Probe result of the file.
    """

    written: PipeResult
    media: MediaInfo


def output_path(request: VideoRequest, context: JobContext) -> Path:
    """Return the path of the output in the job's folder, with the suffix of the output key."""
    return context.workdir / f"output{Path(request.output_key).suffix}"


def output_pipe(
    request: VideoRequest,
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
    """Return the pipe that encodes the output with the options of `request`.

    Args:
        request: The request, with container, encoder, quality and preset.
        context: Context of the job, with the tags of the output.
        size: (width, height) of the frames in pixels.
        fps: Frames per second.
        source: The clip whose tags are kept.
        sound: The audio to add; of a clip, all its audio streams.
        expected_frames: Estimated number of frames.
        color: Colour tags of the frames.
        hdr: Mastering display and light levels of the source.
        sample_aspect_ratio: Width / height of one pixel.
        pixel_format: Pixel format of the frames.
    """
    encoder = request.encode.encoder
    pipe = FramePipe(
        output_path(request, context),
        size=size,
        fps=fps,
        pixel_format=pixel_format,
        encoder="libx264" if encoder == "auto" and context.only_segments else encoder,
        quality=request.encode.quality,
        preset=request.encode.preset,
        threads=request.encode.threads,
        audio_from=sound if isinstance(sound, MediaInfo) else None,
        expected_frames=expected_frames,
        color=color,
        hdr=hdr,
        sample_aspect_ratio=sample_aspect_ratio,
        metadata=tags_for(source, request, context),
        settings=context.settings,
    )
    if not isinstance(sound, MediaInfo):
        pipe.use_sound(sound)
    return pipe


def tags_for(source: MediaInfo, request: VideoRequest, context: JobContext) -> dict[str, str]:
    """Return the tags of the output: the kept tags of the source, and those of the job."""
    return {**kept_tags(source, request.encode.metadata), **context.output_tags}


def with_extras(written: PipeResult, extras: Extras, request: VideoRequest, context: JobContext) -> PipeResult:
    """Add subtitles, data streams, chapters and the timecode to the finished file.

    If that fails, the file stays unchanged; a comparison with the source then reports the losses.

    Args:
        written: The file.
        extras: The streams, chapters and timecode to add.
        request: The request.
        context: Context of the job.

    Cancellation:
        Raises JobCancelledError between two packets.
    """
    if written.fps != extras.media.stored_fps:
        extras = replace(extras, timecode=None)  # a timecode is tied to the frame rate
    if extras.empty:
        return written
    staged = staging_name(written.path)
    tags = tags_for(extras.media, request, context)
    try:
        extras.add_to(written.path, staged, tags, context.settings, context.raise_if_cancelled)
        return replace(written, bytes=publish_file(staged, written.path))
    except MediaError as error:
        _log.warning("%s: subtitles, data, chapters and the timecode are left out: %s", written.path.name, error)
        return written
    finally:
        staged.unlink(missing_ok=True)


def result_of(
    written: PipeResult, request: VideoRequest, *, function: str, engine: str, degraded: Iterable[Degradation] = ()
) -> RenderResult:
    """Return the result for a finished file; the process that runs the function adds the durations and the usage.

    Args:
        written: The finished file.
        request: The request.
        function: The function's name.
        engine: Name of the engine that made the frames.
        degraded: Deviations from the request, besides those in `written`.
    """
    return RenderResult(
        job_id=request.job_id,
        function=function,
        output_key=request.output_key,
        stored_key=request.output_key,
        frames=written.frames,
        size=written.size,
        fps=written.fps,
        duration_seconds=written.duration_seconds,
        bytes=written.bytes,
        engine=engine,
        encoder=written.encoder,
        seconds_by_phase={},
        degraded=(*degraded, *written.degraded),
    )


def publish_video(
    result: RenderResult,
    file: VerifiedFile,
    request: VideoRequest,
    context: JobContext,
    *,
    model: str | None = None,
    decoder_ffmpeg: str = "",
) -> RenderResult:
    """Publish `file` at the end of the job, and return the result with the names of the programs that made it.

    Args:
        result: The result so far.
        file: The finished file.
        request: The request.
        context: Context of the job.
        model: Name of the network that was run.
        decoder_ffmpeg: The ffmpeg that decoded on a GPU.
    """
    context.publish(file.written.path, request.output_key)
    return replace(result, usage=Usage(model=model, ffmpeg=file.written.ffmpeg, decoder_ffmpeg=decoder_ffmpeg))


def verified(written: PipeResult, context: JobContext) -> VerifiedFile:
    """Check that the finished file has the properties that `written` states.

    Args:
        written: The finished file.
        context: Context of the job.

    Raises:
        OutputMismatchError: Frame count, size, HDR bit depth, rate or duration differ.
        InvalidMediaError: The file cannot be read.

    Cancellation:
        Raises JobCancelledError between two packets and at the end, so that a cancelled job is not published.
    """
    with context.reporter.phase("verify"):
        media = probe(written.path, settings=context.settings)
        scan = scan_packets(written.path, start_seconds=media.start_seconds, check=context.raise_if_cancelled)
        _expect("frame count", written.frames, scan.frame_count)
        _expect("size", written.size, media.size)
        if media.color.is_hdr and written.encoder != _COPIED:
            _expect("HDR bit depth", max(media.bit_depth, _HDR_BITS), media.bit_depth)
        # The rounded timestamps of a few frames may match several rates.
        if written.constant_rate and not same_rate(written.fps, choose_rate(scan.times, [written.fps])):
            _expect("frame rate", written.fps, media.fps)
        # MP4 headers sum up decoding times, which gives another duration if frames are unevenly spaced.
        seconds = media.duration_seconds if written.constant_rate else scan.times.stated_seconds
        if seconds is not None and abs(seconds - written.duration_seconds) > 1 / written.fps:
            _expect("duration in seconds", float(written.duration_seconds), float(seconds))
    context.raise_if_cancelled()
    return VerifiedFile(
        written if written.constant_rate else replace(written, duration_seconds=scan.times.stated_seconds), media
    )


def _expect(name: str, expected: object, actual: object) -> None:
    if expected != actual:
        raise OutputMismatchError(f"the {name} of the output is {actual}; it must be {expected}")
