"""What a video file is, and which ffmpeg reads it: found by looking, with limits for untrusted input.

It must not decode more than one frame, and must not write anything.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reel_modal.config import Settings
from reel_modal.errors import FFmpegNotFoundError, InvalidMediaError
from reel_modal.frames import ColorTags
from reel_modal.orientation import Orientation
from reel_modal.timestamps import PacketTimes, choose_rate

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = [
    "FORMAT_WHITELIST",
    "PROTOCOL_WHITELIST",
    "AudioStream",
    "FFmpeg",
    "MediaInfo",
    "MediaScan",
    "file_url",
    "find_ffmpeg",
    "input_arguments",
    "probe",
    "scan_packets",
]

PROTOCOL_WHITELIST: Final = "file,pipe"
"""What ffmpeg may open: nothing of a network."""

FORMAT_WHITELIST: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,mxf,gif,nut,h264,hevc,ivf,yuv4mpegpipe"
)
"""Containers that hold a picture. Playlists and scripts (hls, concat, dash, image2) name other files: never."""

_VERSION_SECONDS: Final = 30.0
_NEWEST: Final = (999,)
# Enough to see a rhythm; a rate that changes later shows in a scan.
_LOOK_PACKETS: Final = 120
_FIRST_FRAME_PACKETS: Final = 60
_MATRICES: Final = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc", 10: "bt2020c"}
_PRIMARIES: Final = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
}
_TRANSFERS: Final = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}


@dataclass(frozen=True, slots=True)
class FFmpeg:
    """An ffmpeg that runs.

    Attributes:
        path: Of the binary.
        version: Such as `(7, 0, 2)`; a build without a number counts as newer than all.
        version_text: As it says itself.
        origin: `settings`, `PATH` or `imageio-ffmpeg`.
    """

    path: str
    version: tuple[int, ...]
    version_text: str
    origin: str


@dataclass(frozen=True, slots=True)
class AudioStream:
    """One audio stream, by its header. Times in seconds on the file's clock."""

    index: int
    codec: str
    sample_rate_hz: int
    channels: int
    start_seconds: Fraction
    duration_seconds: Fraction | None
    language: str | None


@dataclass(frozen=True, slots=True)
class MediaScan:
    """What the packets of the picture say, all of them.

    Attributes:
        frame_count: Packets that are shown, edit lists honored.
        duration_seconds: From the first picture to the end of the last.
        fps: The rate by the whole file.
        constant_rate: Whether they are evenly spaced, all through.
    """

    frame_count: int
    duration_seconds: Fraction
    fps: Fraction
    constant_rate: bool


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a video file is; sizes are (width, height) in pixels, times are seconds on the file's clock.

    Attributes:
        path: The file.
        format: ffmpeg's name of the container, such as `mov,mp4,m4a,3gp,3g2,mj2`.
        stream_index: The video stream that is the picture; cover art and second tracks are not.
        codec: ffmpeg's name of its codec.
        coded_size: As stored.
        size: Upright: after rotation, before the sample aspect ratio. Frames are read in this size.
        display_size: As a player shows it: upright, with square pixels.
        sample_aspect_ratio: Width / height of one upright pixel.
        orientation: What makes stored frames upright.
        fps: Exact frame rate, checked against the first timestamps: headers lie.
        constant_rate: Whether the frames that were looked at are evenly spaced.
        pixel_format: ffmpeg's name.
        bit_depth: Bits of a sample.
        color: Tags of the stream.
        start_seconds: Time of the first picture.
        container_start_seconds: Earliest time of any stream, which ffmpeg's seeks count from.
        duration_seconds: Of the picture, by the headers; None where they do not say.
        frame_count_header: The container's claim; None where there is none that can be true.
        audio: The audio streams.
        scan: What the packets say; None unless it was asked for.
    """

    path: Path
    format: str
    stream_index: int
    codec: str
    coded_size: tuple[int, int]
    size: tuple[int, int]
    display_size: tuple[int, int]
    sample_aspect_ratio: Fraction
    orientation: Orientation
    fps: Fraction
    constant_rate: bool
    pixel_format: str
    bit_depth: int
    color: ColorTags
    start_seconds: Fraction
    container_start_seconds: Fraction
    duration_seconds: Fraction | None
    frame_count_header: int | None
    audio: tuple[AudioStream, ...]
    scan: MediaScan | None = None

    @property
    def expected_frames(self) -> int | None:
        """Frames at the constant rate `fps`, as far as the headers let us know."""
        if self.scan is not None:
            return round(self.scan.duration_seconds * self.fps)
        return None if self.duration_seconds is None else max(1, round(self.duration_seconds * self.fps))

    def to_dict(self) -> dict[str, object]:
        """Return the same for JSON: fractions as `n/d` text, sizes as lists."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def find_ffmpeg(settings: Settings | None = None) -> FFmpeg:
    """Return the ffmpeg to use: the one in the settings, else on PATH, else imageio-ffmpeg's.

    Args:
        settings: `settings.ffmpeg` names one; default: from the environment, `REEL_MODAL_FFMPEG`.

    Raises:
        FFmpegNotFoundError: There is none, or it does not run; the message names the cure.
    """
    settings = settings or Settings.from_env()
    if settings.ffmpeg is not None:
        path, origin = shutil.which(settings.ffmpeg) or settings.ffmpeg, "settings"
    elif (found := shutil.which("ffmpeg")) is not None:
        path, origin = found, "PATH"
    else:
        path, origin = _bundled_ffmpeg(), "imageio-ffmpeg"
    try:
        changed = Path(path).stat().st_mtime_ns
    except OSError as error:
        raise FFmpegNotFoundError(
            f"there is no ffmpeg at {path!r} (from {origin}); correct REEL_MODAL_FFMPEG, or unset it to use"
            " the one on PATH or in the package imageio-ffmpeg"
        ) from error
    version, text = _ffmpeg_version(path, changed)
    return FFmpeg(path, version, text, origin)


