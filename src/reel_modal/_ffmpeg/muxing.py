"""Muxer options of finished files: an index at the start, and tags; and a check of which streams a muxer accepts."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Final

from reel_modal.media.open import opened
from reel_modal.media.pyav import open_output

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
# Otherwise Matroska gets random ids, and each container its muxer's version. The same request must give the same
# bytes.
_REPEATABLE: Final = {"fflags": "+bitexact"}


def is_mp4_like(path: Path) -> bool:
    """Return whether `path` is MP4 or MOV, which store decoding times and can have their index at the start."""
    return path.suffix.lower() in _MP4_LIKE


def muxer_options(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the options of the muxer that writes `path` with the tags `metadata`."""
    if path.suffix.lower() == ".avi":  # it counts frames: a late first one would be preceded by a duplicate
        return {**_REPEATABLE, "avoid_negative_ts": "disabled"}
    if not is_mp4_like(path):
        return dict(_REPEATABLE)
    # Without use_metadata_tags the muxer drops every key that has no box.
    return {**_REPEATABLE, "movflags": "+faststart+use_metadata_tags" if metadata else "+faststart"}


def finishing_arguments(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the same options and the tags as ffmpeg arguments, for the command that writes the final file."""
    arguments = [word for key, value in muxer_options(path, metadata).items() for word in (f"-{key}", value)]
    for key, value in metadata.items():
        arguments += ["-metadata", f"{key}={value}"]
    return tuple(arguments)


def muxer_takes(source: Path, index: int, target: Path) -> bool:
    """Return whether the muxer of `target` accepts a stream of `source` unchanged, by writing its headers.

    MPEG-TS accepts everything as private data, which players cannot read; it always returns False.

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
