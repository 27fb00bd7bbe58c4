"""Open an untrusted media file: only that file, only known containers, within limits."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar, cast

from reel_modal.errors import InvalidMediaError, StorageError
from reel_modal.media.pyav import open_input
from reel_modal.media.stated_size import is_cut_off
from reel_modal.settings import MediaLimits

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

__all__ = [
    "COPIED",
    "FORMAT_WHITELIST",
    "PROTOCOL_WHITELIST",
    "SOUND_WHITELIST",
    "WITHOUT_HEADER",
    "check_length",
    "check_size",
    "decoder_pixels",
    "file_url",
    "input_arguments",
    "opened",
    "oversized",
    "packets_of",
]

S = TypeVar("S", bound="Stream")

_log = logging.getLogger(__name__)

PROTOCOL_WHITELIST: Final = "file,pipe"
"""Protocols that ffmpeg may open: none for a network."""

_WITH_HEADER: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,asf,mxf,gif,nut,h264,hevc,ivf,yuv4mpegpipe"

WITHOUT_HEADER: Final = ("mpegts", "mpeg", "flv")
"""Containers whose streams appear during reading. libav accepts no options for the decoders of such streams."""

_CONTAINERS: Final = "MP4, MOV, MKV, WebM, AVI, GIF, MPEG, FLV, Ogg, WMV, MXF, NUT, IVF or Y4M"
"""The accepted containers, for messages."""

FORMAT_WHITELIST: Final = ",".join((_WITH_HEADER, *WITHOUT_HEADER))
"""Containers of video files. Playlists and scripts (hls, concat, dash, image2) can name other files: excluded."""

COPIED: Final = ("-skip_frame:v", "all")
"""Options before an input whose video is not decoded; ffmpeg then also decodes no frame for analysis."""

SOUND_WHITELIST: Final = f"{FORMAT_WHITELIST},aac,ac3,aiff,amr,ape,au,caf,dts,eac3,flac,mp3,tta,w64,wav,wv"
"""Containers that may contain audio."""

_DEFAULT_LIMITS: Final = MediaLimits()
_PADDING_PX: Final = 64
_MOST_PIXELS: Final = (1 << 31) - 1  # maximum of libav's option


def file_url(path: Path) -> str:
    """Return `path` in ffmpeg's notation: always a file, regardless of the prefix and characters of its name."""
    return f"file:{path}"


def input_arguments(
    path: Path, limits: MediaLimits = _DEFAULT_LIMITS, *, formats: str = FORMAT_WHITELIST
) -> tuple[str, ...]:
    """Return the options that make ffmpeg read only the untrusted file `path`.

    Args:
        path: The file; its name may contain any characters.
        limits: Later frames that exceed them are not decoded.
        formats: Accepted containers.
    """
    return (
        *("-max_pixels", str(decoder_pixels(limits))),
        *("-protocol_whitelist", PROTOCOL_WHITELIST),
        *("-format_whitelist", formats),
        *("-i", file_url(path)),
    )


@contextmanager
def opened(
    path: Path,
    data: BinaryIO | None = None,
    *,
    packets_only: bool = False,
    sound: bool = False,
    limits: MediaLimits = _DEFAULT_LIMITS,
) -> Iterator[InputContainer]:
    """Open `path` as a file of a known container; convert libav errors, also from inside the block.

    To analyze a stream, libav decodes its first frames, unless `packets_only` is set or the container has no header.

    Args:
        path: The file.
        data: A stream to read its bytes from instead; the caller closes it.
        packets_only: Whether the caller needs only packets of the video, which takes a tenth of the time. Facts that
            only a video decoder can provide are then unknown: the pixel format, and the decoding times in a container
            that does not store them.
        sound: Whether audio files are accepted too.
        limits: Larger frames are not decoded.

    Raises:
        InvalidMediaError: The file is missing, not a regular file, or not readable by libav.
    """
    from av.error import FFmpegError

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe could block forever
            raise InvalidMediaError(f"{str(path)!r} cannot be read as a video: it is not a regular file")
        source = file_url(path) if data is None else data
        with _container(source, limits, decode=not packets_only, sound=sound) as container:
            if data is None and "matroska" in container.format.name.split(",") and is_cut_off(path):
                for stream in container.streams:
                    stream.metadata.pop("DURATION", None)  # the end of the whole file, which was truncated
            yield container
    except StorageError:  # from the byte source `data`; it may also be an OSError
        raise
    except FileNotFoundError as error:
        raise InvalidMediaError(f"file {str(path)!r} not found") from error
    except (FFmpegError, OSError, ValueError) as error:
        kind, containers = ("audio", f"M4A, MP3, WAV, FLAC, {_CONTAINERS}") if sound else ("a video", _CONTAINERS)
        raise InvalidMediaError(
            f"{str(path)!r} cannot be read as {kind}: {_reason(error)}; use a complete {containers} file"
            " (playlists, scripts and still images are unsupported)"
        ) from error


