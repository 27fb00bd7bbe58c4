"""Run an edit in one ffmpeg process, from the source to the finished file, if its filters support all of it.

Callers check first that the graph gives the same result as an edit frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal._ffmpeg.audio import Sound
from reel_modal._ffmpeg.encoders import EncoderChoice, choose_encoder
from reel_modal._ffmpeg.filters import (
    ON_BLACK,
    chroma_options,
    clock_arguments,
    from_yuv_filters,
    range_arguments,
    seconds_text,
    tag_filters,
)
from reel_modal._ffmpeg.frame_count import PROGRESS, EncodedFrames
from reel_modal._ffmpeg.frame_times import reports_broken_packet
from reel_modal._ffmpeg.muxing import finishing_arguments
from reel_modal._ffmpeg.pipe_result import PipeResult
from reel_modal._ffmpeg.process import QUIET, FFmpegProcess, output_size
from reel_modal.errors import OutputMismatchError
from reel_modal.media import MediaInfo, scan_packets
from reel_modal.media.frames import CHROMA_ORIGIN, ColorTags, frame_bytes, is_420
from reel_modal.media.headers import SEEK_MARGIN_SECONDS
from reel_modal.media.open import file_url, input_arguments
from reel_modal.schema import EncodeOptions, Timeline
from reel_modal.settings import Settings
from reel_modal.storage import publish_file, staging_name

__all__ = ["LEEWAY_SECONDS", "ROUNDED_FRAMES", "GraphEdit", "encode_graph", "suits", "time_expression"]

LEEWAY_SECONDS: Final = Fraction(1, 1000)
"""Reading begins this much before a frame, because ffmpeg rounds times."""

ROUNDED_FRAMES: Final = Fraction(1, 4)
"""Largest difference, in frames, between a timestamp and an even spacing that counts as rounding."""

# Makes a source frame that is due halfway between two output frames go to the later one, regardless of rounding.
_TIE_FRAMES: Final = 1e-4
_TICKS: Final = "settb=1/100000000"


@dataclass(frozen=True, slots=True)
class GraphEdit:
    """An edit that the graph performs.

    Attributes:
        media: The source, one that `suits`.
        timeline: Maps source time to output time.
        first_seconds: Source timestamp of the first frame that is shown.
        fps: Frame rate of the output.
        frame_count: Number of frames of the output.
        window: (left, top, width, height) of the crop of the upright frame, in whole pixels, even.
        size: (width, height) of the output, even.
        color: Color tags of the output.
    """

    media: MediaInfo
    timeline: Timeline
    first_seconds: Fraction
    fps: Fraction
    frame_count: int
    window: tuple[int, int, int, int]
    size: tuple[int, int]
    color: ColorTags


class _Progress(EncodedFrames):
    """Counts of finished frames and broken packets, parsed from ffmpeg's stderr."""

    def __init__(self) -> None:
        super().__init__()
        self.broken_packets: int = 0

    def take(self, line: str) -> str:
        """Process one line and return it if it is a message, else an empty string."""
        message = super().take(line)
        self.broken_packets += reports_broken_packet(message)
        return message


