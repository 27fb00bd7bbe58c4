"""Which containers an output may have, and which encoders each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["CONTAINERS", "auto_encoders", "container_problem"]

# As tried with ffmpeg's muxers and encoders; None is any codec.
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
"""The codecs that an output may have, by suffix."""

_AUTO: Final = ("h264_nvenc", "libx264")
_AUTO_WEBM: Final = ("libvpx-vp9", "libsvtav1")
_AUTO_HDR: Final = ("hevc_nvenc", "libx265")

# By a part of the encoder's name; the first that fits.
_CODECS: Final = (
    *(("264", "h264"), ("265", "hevc"), ("hevc", "hevc"), ("av1", "av1"), ("vp9", "vp9")),
    *(("vpx", "vp8"), ("vp8", "vp8"), ("mpeg4", "mpeg4"), ("xvid", "mpeg4"), ("mpeg2", "mpeg2"), ("ffv1", "ffv1")),
    *(("mjpeg", "mjpeg"), ("prores", "prores"), ("gif", "gif")),
)
_ENCODERS: Final = {"vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libsvtav1", "h264": "libx264"}


def auto_encoders(suffix: str, *, hdr: bool = False) -> tuple[str, ...]:
    """Return what `encoder="auto"` tries for a file with `suffix`, best first.

    The GPU's own encoder comes before the CPU's. WebM takes neither H.264 nor HEVC. HDR wants 10 bits: players take
    HEVC in 10 bits (Main 10), few of them H.264.
    """
    takes = CONTAINERS.get(suffix.lower())
    if takes is not None and "h264" not in takes:
        return _AUTO_WEBM
    if not hdr:
        return _AUTO
    return _AUTO_HDR if takes is None or "hevc" in takes else _AUTO[-1:]


def container_problem(output_key: str, encoder: str) -> str | None:
    """Return why `encoder` cannot fill the container of `output_key`, and the cure; None if it can.

    `auto` fills every container that can be written. An encoder that is not in the table may fill any; it is tried
    when the job runs.
    """
    stem, dot, ending = output_key.rpartition("/")[2].rpartition(".")
    suffix = (dot + ending).lower() if stem else ""
    if suffix not in CONTAINERS:
        named = f"{suffix} is not a container that can be written" if suffix else "it has no suffix for a container"
        return f"{named}; give the key one of {', '.join(CONTAINERS)}"
    if encoder == "auto":
        return None
    takes, codec = CONTAINERS[suffix], next((made for part, made in _CODECS if part in encoder), None)
    if takes is None or codec is None or codec in takes:
        return None
    known = ", ".join(_ENCODERS[each] for each in ("h264", "vp9", "av1", "vp8") if each in takes)
    return (
        f"{suffix} does not take {codec}, which the encoder {encoder!r} makes; give the key the suffix .mp4 or .mkv,"
        f" or set encode.encoder to {known}"
    )