def _container(source: str | BinaryIO, limits: MediaLimits, *, decode: bool, sound: bool) -> InputContainer:
    """Open a container with a header, or else one without."""
    from av.error import ArgumentError

    try:
        return _opened_as(SOUND_WHITELIST if sound else _WITH_HEADER, source, limits, decode=decode)
    except ArgumentError:  # libav's error for an unlisted format, before it searches for streams
        if not isinstance(source, str):
            source.seek(0)
    return _opened_as(",".join(WITHOUT_HEADER), source, limits, decode=False)


def _opened_as(formats: str, source: str | BinaryIO, limits: MediaLimits, *, decode: bool) -> InputContainer:
    container_options = {"protocol_whitelist": PROTOCOL_WHITELIST, "format_whitelist": formats}
    options = {"max_pixels": str(decoder_pixels(limits))}
    if not decode:
        container_options["codec_whitelist"] = _decoders_without_pictures()
    return open_input(source, options=options, container_options=container_options)


@lru_cache(maxsize=1)
def _decoders_without_pictures() -> str:
    """Return the names of all decoders except those of video."""
    from av.codec.codec import Codec, UnknownCodecError, codecs_available

    names = []
    for name in sorted(codecs_available):
        with suppress(UnknownCodecError):  # it is only an encoder
            if Codec(name, "r").type != "video":
                names.append(name)
    return ",".join(names)


def packets_of(container: InputContainer, *streams: S) -> Iterator[Packet[S]]:
    """Yield the packets of `streams` in file order, and at the end of the file an empty one for each stream."""
    try:
        yield from cast("Iterator[Packet[S]]", container.demux(*streams))
    except IndexError:
        # PyAV 18 fails at the end of a file if another stream began late, which is possible in MPEG-TS: it tries to
        # flush that stream too, and has no object for it. All packets have been returned by then.
        _log.debug("%s: a stream began after the headers", container.name)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def check_size(size: tuple[int, int], path: Path, limits: MediaLimits) -> None:
    """Reject a frame of `size` (width, height) that exceeds the limits.

    Raises:
        InvalidMediaError: The frame is too large.
    """
    width, height = size
    if width > limits.max_width_px or height > limits.max_height_px or width * height > limits.max_frame_pixels:
        raise oversized(size, path, limits)


def oversized(size: tuple[int, int], path: Path, limits: MediaLimits) -> InvalidMediaError:
    """Return the error for a frame of `size` (width, height) that exceeds the limits."""
    return InvalidMediaError(
        f"{str(path)!r} declares {size[0]}x{size[1]} pixels; at most {limits.max_width_px}x{limits.max_height_px}"
        f" and {limits.max_frame_pixels} in total are accepted (Settings.limits)"
    )


def check_length(seconds: Fraction, path: Path, limits: MediaLimits) -> None:
    """Reject a clip of `seconds` that exceeds the limits.

    Raises:
        InvalidMediaError: The clip is too long.
    """
    if seconds > limits.max_duration_seconds:
        raise InvalidMediaError(
            f"{str(path)!r} declares {float(seconds):.0f} s; at most {limits.max_duration_seconds:.0f} s are accepted"
            " (Settings.limits)"
        )


def decoder_pixels(limits: MediaLimits) -> int:
    """Return the maximum frame size for a decoder, in pixels, including its padding of each side to whole blocks."""
    sides = min(limits.max_width_px + limits.max_height_px, 2 * limits.max_frame_pixels)
    return min(limits.max_frame_pixels + _PADDING_PX * (sides + _PADDING_PX), _MOST_PIXELS)
