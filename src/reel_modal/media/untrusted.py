"""How a file from a stranger is opened: as one file, of a known container, within limits.

It must not know what the file is for.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar, cast

from reel_modal.config import MediaLimits
from reel_modal.errors import InvalidMediaError, StorageError
from reel_modal.media.pyav import open_input

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

__all__ = [
    "COPIED",
    "FORMAT_WHITELIST",
    "PROTOCOL_WHITELIST",
    "check_length",
    "check_size",
    "decoder_pixels",
    "file_url",
    "input_arguments",
    "opened",
    "packets_of",
]

S = TypeVar("S", bound="Stream")

_log = logging.getLogger(__name__)

PROTOCOL_WHITELIST: Final = "file,pipe"
"""What ffmpeg may open: nothing of a network."""

FORMAT_WHITELIST: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,mxf,gif,nut,h264,hevc,ivf,yuv4mpegpipe"
)
"""Containers that hold a picture. Playlists and scripts (hls, concat, dash, image2) name other files: never."""

_SKIP_PICTURES: Final = {"skip_frame": "all"}

COPIED: Final = ("-skip_frame:v", "all")
"""Options in front of an input whose picture is not decoded: then ffmpeg decodes none to learn about it either."""

_DEFAULT_LIMITS: Final = MediaLimits()


def file_url(path: Path) -> str:
    """Return `path` as ffmpeg reads it: always a file, whatever its name begins with or contains."""
    return f"file:{path}"


def input_arguments(path: Path, limits: MediaLimits = _DEFAULT_LIMITS) -> tuple[str, ...]:
    """Return the options that make ffmpeg read the untrusted file `path` and nothing else.

    Args:
        path: The file, whatever its name.
        limits: A stream whose pictures grow beyond them in mid-stream is not decoded there.
    """
    return (
        *("-max_pixels", str(decoder_pixels(limits))),
        *("-protocol_whitelist", PROTOCOL_WHITELIST),
        *("-format_whitelist", FORMAT_WHITELIST),
        *("-i", file_url(path)),
    )


@contextmanager
def opened(path: Path, data: BinaryIO | None = None, *, packets_only: bool = False) -> Iterator[InputContainer]:
    """Open `path` as a file of a known container; whatever libav says about it, in the block too, becomes ours.

    Args:
        path: The file.
        data: Where its bytes are read from instead; the caller closes it.
        packets_only: Whether nothing but packets of the picture is wanted: then libav does not decode one to learn
            about the stream, which takes it ten times as long as the rest. What only a decoder knows may be wrong:
            a sound's exact codec, and the decoding times of a container that keeps none.

    Raises:
        InvalidMediaError: It is missing, no regular file, or nothing that libav reads.
    """
    from av.error import FFmpegError

    container_options = {"protocol_whitelist": PROTOCOL_WHITELIST, "format_whitelist": FORMAT_WHITELIST}
    options = _SKIP_PICTURES if packets_only else {}
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would be waited for without end
            raise InvalidMediaError(f"{str(path)!r} cannot be read as a video: it is no regular file")
        source = file_url(path) if data is None else data
        with open_input(source, options=options, container_options=container_options) as container:
            yield container
    except StorageError:  # of whoever gives the bytes; it may be an OSError too
        raise
    except FileNotFoundError as error:
        raise InvalidMediaError(f"there is no file {str(path)!r}") from error
    except (FFmpegError, OSError, ValueError) as error:
        raise InvalidMediaError(
            f"{str(path)!r} cannot be read as a video: {_reason(error)}; give a whole MP4, MOV, MKV, WebM, AVI or"
            " MPEG file (playlists and scripts are not opened)"
        ) from error


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
        raise InvalidMediaError(
            f"{str(path)!r} declares {width}x{height} pixels; at most {limits.max_width_px}x{limits.max_height_px}"
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
    """Return what a decoder may allocate, in pixels of one frame: it pads the picture for its own use."""
    return 2 * limits.max_frame_pixels
