"""Which bytes of a source a function needs: all, or of a long clip in a store those around the part that it shows.

It must not know stores, only objects that are being read.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, Final

from reel_modal.config import Settings
from reel_modal.media import MediaInfo, probe
from reel_modal.storage.base import Ranges, StoredObject
from reel_modal.untrusted import opened

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["look_at", "parts_of", "says_where"]

# Readers begin at a keyframe at least 15 s before what is wanted; picture and sound lie a little apart.
_BEFORE_SECONDS: Final = 17
# What decoders, filters and pipes read ahead of the last picture and sound that is wanted.
_BEHIND_SECONDS: Final = 15
_FIRST_BYTES: Final = 5_000_000
"""What ffmpeg looks at in the beginning of any file (its `probesize`)."""

_INDEXED: Final = frozenset({"mov", "mp4"})


def look_at(source: StoredObject, settings: Settings) -> MediaInfo:
    """Return what the source is; of one in a store, headers and first pictures are fetched.

    Raises:
        InvalidMediaError: It is no video that we accept.
        StorageError: It could not be read.
    """
    with source.file() as data:
        return probe(source.path, settings=settings, data=data)


def says_where(media: MediaInfo) -> bool:
    """Return whether the headers say where each picture and sound lies: those of MP4 and MOV that is not fragmented.

    Raises:
        InvalidMediaError: It cannot be read any more.
    """
    if not _INDEXED & set(media.format.split(",")):
        return False
    with opened(media.path, packets_only=True) as container:
        return all(stream.frames and len(stream.index_entries) >= stream.frames for stream in _streams(container))


def parts_of(media: MediaInfo, start: Fraction, end: Fraction | None) -> Ranges:
    """Return where in the file is what readers of `start` to `end` look at.

    What lies between the parts reads as zeros, and no reader of this package goes there: they seek by the same index.

    Args:
        media: A file that says where all of it lies; its headers are there.
        start: In seconds on the source's own clock.
        end: Likewise; None is the source's own.

    Raises:
        InvalidMediaError: It cannot be read any more.
    """
    behind = None if end is None else end + _BEHIND_SECONDS
    with opened(media.path, packets_only=True) as container:
        streams = _streams(container)
        begin = _keyframe_before(container, media, start - _BEFORE_SECONDS)
        kept = [part for stream in streams for part in _within(stream, begin, behind)]
        first = min(stream.index_entries[0].pos for stream in streams)
    return [*kept, (first, first + _FIRST_BYTES)]


def _streams(container: InputContainer) -> list[VideoStream | AudioStream]:
    return [*container.streams.video, *container.streams.audio]


def _keyframe_before(container: InputContainer, media: MediaInfo, seconds: Fraction) -> Fraction:
    """Return the time of the last keyframe at or before `seconds`, where decoding begins; else of the beginning."""
    stream = next(stream for stream in container.streams.video if stream.index == media.stream_index)
    base = stream.time_base or Fraction(1)
    times = [entry.timestamp * base for entry in stream.index_entries if entry.is_keyframe]
    return max((time for time in times if time <= seconds), default=Fraction(-(10**9)))


def _within(stream: VideoStream | AudioStream, begin: Fraction, end: Fraction | None) -> Iterator[tuple[int, int]]:
    """Yield where the packets of a stream from `begin` to `end` lie, one part for all of them."""
    base = stream.time_base or Fraction(1)
    low, high = begin / base, inf if end is None else end / base
    found = [(entry.pos, entry.pos + entry.size) for entry in stream.index_entries if low <= entry.timestamp <= high]
    if found:
        yield min(first for first, _ in found), max(last for _, last in found)