def file_url(path: Path) -> str:
    """Return `path` as ffmpeg reads it: always a file, whatever its name begins with or contains."""
    return f"file:{path}"


def input_arguments(path: Path) -> tuple[str, ...]:
    """Return the options that make ffmpeg read the untrusted file `path` and nothing else."""
    return (
        *("-protocol_whitelist", PROTOCOL_WHITELIST),
        *("-format_whitelist", FORMAT_WHITELIST),
        *("-i", file_url(path)),
    )


def probe(path: str | Path, *, settings: Settings | None = None, scan: bool = False) -> MediaInfo:
    """Say what the video `path` is, by its headers, its first timestamps and one decoded frame.

    Args:
        path: The file.
        settings: Its limits say what is refused.
        scan: Look at every packet as well: exact counts, for the price of reading the whole file.

    Raises:
        InvalidMediaError: It is no video that we accept: missing, unreadable, without a picture, beyond the
            limits, or in a format that can name other files.

    Example:
        >>> probe("clip.mp4").fps
        Fraction(30000, 1001)
    """
    path = Path(path)
    settings = settings or Settings.from_env()
    with _opened(path) as container:
        stream = _picture(container, path)
        _check_limits(stream, container, path, settings)
        look = PacketTimes.of(container.demux(stream), stream.time_base, first=_LOOK_PACKETS)
    with _opened(path) as container:
        stream = _picture(container, path)
        info = _info(path, container, stream, _first_frame(container, stream, path), look)
    if not scan:
        return info
    values = {field.name: getattr(info, field.name) for field in fields(info)}
    return MediaInfo(**(values | {"scan": scan_packets(path)}))