def encode_graph(
    edit: GraphEdit,
    output: Path,
    encode: EncodeOptions,
    *,
    sound: Sound | None,
    settings: Settings,
    advance: Callable[[int], None],
    metadata: Mapping[str, str] | None = None,
) -> tuple[PipeResult, int]:
    """Write `output` completely or not at all; return the result and the number of packets that could not be decoded.

    Args:
        edit: The edit to perform.
        output: The final path; its suffix selects the container.
        encode: Encoder, quality, preset and threads.
        sound: The audio of the output.
        settings: Which ffmpeg to use, the limits, and the stall timeout.
        advance: Called several times a second with the number of finished frames; it may raise an exception to stop.
        metadata: Tags of the file.

    Raises:
        EncoderUnavailableError: The encoder does not start on this machine.
        FFmpegError: ffmpeg failed; the error contains its last stderr lines.
        OutputMismatchError: The file has a different number of frames; it is deleted.
    """
    choice = _choose(edit, output, encode, settings, try_last=False)
    staged = staging_name(output)
    progress = _Progress()
    arguments = _arguments(edit, output, sound, choice, settings)
    # Decoding, filters and encoding use a fixed number of threads, independent of the cores of this machine.
    threads = ("-filter_complex_threads", str(encode.threads), "-threads", str(encode.threads))
    ending = finishing_arguments(output, metadata or {})
    command = (
        choice.ffmpeg.path,
        *QUIET,
        *PROGRESS,
        "-y",
        *("-max_error_rate", "1"),  # as for a `FrameReader`
        *threads,
        *arguments,
        *ending,
        file_url(staged),
    )
    process = FFmpegProcess(command, stall_seconds=settings.stall_seconds, sink=progress)

    def activity() -> int:
        advance(min(progress.encoded, edit.frame_count))
        return progress.encoded + output_size(staged)

    try:
        if process.finish(activity) != 0:
            if progress.encoded == 0:
                _choose(edit, output, encode, settings, try_last=True)  # raises if the encoder is the cause
            raise process.error("ffmpeg could not render the clip", frame_index=progress.encoded)
        size_bytes = _publish(edit, staged, output, process)
    finally:
        process.kill()
        staged.unlink(missing_ok=True)
    result = PipeResult(
        path=output,
        frames=edit.frame_count,
        size=edit.size,
        fps=edit.fps,
        duration_seconds=edit.frame_count / edit.fps,
        bytes=size_bytes,
        encoder=choice.name,
        ffmpeg=str(choice.ffmpeg),
        command=command,
        degraded=(*choice.passed_over, *(() if sound is None else sound.notes(output))),
    )
    return result, progress.broken_packets


def _publish(edit: GraphEdit, staged: Path, output: Path, process: FFmpegProcess) -> int:
    """Check the frame count of the finished file, move it to its final path, and return its size in bytes."""
    frames = scan_packets(staged).frame_count
    if frames != edit.frame_count:
        raise OutputMismatchError(
            f"{edit.frame_count} frames were requested but the file has {frames}; it is deleted."
            f" Last lines of ffmpeg's stderr: {process.tail or '(none)'}"
        )
    return publish_file(staged, output)


def _choose(
    edit: GraphEdit, output: Path, encode: EncodeOptions, settings: Settings, *, try_last: bool
) -> EncoderChoice:
    """Choose an encoder by a trial on one frame with the size and tags of the output."""
    width, height = edit.size
    raw = ("-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", f"{width}x{height}")
    rate = ("-framerate", f"{edit.fps.numerator}/{edit.fps.denominator}", "-i", "pipe:0")
    filters = ",".join(["format=yuv420p", *tag_filters(edit.color, Fraction(1))])
    return choose_encoder(
        settings,
        encode.encoder,
        suffix=output.suffix,
        before=(*raw, *rate, "-vf", filters, *range_arguments(edit.color)),
        first_frame=bytes(frame_bytes("yuv420p", edit.size)),
        quality=encode.quality,
        preset=encode.preset,
        threads=encode.threads,
        options=None,
        try_last=try_last,
    )


def _arguments(
    edit: GraphEdit, output: Path, sound: Sound | None, choice: EncoderChoice, settings: Settings
) -> tuple[str, ...]:
    """Return the command line between ffmpeg's global options and the output path."""
    container_start = edit.media.container_start_seconds
    read_from = max(container_start, edit.first_seconds - SEEK_MARGIN_SECONDS)
    graph = _graph(edit, origin=edit.media.start_seconds - read_from)
    arguments = ["-noautorotate", *clock_arguments(read_from, first_seconds=container_start)]
    arguments += () if edit.media.contents.alpha_decoder is None else ("-c:v", edit.media.contents.alpha_decoder)
    arguments += input_arguments(edit.media.path, settings.limits)
    if sound is not None:
        arguments += sound.input_arguments(edit.frame_count / edit.fps)
    source = f"[0:{edit.media.stream_index}]"
    # ffmpeg before 6.0 copies the display matrix to the upright output, unless the graph has a second input.
    arguments += ["-filter_complex", f"{source}{','.join(graph)}[picture];{source}nullsink"]
    arguments += ["-map", "[picture]", *range_arguments(edit.color), *choice.arguments]
    if sound is not None:
        arguments += sound.output_arguments(output, edit.frame_count / edit.fps)
    return (*arguments, "-map_metadata", "-1", "-map_chapters", "-1")


