"""A whole edit in one ffmpeg, from the source to the finished file, where its filters can do all of it.

It must not know why; whoever calls has made sure that the graph does the same as frames would.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal.config import Settings
from reel_modal.errors import OutputMismatchError
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.frames import CHROMA_ORIGIN, ColorTags, frame_bytes, is_420
from reel_modal.media import MediaInfo, scan_packets
from reel_modal.media.encoders import EncoderChoice, choose_encoder
from reel_modal.media.ffmpeg_process import QUIET, FFmpegProcess, output_size
from reel_modal.media.filters import (
    ON_BLACK,
    chroma_options,
    clock_arguments,
    from_yuv_filters,
    range_arguments,
    seconds_text,
    tag_filters,
)
from reel_modal.media.frame_times import reports_broken_packet
from reel_modal.media.headers import SEEK_MARGIN_SECONDS
from reel_modal.media.muxing import finishing_arguments
from reel_modal.media.sound import Sound
from reel_modal.media.untrusted import file_url, input_arguments
from reel_modal.schema import EncodeOptions, Timeline
from reel_modal.storage import publish_file, staging_name

__all__ = ["LEEWAY_SECONDS", "ROUNDED_FRAMES", "GraphEdit", "encode_graph", "suits", "time_expression"]

LEEWAY_SECONDS: Final = Fraction(1, 1000)
"""By how much earlier than a picture reading begins, since ffmpeg rounds times."""

ROUNDED_FRAMES: Final = Fraction(1, 4)
"""How far a time may be from that of an evenly spaced picture, in frames, and be taken for its rounding."""

# Pictures that are due halfway between two frames go to the later one; this keeps rounding from deciding.
_TIE_FRAMES: Final = 1e-4
_TICKS: Final = "settb=1/100000000"


@dataclass(frozen=True, slots=True)
class GraphEdit:
    """What the graph does.

    Attributes:
        media: The source, one that `suits`.
        timeline: Its moments in the output.
        first_seconds: Time of the first picture that is seen, on the source's own clock.
        fps: Of the output.
        frame_count: Of the output.
        window: (left, top, width, height) of the part of the upright picture that is kept, in whole pixels, even.
        size: (width, height) of the output, even.
        color: Tags of the output.
    """

    media: MediaInfo
    timeline: Timeline
    first_seconds: Fraction
    fps: Fraction
    frame_count: int
    window: tuple[int, int, int, int]
    size: tuple[int, int]
    color: ColorTags


class _Progress:
    """Takes the frames done and the broken packets out of ffmpeg's stderr."""

    _KEY = re.compile(r"(?P<key>[a-z][a-z0-9_]*)=\s*(?P<value>\S*)$")

    def __init__(self) -> None:
        self.frames: int = 0
        self.broken_packets: int = 0

    def take(self, line: str) -> str:
        """Take one line and return what of it is a message."""
        if match := self._KEY.match(line):
            if match["key"] == "frame" and match["value"].isdecimal():
                self.frames = int(match["value"])
            return ""
        self.broken_packets += reports_broken_packet(line)
        return line

    def end(self) -> None:
        """Note that no more lines come."""


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
    """Make `output` whole, or not at all; return what was made and how many packets could not be decoded.

    Args:
        edit: What is done.
        output: The final name; its suffix chooses the container.
        encode: Encoder, quality, preset and threads.
        sound: What goes along.
        settings: Which ffmpeg, limits, and how long it may stall.
        advance: Called some times a second with the frames done; may raise to stop.
        metadata: Tags of the file.

    Raises:
        EncoderUnavailableError: The encoder does not start here.
        FFmpegError: ffmpeg failed; with its last words.
        OutputMismatchError: The file has another count of frames; nothing is kept.
    """
    choice = _choose(edit, output, encode, settings, try_last=False)
    staged = staging_name(output)
    progress = _Progress()
    arguments = _arguments(edit, output, sound, choice, settings)
    # One number for decoding, filters and encoding, so that no step follows the cores of this machine.
    threads = ("-filter_complex_threads", str(encode.threads), "-threads", str(encode.threads))
    ending = finishing_arguments(output, metadata or {})
    command = (
        choice.ffmpeg.path,
        *QUIET,
        "-progress",
        "pipe:2",
        "-y",
        *("-max_error_rate", "1"),  # as for a `FrameReader`
        *threads,
        *arguments,
        *ending,
        file_url(staged),
    )
    process = FFmpegProcess(command, stall_seconds=settings.stall_seconds, sink=progress)

    def grows() -> int:
        advance(min(progress.frames, edit.frame_count))
        return progress.frames + output_size(staged)

    try:
        if process.finish(grows) != 0:
            if progress.frames == 0:
                _choose(edit, output, encode, settings, try_last=True)  # raises where the encoder is to blame
            raise process.error("ffmpeg could not make the clip", frame_index=progress.frames)
        size_bytes = _publish(edit, staged, output, process)
    finally:
        process.kill()
        staged.unlink(missing_ok=True)
    made = PipeResult(
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
    return made, progress.broken_packets


def _publish(edit: GraphEdit, staged: Path, output: Path, process: FFmpegProcess) -> int:
    """Count the frames in the finished file, give it its name, and return its bytes."""
    frames = scan_packets(staged).frame_count
    if frames != edit.frame_count:
        raise OutputMismatchError(
            f"{edit.frame_count} frames were to be made but {frames} are in the file; nothing is kept."
            f" ffmpeg's last words: {process.tail or '(none)'}"
        )
    return publish_file(staged, output)


def _choose(
    edit: GraphEdit, output: Path, encode: EncodeOptions, settings: Settings, *, try_last: bool
) -> EncoderChoice:
    """Try encoders on one frame of the output's size and tags."""
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
    """Return the command line between ffmpeg's own options and the name of the output."""
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
    """Return the filters from the decoded picture to the encoder.

    Args:
        edit: What is done.
        origin: The time that ffmpeg gives to the first picture of the source.
    """
    line, media, (left, top, width, height) = edit.timeline, edit.media, edit.window
    bounds = [f"start={seconds_text(origin + edit.first_seconds - media.start_seconds - LEEWAY_SECONDS)}"]
    if line.source_end is not None:
        bounds.append(f"end={seconds_text(origin + line.source_end)}")
    moved = [f"trim={':'.join(bounds)}", _TICKS, f"setpts='{time_expression(edit, origin)}'"]
    # A last picture that begins in a frame is the last that it shows, however little of that is left.
    frames = [f"fps=fps={edit.fps.numerator}/{edit.fps.denominator}:start_time=0:round=near:eof_action=pass"]
    # Whatever turns the picture is done here; players would do it again.
    picture = [*media.orientation.filters(), "sidedata=mode=delete:type=DISPLAYMATRIX"]
    picture += [ON_BLACK] if media.contents.alpha else []
    if (left, top, width, height) != (0, 0, *media.size):
        picture.append(f"crop={width}:{height}:{left}:{top}:exact=1")
    place = media.chroma_origin if is_420(media.pixel_format) else None
    chroma = chroma_options(place, CHROMA_ORIGIN["left"])
    picture += from_yuv_filters("yuv420p", media.color, edit.size, media.size[1], chroma=chroma)
    # Whichever there are fewer of, pictures of the source or frames of the output, are resized.
    slowed = line.source_end is not None and edit.frame_count > (line.source_end - line.source_start) * media.fps
    done = [*picture, *frames] if slowed else [*frames, *picture]
    # The last picture stays until every frame is there. ffmpeg's own limit of frames would cut the sound as well.
    end = ["tpad=stop=-1:stop_mode=clone", f"trim=end_frame={edit.frame_count}"]
    return [*moved, *done, *tag_filters(edit.color, Fraction(1)), *end]


def time_expression(edit: GraphEdit, origin: Fraction) -> str:
    """Return ffmpeg's expression of the output time of a picture, in ticks.

    Args:
        edit: What is done.
        origin: The time that ffmpeg gives to the first picture of the source.
    """
    # The exact times of evenly spaced pictures, whatever the container has rounded.
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
    """Whether the graph can do all of it.

    ffmpeg's own clock can be trusted on some files alone: a stream's may jump, and then it guesses. Where pictures
    come unevenly it may have none for the first frame. And its scaler leaves chroma where it is, though a turned
    picture has it elsewhere, unless it has to scale. Pictures are made of fields where frames are read.

    Args:
        media: The source.
        scaled: Whether the part that is kept changes its size.
    """
    steady = media.has_index and media.constant_rate and media.deinterlace is None
    return steady and (scaled or media.chroma_origin == CHROMA_ORIGIN["left"])