def scan_packets(path: Path) -> MediaScan:
    """Read every packet of the picture, without decoding, and say what they say.

    Raises:
        InvalidMediaError: The file cannot be read, or has no picture.
    """
    with _opened(path) as container:
        stream = _picture(container, path)
        times = PacketTimes.of(container.demux(stream), stream.time_base)
        rate = choose_rate(times, (stream.guessed_rate, stream.average_rate, stream.base_rate))
    return MediaScan(times.count, times.span_seconds(rate), rate, times.evenly_spaced)


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    """Open `path` as a file of a known format; whatever libav says about it becomes an InvalidMediaError."""
    import av

    options = {"protocol_whitelist": PROTOCOL_WHITELIST, "format_whitelist": FORMAT_WHITELIST}
    try:
        with av.open(file_url(path), container_options=options, metadata_errors="replace") as container:
            yield container
    except FileNotFoundError as error:
        raise InvalidMediaError(f"there is no file {str(path)!r}") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InvalidMediaError(f"{str(path)!r} cannot be read as a video: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _picture(container: InputContainer, path: Path) -> VideoStream:
    """Return the stream that is the picture."""
    from av.stream import Disposition

    candidates = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not candidates:
        raise InvalidMediaError(f"{str(path)!r} has no picture: no video stream that is more than cover art")
    best = container.streams.best("video")
    return next((s for s in candidates if best is not None and s.index == best.index), candidates[0])


def _check_limits(stream: VideoStream, container: InputContainer, path: Path, settings: Settings) -> None:
    limits = settings.limits
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1:
        raise InvalidMediaError(f"{str(path)!r} declares no size of its picture that can be decoded")
    if width > limits.max_width_px or height > limits.max_height_px or width * height > limits.max_frame_pixels:
        raise InvalidMediaError(
            f"{str(path)!r} declares {width}x{height} pixels; at most {limits.max_width_px}x{limits.max_height_px}"
            f" and {limits.max_frame_pixels} in all are accepted (Settings.limits)"
        )
    seconds = (container.duration or 0) / 1_000_000
    if seconds > limits.max_duration_seconds:
        raise InvalidMediaError(
            f"{str(path)!r} declares {seconds:.0f} s; at most {limits.max_duration_seconds:.0f} s are accepted"
            " (Settings.limits)"
        )


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    """Decode one frame: only frames carry the display matrix."""
    import av

    stream.thread_type = "SLICE"  # frame threads would wait for more packets than one frame needs
    for packet in islice(container.demux(stream), _FIRST_FRAME_PACKETS):
        try:
            for frame in packet.decode():
                return frame
        except av.FFmpegError:
            continue  # a broken packet at the start is common in cuts of live streams; the next may do
    raise InvalidMediaError(f"{str(path)!r} has a video stream, but none of its first pictures can be decoded")


def _info(
    path: Path, container: InputContainer, stream: VideoStream, frame: VideoFrame, look: PacketTimes
) -> MediaInfo:
    coded = (frame.width, frame.height)
    orientation = Orientation.of_frame(frame)
    size = orientation.upright(coded)
    ratio = stream.sample_aspect_ratio or Fraction(1)
    if orientation.turned:
        ratio = 1 / ratio
    fps = choose_rate(look, (stream.guessed_rate, stream.average_rate, stream.base_rate))
    duration = _seconds(stream.duration, stream.time_base)
    if duration is None and container.duration:
        duration = Fraction(container.duration, 1_000_000)
    return MediaInfo(
        path=path,
        format=container.format.name,
        stream_index=stream.index,
        codec=stream.codec_context.name,
        coded_size=coded,
        size=size,
        display_size=(max(1, round(size[0] * ratio)), size[1]),
        sample_aspect_ratio=ratio,
        orientation=orientation,
        fps=fps,
        constant_rate=look.evenly_spaced,
        pixel_format=frame.format.name,
        bit_depth=max(component.bits for component in frame.format.components),
        color=_color(stream, frame),
        start_seconds=look.first_seconds,
        container_start_seconds=Fraction(container.start_time or 0, 1_000_000),
        duration_seconds=duration,
        frame_count_header=_plausible(stream.frames, duration, fps),
        audio=tuple(_audio_streams(container)),
    )


def _audio_streams(container: InputContainer) -> Iterator[AudioStream]:
    for stream in container.streams.audio:
        yield AudioStream(
            index=stream.index,
            codec=stream.codec_context.name,
            sample_rate_hz=stream.codec_context.sample_rate or 0,
            channels=stream.codec_context.channels,
            start_seconds=_seconds(stream.start_time, stream.time_base) or Fraction(0),
            duration_seconds=_seconds(stream.duration, stream.time_base),
            language=stream.language,
        )


def _color(stream: VideoStream, frame: VideoFrame) -> ColorTags:
    context = stream.codec_context
    full_range = frame.format.name.startswith("yuvj") or int(context.color_range) == 2
    return ColorTags(
        matrix=_MATRICES.get(int(context.colorspace)),
        range="pc" if full_range else "tv" if int(context.color_range) == 1 else None,
        primaries=_PRIMARIES.get(int(context.color_primaries)),
        transfer=_TRANSFERS.get(int(context.color_trc)),
    )


def _plausible(count: int, duration: Fraction | None, fps: Fraction) -> int | None:
    """Drop a claim that is no count, or far from what length and rate allow."""
    if count <= 0 or (duration is not None and count > 4 * duration * fps + 10):
        return None
    return count


def _seconds(ticks: int | None, time_base: Fraction | None) -> Fraction | None:
    return None if ticks is None or time_base is None else ticks * time_base


@lru_cache(maxsize=8)
def _ffmpeg_version(path: str, changed_ns: int) -> tuple[tuple[int, ...], str]:
    """Ask the binary; the time of its last change is part of the cache's key."""
    del changed_ns
    command = (path, "-hide_banner", "-version")
    try:
        done = subprocess.run(command, capture_output=True, timeout=_VERSION_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise FFmpegNotFoundError(
            f"{path!r} does not run as ffmpeg ({error}); correct REEL_MODAL_FFMPEG, or pip install imageio-ffmpeg",
            command=command,
        ) from error
    words = done.stdout.decode("utf-8", "replace").split()
    text = words[2] if words[:2] == ["ffmpeg", "version"] else " ".join(words[:3])
    numbers = re.match(r"n?(\d+(?:\.\d+)*)", text)
    return (tuple(map(int, numbers[1].split("."))) if numbers else _NEWEST), text


def _bundled_ffmpeg() -> str:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise FFmpegNotFoundError(
            "no ffmpeg: none on PATH, and the package imageio-ffmpeg has none for this machine; install ffmpeg,"
            " or pip install imageio-ffmpeg, or name one in REEL_MODAL_FFMPEG"
        ) from error


def _plain(value: object) -> object:
    """Return `value` as JSON can hold it."""
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
