"""Output containers and the codecs that each of them supports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["CONTAINERS", "auto_encoders", "container_problem"]

# Tested with ffmpeg's muxers and encoders; None means any codec.
CONTAINERS: Final[Mapping[str, frozenset[str] | None]] = {
    ".mp4": frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "ffv1", "mjpeg"}),
    ".m4v": frozenset({"h264", "mpeg4"}),
    ".mov": frozenset({"h264", "hevc", "mpeg4", "ffv1", "mjpeg", "prores"}),
    ".mkv": None,
    ".webm": frozenset({"vp8", "vp9", "av1"}),
    ".ts": frozenset({"h264", "hevc", "mpeg2"}),
    ".mts": frozenset({"h264", "hevc", "mpeg2"}),
    ".m2ts": frozenset({"h264", "hevc", "mpeg2"}),
    ".avi": frozenset({"h264", "mpeg4", "ffv1", "mjpeg"}),
}
"""Supported codecs of an output, by suffix."""

_AUTO: Final = ("h264_nvenc", "libx264")
_AUTO_WEBM: Final = ("libvpx-vp9", "libsvtav1")
_AUTO_HDR: Final = ("hevc_nvenc", "libx265")

# Codec by a substring of the encoder's name; the first match wins.
_CODECS: Final = (
    *(("264", "h264"), ("265", "hevc"), ("hevc", "hevc"), ("av1", "av1"), ("vp9", "vp9")),
    *(("vpx", "vp8"), ("vp8", "vp8"), ("mpeg4", "mpeg4"), ("xvid", "mpeg4"), ("mpeg2", "mpeg2"), ("ffv1", "ffv1")),
    *(("mjpeg", "mjpeg"), ("prores", "prores"), ("gif", "gif")),
)
_ENCODERS: Final = {"vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libsvtav1", "h264": "libx264"}


def auto_encoders(suffix: str, *, hdr: bool = False) -> tuple[str, ...]:
    """Return the encoders that `encoder="auto"` tries for a file with `suffix`, best first.

    GPU encoders come before CPU encoders. WebM supports neither H.264 nor HEVC. HDR needs 10 bits: players support
    10-bit HEVC (Main 10), but few of them support 10-bit H.264.
    """
    codecs = CONTAINERS.get(suffix.lower())
    if codecs is not None and "h264" not in codecs:
        return _AUTO_WEBM
    if not hdr:
        return _AUTO
    return _AUTO_HDR if codecs is None or "hevc" in codecs else _AUTO[-1:]


def container_problem(output_key: str, encoder: str) -> str | None:
    """Return why the container of `output_key` does not support `encoder`, and the cure; None if it does.

    Every writable container supports `auto`. An encoder that is not in the table is accepted for any container; it is
    tried when the job runs.
    """
    stem, dot, ending = output_key.rpartition("/")[2].rpartition(".")
    suffix = (dot + ending).lower() if stem else ""
    if suffix not in CONTAINERS:
        named = f"{suffix} is not a supported container" if suffix else "the container suffix is missing"
        return f"{named}; use one of {', '.join(CONTAINERS)}"
    if encoder == "auto":
        return None
    codecs, codec = CONTAINERS[suffix], next((name for part, name in _CODECS if part in encoder), None)
    if codecs is None or codec is None or codec in codecs:
        return None
    known = ", ".join(_ENCODERS[each] for each in ("h264", "vp9", "av1", "vp8") if each in codecs)
    return (
        f"{suffix} does not support {codec}, the codec of the encoder {encoder!r}; use the suffix .mp4 or .mkv, or"
        f" set encode.encoder to {known}"
    )
