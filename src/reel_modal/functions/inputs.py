"""Fetch the bytes of a source that a function needs: all, or for a long clip in a store only a part around a trim."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.media import MediaInfo, probe
from reel_modal.media.open import opened, packets_of
from reel_modal.media.pyav import fraction, seconds_per_tick
from reel_modal.schema.requests import Request
from reel_modal.settings import Settings
from reel_modal.storage.base import Ranges, StoredObject
from reel_modal.storage.faults import disk_error

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

__all__ = ["SeekStrategy", "each_clip", "fetch_range", "media_of", "media_of_each", "probe_object", "seek_strategy"]

SeekStrategy: TypeAlias = Literal["index", "cues", "stream", "whole"]
"""How to find a part of a source: with an index of all packets, with cues of some keyframes, by a search for
timestamps in a stream without an index, or not at all (fetch the whole source)."""

# Readers start at a keyframe at least 15 s before the requested time; audio and video are slightly apart in the file.
_BEFORE_SECONDS: Final = 17
# A decoder that starts at a keyframe this long before a frame has all references of that frame.
_DECODED_BEFORE_SECONDS: Final = 5
# Decoders, filters and pipes read at most this far ahead of the last requested video and audio.
_AFTER_SECONDS: Final = 15
_FIRST_BYTES: Final = 5_000_000
"""Bytes that ffmpeg reads at the beginning of any file (its `probesize`)."""

_BLOCK_BYTES: Final = 1 << 20
_MICROSECONDS: Final = 1_000_000
_INDEXED: Final = frozenset({"mov", "mp4"})
_WITH_CUES: Final = frozenset({"matroska", "webm"}) | _INDEXED  # a fragmented MP4 may have an index (sidx)
_STREAMED: Final = frozenset({"mpegts"})


@dataclass(frozen=True, slots=True)
class _Place:
    """Byte offset of a packet, its timestamp on the source's clock, and whether it is a video keyframe."""

    first_byte: int
    seconds: Fraction
    is_keyframe: bool


def probe_object(source: StoredObject, settings: Settings) -> MediaInfo:
    """Probe the source; if it is in a remote store, only its headers and first frames are fetched.

    Raises:
        InvalidMediaError: The source is not an accepted video.
        StorageError: The source could not be read.
    """
    with source.file() as data:
        return probe(source.path, settings=settings, data=data)


def media_of(request: Request[Any], probe_key: Callable[[str], MediaInfo]) -> MediaInfo | tuple[MediaInfo, ...]:
    """Return the headers of the input of a request; a tuple in the order of `clip_keys` if it is not `input_key`.

    Args:
        request: The request.
        probe_key: Probes one clip by its key; called once for each key.
    """
    paths = request.clip_keys()
    by_key = {key: probe_key(key) for key in dict.fromkeys(paths.values())}
    return by_key[request.input_key] if [*paths] == ["input_key"] else tuple(by_key[key] for key in paths.values())


def each_clip(media: MediaInfo | Sequence[MediaInfo]) -> tuple[MediaInfo, ...]:
    """Return the headers of each clip, also of a single one."""
    return (media,) if isinstance(media, MediaInfo) else tuple(media)


def media_of_each(request: Request[Any], media: MediaInfo | Sequence[MediaInfo]) -> MediaInfo | tuple[MediaInfo, ...]:
    """Return headers in the form of `media_of`; those of a single clip are accepted if all clips have one key.

    Raises:
        RequestError: The number of headers is not the number of clips.
    """
    paths = request.clip_keys()
    given = each_clip(media)
    if len(given) == 1 and len(set(paths.values())) == 1:
        given *= len(paths)
    if len(given) != len(paths):
        raise RequestError(
            "", f"has {len(paths)} clips, and the headers of {len(given)} were given; probe each of them"
        )
    return given[0] if [*paths] == ["input_key"] else given


def seek_strategy(media: MediaInfo, trim_end_seconds: Fraction | None) -> SeekStrategy:
    """Return how to find a part of the source, based on its headers alone.

    Args:
        media: The source; its headers have been fetched.
        trim_end_seconds: End of the part, exclusive, in seconds from the first frame; None is the end of the source.

    Raises:
        InvalidMediaError: The source can no longer be read.
    """
    container = set(media.format.split(","))
    if container & _INDEXED and _has_full_index(media):
        return "index"
    length = media.duration_seconds
    # For these formats, the exact end is known only after all packets have been read.
    ends_before = trim_end_seconds is not None and length is not None and trim_end_seconds <= length - 1 / media.fps
    if not ends_before:
        return "whole"
    return "cues" if container & _WITH_CUES else "stream" if container & _STREAMED else "whole"


def fetch_range(
    source: StoredObject, media: MediaInfo, strategy: SeekStrategy, start: Fraction, end: Fraction | None
) -> MediaInfo:
    """Fetch the data that readers of `start` to `end` access, and return the media to read.

    With an index or cues, the bytes outside the part read as zeros; no reader of this package accesses them, since
    all readers seek with the same index. In a stream, each reader searches for timestamps in its own way; therefore
    the part is copied to a separate file.

    Args:
        source: The object.
        media: Its probe result.
        strategy: How to find the part.
        start: Start of the part in seconds on the source's own clock.
        end: End of the part on the same clock; None is the end of the source.

    Raises:
        InvalidMediaError: The source can no longer be read.
        StorageError: The source could not be fetched.
    """
    if strategy == "index":
        source.ensure(_parts_of(media, start, end))
    elif strategy == "cues" and end is not None:
        _walk(source, media, start, end)
    elif strategy == "stream" and end is not None and (excerpt := _excerpt(source, media, start, end)) is not None:
        return excerpt
    else:
        source.ensure()
    return media


