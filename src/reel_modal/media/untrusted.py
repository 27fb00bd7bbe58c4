"""Open a file from an untrusted source: as one file, of a known container, within limits."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar, cast

from reel_modal.config import MediaLimits
from reel_modal.errors import InvalidMediaError, StorageError
from reel_modal.media.pyav import open_input
from reel_modal.media.stated_size import is_cut_off

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
"""What ffmpeg may open: nothing of a network."""

_WITH_HEADER: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,ogg,asf,mxf,gif,nut,h264,hevc,ivf,yuv4mpegpipe"

WITHOUT_HEADER: Final = ("mpegts", "mpeg", "flv")
"""Containers whose streams appear while they are read. libav takes no options for the decoders of such streams."""

TAKEN: Final = "MP4, MOV, MKV, WebM, AVI, GIF, MPEG, FLV, Ogg, WMV, MXF, NUT, IVF or Y4M"
"""The same for people."""

FORMAT_WHITELIST: Final = ",".join((_WITH_HEADER, *WITHOUT_HEADER))
"""Containers that hold a picture. Playlists and scripts (hls, concat, dash, image2) name other files: never."""

COPIED: Final = ("-skip_frame:v", "all")
"""Options in front of an input whose picture is not decoded: then ffmpeg decodes none to learn about it either."""

SOUND_WHITELIST: Final = f"{FORMAT_WHITELIST},aac,ac3,aiff,amr,ape,au,caf,dts,eac3,flac,mp3,tta,w64,wav,wv"
"""Containers that hold sound."""

_DEFAULT_LIMITS: Final = MediaLimits()
_PADDING_PX: Final = 64
_MOST_PIXELS: Final = (1 << 31) - 1  # libav's option takes no more


def file_url(path: Path) -> str:
    """Return `path` as ffmpeg reads it: always a file, whatever its name begins with or contains."""
    return f"file:{path}"


def input_arguments(
    path: Path, limits: MediaLimits = _DEFAULT_LIMITS, *, formats: str = FORMAT_WHITELIST
) -> tuple[str, ...]:
    """Return the options that make ffmpeg read the untrusted file `path` and nothing else.

    Args:
        path: The file, whatever its name.
        limits: A stream whose pictures grow beyond them in mid-stream is not decoded there.
        formats: Containers that are accepted.
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
    """Open `path` as a file of a known container; libav's errors, also those in the block, become ours.

    To learn about a stream, libav decodes its first pictures, unless `packets_only` is set or the container has no
    header.

    Args:
        path: The file.
        data: Where its bytes are read from instead; the caller closes it.
        packets_only: Whether nothing but packets of the picture is wanted, which takes a tenth of the time. What only
            a decoder of pictures knows is then unknown: the pixel format, and the decoding times of a container that
            does not keep them.
        sound: Whether files of sound alone are accepted as well.
        limits: Larger pictures are not decoded.

    Raises:
        InvalidMediaError: It is missing, not a regular file, or nothing that libav reads.
    """
    from av.error import FFmpegError

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would be waited for without end
            raise InvalidMediaError(f"{str(path)!r} cannot be read as a video: it is not a regular file")
        source = file_url(path) if data is None else data
        with _container(source, limits, decode=not packets_only, sound=sound) as container:
            if data is None and "matroska" in container.format.name.split(",") and is_cut_off(path):
                for stream in container.streams:
                    stream.metadata.pop("DURATION", None)  # the end of the whole file, which is not here
            yield container
    except StorageError:  # of the source of the bytes; it may be an OSError too
        raise
    except FileNotFoundError as error:
        raise InvalidMediaError(f"there is no file {str(path)!r}") from error
    except (FFmpegError, OSError, ValueError) as error:
        what, kinds = ("sound", f"M4A, MP3, WAV, FLAC, {TAKEN}") if sound else ("a video", TAKEN)
        raise InvalidMediaError(
            f"{str(path)!r} cannot be read as {what}: {_reason(error)}; give a whole {kinds} file"
            " (playlists, scripts and still images are not opened)"
        ) from error


def _container(source: str | BinaryIO, limits: MediaLimits, *, decode: bool, sound: bool) -> InputContainer:
    """Open a container with a header, or else one without."""
    from av.error import ArgumentError

    try:
        return _opened_as(SOUND_WHITELIST if sound else _WITH_HEADER, source, limits, decode=decode)
    except ArgumentError:  # which libav says of a format that is not on the list, before it looks for streams
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
    """Return the names of all decoders but those of pictures."""
    from av.codec.codec import Codec, UnknownCodecError, codecs_available

    names = []
    for name in sorted(codecs_available):
        with suppress(UnknownCodecError):  # it encodes only
            if Codec(name, "r").type != "video":
                names.append(name)
    return ",".join(names)


def packets_of(container: InputContainer, *streams: S) -> Iterator[Packet[S]]:
    """Yield the packets of `streams` in the order of the file, and at its end an empty one of each."""
    try:
        yield from cast("Iterator[Packet[S]]", container.demux(*streams))
    except IndexError:
        # PyAV 18 stumbles at the end of a file in which another stream began late, as it may in MPEG-TS: it
        # wants to flush that one as well, and has no object for it. Every packet has been given by then.
        _log.debug("%s: a stream began after the headers", container.name)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def check_size(size: tuple[int, int], path: Path, limits: MediaLimits) -> None:
    """Refuse a picture of `size` (width, height) that is beyond the limits.

    Raises:
        InvalidMediaError: It is too large.
    """
    width, height = size
    if width > limits.max_width_px or height > limits.max_height_px or width * height > limits.max_frame_pixels:
        raise oversized(size, path, limits)


def oversized(size: tuple[int, int], path: Path, limits: MediaLimits) -> InvalidMediaError:
    """Return the error of a picture of `size` (width, height) that is beyond the limits."""
    return InvalidMediaError(
        f"{str(path)!r} declares {size[0]}x{size[1]} pixels; at most {limits.max_width_px}x{limits.max_height_px}"
        f" and {limits.max_frame_pixels} in all are accepted (Settings.limits)"
    )


def check_length(seconds: Fraction, path: Path, limits: MediaLimits) -> None:
    """Refuse a clip of `seconds` that is beyond the limits.

    Raises:
        InvalidMediaError: It is too long.
    """
    if seconds > limits.max_duration_seconds:
        raise InvalidMediaError(
            f"{str(path)!r} declares {float(seconds):.0f} s; at most {limits.max_duration_seconds:.0f} s are accepted"
            " (Settings.limits)"
        )


def decoder_pixels(limits: MediaLimits) -> int:
    """Return what a decoder may allocate, in pixels of one frame: it pads each side to whole blocks."""
    sides = min(limits.max_width_px + limits.max_height_px, 2 * limits.max_frame_pixels)
    return min(limits.max_frame_pixels + _PADDING_PX * (sides + _PADDING_PX), _MOST_PIXELS)
