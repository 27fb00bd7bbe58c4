"""What every finished file is muxed with: an index in front, and its tags; and which streams a muxer takes."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Final

from reel_modal.media.pyav import open_output
from reel_modal.media.untrusted import opened

__all__ = ["finishing_arguments", "is_mp4_like", "muxer_options", "muxer_takes"]

_MUXERS: Final = {
    ".mp4": "mp4",
    ".m4v": "ipod",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
}

_MP4_LIKE: Final = frozenset({".mp4", ".m4v", ".mov"})
# Matroska has random ids otherwise, and every container the version of its muxer: one request makes the same bytes.
_REPEATABLE: Final = {"fflags": "+bitexact"}


def is_mp4_like(path: Path) -> bool:
    """Whether the suffix of `path` means MP4 or MOV, which keep decoding times and may have their index in front."""
    return path.suffix.lower() in _MP4_LIKE


def muxer_options(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the options of the muxer that writes `path` with the tags `metadata`."""
    if path.suffix.lower() == ".avi":  # which counts pictures: if the first one is late, another is put before it
        return {**_REPEATABLE, "avoid_negative_ts": "disabled"}
    if not is_mp4_like(path):
        return dict(_REPEATABLE)
    # Without use_metadata_tags the muxer drops every key that it has no box for.
    return {**_REPEATABLE, "movflags": "+faststart+use_metadata_tags" if metadata else "+faststart"}


def finishing_arguments(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the same on the command line of whichever ffmpeg writes the final file, with the tags."""
    arguments = [word for key, value in muxer_options(path, metadata).items() for word in (f"-{key}", value)]
    for key, value in metadata.items():
        arguments += ["-metadata", f"{key}={value}"]
    return tuple(arguments)


def muxer_takes(source: Path, index: int, target: Path) -> bool:
    """Whether the muxer of `target` takes a stream of `source` as it is: it is asked to write its headers.

    MPEG-TS takes anything as private data, which no player reads; it is not asked.

    Raises:
        InvalidMediaError: The source cannot be read.
    """
    from av.error import FFmpegError

    if (muxer := _MUXERS.get(target.suffix.lower())) is None:
        return False
    with opened(source, packets_only=True, sound=True) as container:
        try:
            with open_output(BytesIO(), container_format=muxer, options={}) as output:
                output.add_stream_from_template(container.streams[index], opaque=True)
                output.start_encoding()
        except (FFmpegError, ValueError):
            return False
    return True