def _graph(edit: GraphEdit, origin: Fraction) -> list[str]:
    """Return the filters from the decoded frame to the encoder.

    Args:
        edit: The edit to perform.
        origin: The time that ffmpeg gives to the first frame of the source.
    """
    line, media, (left, top, width, height) = edit.timeline, edit.media, edit.window
    bounds = [f"start={seconds_text(origin + edit.first_seconds - media.start_seconds - LEEWAY_SECONDS)}"]
    if line.source_end is not None:
        bounds.append(f"end={seconds_text(origin + line.source_end)}")
    moved = [f"trim={':'.join(bounds)}", _TICKS, f"setpts='{time_expression(edit, origin)}'"]
    # eof_action=pass rounds the end up, so that the last source frame is shown, however short it is.
    frames = [f"fps=fps={edit.fps.numerator}/{edit.fps.denominator}:start_time=0:round=near:eof_action=pass"]
    # The graph applies the orientation, so its metadata is deleted; otherwise players would apply it again.
    picture = [*media.orientation.filters(), "sidedata=mode=delete:type=DISPLAYMATRIX"]
    picture += [ON_BLACK] if media.contents.alpha else []
    if (left, top, width, height) != (0, 0, *media.size):
        picture.append(f"crop={width}:{height}:{left}:{top}:exact=1")
    chroma_origin = media.chroma_origin if is_420(media.pixel_format) else None
    chroma = chroma_options(chroma_origin, CHROMA_ORIGIN["left"])
    picture += from_yuv_filters("yuv420p", media.color, edit.size, media.size[1], chroma=chroma)
    # Resize either the source frames or the output frames, whichever are fewer.
    slowed = line.source_end is not None and edit.frame_count > (line.source_end - line.source_start) * media.fps
    converted = [*picture, *frames] if slowed else [*frames, *picture]
    # Repeat the last frame until the frame count is reached. ffmpeg's own frame limit would cut the audio too.
    end = ["tpad=stop=-1:stop_mode=clone", f"trim=end_frame={edit.frame_count}"]
    return [*moved, *converted, *tag_filters(edit.color, Fraction(1)), *end]


def time_expression(edit: GraphEdit, origin: Fraction) -> str:
    """Return ffmpeg's expression for the output time of a frame, in ticks.

    Args:
        edit: The edit to perform.
        origin: The time that ffmpeg gives to the first frame of the source.
    """
    # Restores the exact times of evenly spaced frames, which the container has rounded.
    rate = float(edit.media.fps)
    nearest = "floor(ld(1)+0.5)"
    pieces = list(edit.timeline.pieces)
    mapped = ""
    for piece in reversed(pieces):
        moment = f"{float(piece.output_start)!r}+(ld(0)-{float(piece.source_start)!r})/{float(piece.speed)!r}"
        end = None if piece is pieces[-1] else piece.source_end
        mapped = moment if end is None else f"if(lt(ld(0),{float(end)!r}),{moment},{mapped})"
    source = f"if(lt(abs(ld(1)-{nearest}),{float(ROUNDED_FRAMES)!r}),{nearest},ld(1))/{rate!r}"
    take = f"st(1,(T-{float(origin)!r})*{rate!r})*0+st(0,{source})*0"
    return f"({take}+{mapped}+{float(_TIE_FRAMES / edit.fps)!r})/TB"


def suits(media: MediaInfo, *, scaled: bool) -> bool:
    """Return whether the graph can perform the whole edit.

    ffmpeg's timestamps are only reliable for some files: if a stream's timestamps jump, ffmpeg guesses, and with
    uneven frames the first frame may have none. Its scaler leaves chroma unchanged unless it scales, but a rotated
    frame has another chroma location. Deinterlaced videos use the frame-by-frame path.

    Args:
        media: The source.
        scaled: Whether the crop changes its size.
    """
    steady = media.has_index and media.constant_rate and media.deinterlace is None
    return steady and (scaled or media.chroma_origin == CHROMA_ORIGIN["left"])