def _has_full_index(media: MediaInfo) -> bool:
    """Return whether the headers give the offset of every packet, as in an MP4 or MOV that is not fragmented."""
    with opened(media.path, packets_only=True) as container:
        return all(stream.frames and len(stream.index_entries) >= stream.frames for stream in _streams(container))


def _parts_of(media: MediaInfo, start: Fraction, end: Fraction | None) -> Ranges:
    last = None if end is None else end + _AFTER_SECONDS
    with opened(media.path, packets_only=True) as container:
        streams = _streams(container)
        begin = _keyframe_before(container, media, start - _BEFORE_SECONDS)
        with_extras = [*streams, *container.streams.subtitles, *container.streams.data]
        kept = [part for stream in with_extras for part in _within(stream, begin, last)]
        first = min(stream.index_entries[0].pos for stream in streams)
    return [*kept, (first, first + _FIRST_BYTES)]


def _walk(source: StoredObject, media: MediaInfo, start: Fraction, end: Fraction) -> None:
    """Read packets as readers do, so that all data they access is fetched; without cues, all from the beginning."""
    first, last = start - _BEFORE_SECONDS, end + _AFTER_SECONDS
    with source.file() as data, opened(source.path, data, packets_only=True) as container:
        streams = _streams(container)
        if first > media.container_start_seconds:
            container.seek(int(first * _MICROSECONDS))
        # The cues are loaded now. With them, most of the part is fetched in large parallel requests.
        begin = _keyframe_before(container, media, first)
        source.ensure([part for stream in streams for part in _within(stream, begin, last)])
        for packet in packets_of(container, *streams):
            if packet.pts is not None and packet.pts * seconds_per_tick(packet) > last:
                break
    source.ensure([(0, _FIRST_BYTES)])


def _excerpt(source: StoredObject, media: MediaInfo, start: Fraction, end: Fraction) -> MediaInfo | None:
    """Fetch the part into a separate file; None if its timestamps would differ from the source's.

    Such a file begins with its stream tables and repeats them throughout. The excerpt consists of the first tables
    and the packets of the part, from a keyframe on.
    """
    path = source.path.with_stem(f"{source.path.stem}-part")
    with source.file() as data, opened(source.path, data) as container:
        tables = next((place.first_byte for place in _places(container)), 0)
        begin = _find_keyframe(container, media, start)
        if begin is None:
            return None
        later = (place.first_byte for place in _places(container) if place.seconds > end + _AFTER_SECONDS)
        kept = [(0, tables), (begin.first_byte, next(later, source.info.bytes))]
    source.ensure(kept)
    _copy(source.path, path, kept)
    with opened(path) as container:
        # The 33-bit clock wraps around after a day. A reader that starts before that notices, a later one does not.
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
        raise disk_error(error, f"the part of a source could not be written to {target}") from error


def _find_keyframe(container: InputContainer, media: MediaInfo, start: Fraction) -> _Place | None:
    """Return a keyframe well before `start`, searching further and further back; None if the beginning is reached."""
    from av.error import FFmpegError

    back = Fraction(_BEFORE_SECONDS)
    while (target := start - back) > media.container_start_seconds:
        try:
            container.seek(int(target * _MICROSECONDS))
        except FFmpegError:  # it cannot seek by timestamp
            return None
        for place in _places(container):
            if place.is_keyframe and place.seconds <= start - _DECODED_BEFORE_SECONDS:
                return place
            if place.seconds > start:
                break
        back *= 2
    return None


def _places(container: InputContainer) -> Iterator[_Place]:
    """Yield the place of each packet from the current read position on."""
    for packet in packets_of(container, *_streams(container)):
        base = fraction(packet.time_base)
        if packet.pos is not None and packet.pts is not None and base is not None:
            is_picture = packet.stream.type == "video" and packet.is_keyframe
            yield _Place(packet.pos, packet.pts * base, is_picture)


def _streams(container: InputContainer) -> list[VideoStream | AudioStream]:
    return [*container.streams.video, *container.streams.audio]


def _keyframe_before(container: InputContainer, media: MediaInfo, seconds: Fraction) -> Fraction:
    """Return the time of the last keyframe at or before `seconds`; a time before the beginning if there are none."""
    stream = next(stream for stream in container.streams.video if stream.index == media.stream_index)
    base = seconds_per_tick(stream)
    times = [entry.timestamp * base for entry in stream.index_entries if entry.is_keyframe]
    return max((time for time in times if time <= seconds), default=Fraction(-(10**9)))


def _within(stream: Stream, begin: Fraction, end: Fraction | None) -> Iterator[tuple[int, int]]:
    """Yield one byte range that contains all packets of a stream from `begin` to `end`, if it has any."""
    base = seconds_per_tick(stream)
    low, high = begin / base, inf if end is None else end / base
    ranges = [(entry.pos, entry.pos + entry.size) for entry in stream.index_entries if low <= entry.timestamp <= high]
    if ranges:
        yield min(first for first, _ in ranges), max(last for _, last in ranges)
