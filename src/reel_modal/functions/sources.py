"""Which bytes of a source a function needs: all, or of a long clip in a store those around the part that it shows.

It must not know stores, only objects that are being read.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from reel_modal.config import Settings
from reel_modal.media import MediaInfo, probe
from reel_modal.media.untrusted import opened
from reel_modal.storage.base import Ranges, StoredObject

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["Reach", "fetch_part", "look_at", "reach_of"]

Reach: TypeAlias = Literal["index", "cues", "whole"]
"""How a part of a source is found: by an index of all its packets, by cues of some pictures, or not at all."""

# Readers begin at a keyframe at least 15 s before what is wanted; picture and sound lie a little apart.
_BEFORE_SECONDS: Final = 17
# What decoders, filters and pipes read ahead of the last picture and sound that is wanted.
_BEHIND_SECONDS: Final = 15
_FIRST_BYTES: Final = 5_000_000
"""What ffmpeg looks at in the beginning of any file (its `probesize`)."""

_MICROSECONDS: Final = 1_000_000
_INDEXED: Final = frozenset({"mov", "mp4"})
_WITH_CUES: Final = frozenset({"matroska", "webm"})


def look_at(source: StoredObject, settings: Settings) -> MediaInfo:
    """Return what the source is; of one in a store, headers and first pictures are fetched.

    Raises:
        InvalidMediaError: It is no video that we accept.
        StorageError: It could not be read.
    """
    with source.file() as data:
        return probe(source.path, settings=settings, data=data)


def reach_of(media: MediaInfo, trim_end_seconds: Fraction | None) -> Reach:
    """Return how a part of the source can be found by its headers alone.

    Args:
        media: The source; its headers are there.
        trim_end_seconds: The first moment that is not shown, from the first picture on; None is its end.

    Raises:
        InvalidMediaError: It cannot be read any more.
    """
    container = set(media.format.split(","))
    if container & _INDEXED and _says_where(media):
        return "index"
    length = media.duration_seconds
    # At their end, times are known once all packets have been read.
    ends_before = trim_end_seconds is not None and length is not None and trim_end_seconds <= length - 1 / media.fps
    return "cues" if container & _WITH_CUES and ends_before else "whole"


def fetch_part(source: StoredObject, media: MediaInfo, reach: Reach, start: Fraction, end: Fraction | None) -> None:
    """Fetch what readers of `start` to `end` look at.

    What lies around it reads as zeros, and no reader of this package goes there: they seek by the same index or cues.

    Args:
        source: The object.
        media: What it is.
        reach: How the part is found.
        start: In seconds on the source's own clock.
        end: Likewise; None is the source's own.

    Raises:
        InvalidMediaError: It cannot be read any more.
        StorageError: It could not be fetched.
    """
    if reach == "index":
        source.need(_parts_of(media, start, end))
    elif reach == "cues" and end is not None:
        _walk(source, media, start, end)
    else:
        source.need()


def _says_where(media: MediaInfo) -> bool:
    """Whether the headers say where each picture and sound lies: those of MP4 and MOV that is not fragmented."""
    with opened(media.path, packets_only=True) as container:
        return all(stream.frames and len(stream.index_entries) >= stream.frames for stream in _streams(container))


def _parts_of(media: MediaInfo, start: Fraction, end: Fraction | None) -> Ranges:
    behind = None if end is None else end + _BEHIND_SECONDS
    with opened(media.path, packets_only=True) as container:
        streams = _streams(container)
        begin = _keyframe_before(container, media, start - _BEFORE_SECONDS)
        kept = [part for stream in streams for part in _within(stream, begin, behind)]
        first = min(stream.index_entries[0].pos for stream in streams)
    return [*kept, (first, first + _FIRST_BYTES)]


def _walk(source: StoredObject, media: MediaInfo, start: Fraction, end: Fraction) -> None:
    """Go where readers go, so that what they look at on the way is fetched: without cues, all from the beginning."""
    first, last = start - _BEFORE_SECONDS, end + _BEHIND_SECONDS
    with source.file() as data, opened(source.path, data, packets_only=True) as container:
        streams = _streams(container)
        if first > media.container_start_seconds:
            container.seek(int(first * _MICROSECONDS))
        # The cues are there now; by them most of it comes in large pieces, several at once.
        begin = _keyframe_before(container, media, first)
        source.need([part for stream in streams for part in _within(stream, begin, last)])
        for packet in container.demux(*streams):
            if packet.pts is not None and packet.pts * (packet.time_base or 1) > last:
                break
    source.need([(0, _FIRST_BYTES)])


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
