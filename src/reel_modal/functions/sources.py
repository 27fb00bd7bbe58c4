"""Which bytes of a source a function needs: all, or of a long clip in a store those around the part that it shows.

It must not know stores, only objects that are being read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from reel_modal.config import Settings
from reel_modal.media import MediaInfo, probe
from reel_modal.media.pyav import fraction, seconds_per_tick
from reel_modal.media.untrusted import opened, packets_of
from reel_modal.storage.base import Ranges, StoredObject
from reel_modal.storage.faults import disk_error

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

__all__ = ["Reach", "fetch_part", "look_at", "reach_of"]

Reach: TypeAlias = Literal["index", "cues", "stream", "whole"]
"""How a part of a source is found: by an index of all its packets, by cues of some pictures, by looking for times in
a stream that says nothing of its whole, or not at all."""

# Readers begin at a keyframe at least 15 s before what is wanted; picture and sound lie a little apart.
_BEFORE_SECONDS: Final = 17
# A decoder that begins at a keyframe this long before a picture knows all that the picture is made of.
_DECODED_BEFORE_SECONDS: Final = 5
# What decoders, filters and pipes read ahead of the last picture and sound that is wanted.
_BEHIND_SECONDS: Final = 15
_FIRST_BYTES: Final = 5_000_000
"""What ffmpeg looks at in the beginning of any file (its `probesize`)."""

_BLOCK_BYTES: Final = 1 << 20
_MICROSECONDS: Final = 1_000_000
_INDEXED: Final = frozenset({"mov", "mp4"})
_WITH_CUES: Final = frozenset({"matroska", "webm"}) | _INDEXED  # an MP4 in fragments may have cues of its own (sidx)
_STREAMED: Final = frozenset({"mpegts"})


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a packet begins, when it is due on the source's clock, and whether it is a picture to begin at."""

    first_byte: int
    seconds: Fraction
    is_keyframe: bool


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
    if not ends_before:
        return "whole"
    return "cues" if container & _WITH_CUES else "stream" if container & _STREAMED else "whole"


def fetch_part(
    source: StoredObject, media: MediaInfo, reach: Reach, start: Fraction, end: Fraction | None
) -> MediaInfo:
    """Fetch what readers of `start` to `end` look at, and return what they are to read.

    Behind an index or cues, what lies around it reads as zeros, and no reader of this package goes there: they seek
    by the same. A stream is searched by its times, by each reader in its own way, so its part becomes a file.

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
    elif reach == "stream" and end is not None and (excerpt := _excerpt(source, media, start, end)) is not None:
        return excerpt
    else:
        source.need()
    return media


def _says_where(media: MediaInfo) -> bool:
    """Whether the headers say where each picture and sound lies: those of MP4 and MOV that is not fragmented."""
    with opened(media.path, packets_only=True) as container:
        return all(stream.frames and len(stream.index_entries) >= stream.frames for stream in _streams(container))


def _parts_of(media: MediaInfo, start: Fraction, end: Fraction | None) -> Ranges:
    behind = None if end is None else end + _BEHIND_SECONDS
    with opened(media.path, packets_only=True) as container:
        streams = _streams(container)
        begin = _keyframe_before(container, media, start - _BEFORE_SECONDS)
        along = [*streams, *container.streams.subtitles, *container.streams.data]
        kept = [part for stream in along for part in _within(stream, begin, behind)]
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
        for packet in packets_of(container, *streams):
            if packet.pts is not None and packet.pts * seconds_per_tick(packet) > last:
                break
    source.need([(0, _FIRST_BYTES)])


def _excerpt(source: StoredObject, media: MediaInfo, start: Fraction, end: Fraction) -> MediaInfo | None:
    """Fetch the part into a file of its own; None where its times would be others than in the source.

    What says which streams there are is repeated all through such a file, and stands at its beginning: the packets
    behind it can be left out, and those of the part follow, from a keyframe on.
    """
    path = source.path.with_stem(f"{source.path.stem}-part")
    with source.file() as data, opened(source.path, data) as container:
        tables = next((place.first_byte for place in _places(container)), 0)
        begin = _keyframe_found(container, media, start)
        if begin is None:
            return None
        behind = (place.first_byte for place in _places(container) if place.seconds > end + _BEHIND_SECONDS)
        kept = [(0, tables), (begin.first_byte, next(behind, source.info.bytes))]
    source.need(kept)
    _copy(source.path, path, kept)
    with opened(path) as container:
        # A clock of 33 bits begins anew after a day; who reads on from before knows that, who begins behind does not.
        if next((place.seconds for place in _places(container) if place.is_keyframe), None) != begin.seconds:
            return None
        return replace(media, path=path, container_start_seconds=Fraction(container.start_time or 0, _MICROSECONDS))


def _copy(source: Path, target: Path, parts: Ranges) -> None:
    try:
        with source.open("rb") as whole, target.open("wb") as part:
            for first, end in parts:
                whole.seek(first)
                for block in range(first, end, _BLOCK_BYTES):
                    part.write(whole.read(min(_BLOCK_BYTES, end - block)))
    except OSError as error:
        raise disk_error(error, f"the part of a source could not be kept in {target}") from error


def _keyframe_found(container: InputContainer, media: MediaInfo, start: Fraction) -> _Place | None:
    """Look for a keyframe well before `start`, farther and farther back; None where that is its beginning."""
    from av.error import FFmpegError

    back = Fraction(_BEFORE_SECONDS)
    while (target := start - back) > media.container_start_seconds:
        try:
            container.seek(int(target * _MICROSECONDS))
        except FFmpegError:  # its times lead nowhere
            return None
        for place in _places(container):
            if place.is_keyframe and place.seconds <= start - _DECODED_BEFORE_SECONDS:
                return place
            if place.seconds > start:
                break
        back *= 2
    return None


def _places(container: InputContainer) -> Iterator[_Place]:
    """Yield each packet's place, from wherever reading is."""
    for packet in packets_of(container, *_streams(container)):
        base = fraction(packet.time_base)
        if packet.pos is not None and packet.pts is not None and base is not None:
            is_picture = packet.stream.type == "video" and packet.is_keyframe
            yield _Place(packet.pos, packet.pts * base, is_picture)


def _streams(container: InputContainer) -> list[VideoStream | AudioStream]:
    return [*container.streams.video, *container.streams.audio]


def _keyframe_before(container: InputContainer, media: MediaInfo, seconds: Fraction) -> Fraction:
    """Return the time of the last keyframe at or before `seconds`, where decoding begins; else of the beginning."""
    stream = next(stream for stream in container.streams.video if stream.index == media.stream_index)
    base = seconds_per_tick(stream)
    times = [entry.timestamp * base for entry in stream.index_entries if entry.is_keyframe]
    return max((time for time in times if time <= seconds), default=Fraction(-(10**9)))


def _within(stream: Stream, begin: Fraction, end: Fraction | None) -> Iterator[tuple[int, int]]:
    """Yield where the packets of a stream from `begin` to `end` lie, one part for all of them."""
    base = seconds_per_tick(stream)
    low, high = begin / base, inf if end is None else end / base
    found = [(entry.pos, entry.pos + entry.size) for entry in stream.index_entries if low <= entry.timestamp <= high]
    if found:
        yield min(first for first, _ in found), max(last for _, last in found)
