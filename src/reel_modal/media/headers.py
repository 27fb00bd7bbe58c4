"""Read stream facts from a file's headers; these are hints that packets and frames confirm or refute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reel_modal.errors import InvalidMediaError
from reel_modal.media.pyav import fraction, readable_tags
from reel_modal.media.streams import is_cover, title_of
from reel_modal.media.timestamps import tagged_end

if TYPE_CHECKING:
    from av.audio.stream import AudioStream as AvAudioStream
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = [
    "SEEK_MARGIN_SECONDS",
    "AudioStream",
    "audio_streams",
    "claimed_rates",
    "container_length",
    "header_duration",
    "picture_of",
    "plausible_count",
    "seconds_of",
]

SEEK_MARGIN_SECONDS: Final = 15
"""Readers seek to this long before the requested time and then select by timestamp, so that a seek can be too early
but not wrong.
"""

_MICROSECONDS: Final = 1_000_000
# Their headers store the time at which the last stream ends, counted from 0, even if the first one begins later.
_COUNTED_FROM_ZERO: Final = frozenset({"matroska", "webm"})


@dataclass(frozen=True, slots=True)
class AudioStream:
    """Header facts of one audio stream. Times are timestamps in the file, in seconds; names are ffmpeg's."""

    index: int
    codec: str
    sample_rate_hz: int
    channels: int
    layout: str
    start_seconds: Fraction
    duration_seconds: Fraction | None
    language: str | None
    title: str | None
    dispositions: tuple[str, ...]


def picture_of(container: InputContainer, path: Path) -> VideoStream:
    """Return the main video stream.

    Raises:
        InvalidMediaError: The file has no video stream with a known codec, except cover art.
    """
    candidates = [stream for stream in container.streams.video if not is_cover(stream)]
    known = [stream for stream in candidates if _is_known(stream)]
    if not known:
        reason = "no video stream except cover art" if container.streams.video else "no video stream"
        reason = "no video stream with a known codec" if candidates else reason
        raise InvalidMediaError(f"{str(path)!r} is not a video: {reason}; use a file with a video stream")
    best = container.streams.best("video")
    return next((stream for stream in known if best is not None and stream.index == best.index), known[0])


def _is_known(stream: VideoStream | AvAudioStream) -> bool:
    """Return whether libav knows the codec. If not, PyAV's codec context is None, contrary to its type hints."""
    context: object = stream.codec_context
    return context is not None


def claimed_rates(stream: VideoStream) -> tuple[Fraction | None, ...]:
    """Return the frame rates that headers claim for the video stream, most reliable first."""
    return (fraction(stream.guessed_rate), fraction(stream.average_rate), fraction(stream.base_rate))


def container_length(container: InputContainer, start: Fraction | None = None) -> Fraction:
    """Return the length of the file in seconds from its start, as its header states; 0 if unknown.

    Args:
        container: The file.
        start: Its first timestamp, if libav has not determined it.
    """
    length = Fraction(container.duration or 0, _MICROSECONDS)
    if container.start_time is not None:
        start = Fraction(container.start_time, _MICROSECONDS)
    if start is not None and _counts_from_zero(container) and length > max(Fraction(0), start):
        length -= start
    return length


def _counts_from_zero(container: InputContainer) -> bool:
    return bool(_COUNTED_FROM_ZERO & set(container.format.name.split(",")))


def header_duration(container: InputContainer, stream: VideoStream, start: Fraction) -> Fraction | None:
    """Return the duration of the video stream from `start` on, as far as the headers state it."""
    # libav copies the duration of a container that counts from 0 to its streams, even if they begin before 0.
    copied = _counts_from_zero(container) and (container.start_time or 0) < 0
    stated = None if copied else seconds_of(stream.duration, stream)
    if stated is not None:
        ends = [(seconds_of(stream.start_time, stream) or Fraction(0)) + stated]
    else:
        # The container lasts as long as its longest stream. Matroska stores no track duration; its writers put the
        # end of each track into a tag.
        length = container_length(container)
        ends = [Fraction(container.start_time or 0, _MICROSECONDS) + length] if length else []
    if (end := tagged_end(stream)) is not None:
        ends.append(end)
    return min((end - start for end in ends if end > start), default=None)


def audio_streams(container: InputContainer) -> Iterator[AudioStream]:
    """Yield the audio streams with a known codec."""
    from av.stream import Disposition

    for stream in container.streams.audio:
        if not _is_known(stream):
            continue
        tags = readable_tags(stream.metadata)
        start = seconds_of(stream.start_time, stream) or Fraction(0)
        end = tagged_end(stream)
        yield AudioStream(
            index=stream.index,
            codec=stream.codec_context.codec.canonical_name,
            sample_rate_hz=stream.codec_context.sample_rate or 0,
            channels=stream.codec_context.channels,
            layout=stream.codec_context.layout.name,
            start_seconds=start,
            duration_seconds=seconds_of(stream.duration, stream) or (None if end is None else end - start),
            language=tags.get("language"),
            title=title_of(tags),
            dispositions=tuple(kind.name or "" for kind in Disposition if kind in stream.disposition),
        )


def plausible_count(count: int, duration: Fraction | None, fps: Fraction) -> int | None:
    """Return `count`, or None if it is not positive or far above the value that duration and frame rate allow."""
    if count <= 0 or (duration is not None and count > 4 * duration * fps + 10):
        return None
    return count


def seconds_of(ticks: int | None, timed: VideoFrame | VideoStream | AvAudioStream) -> Fraction | None:
    """Return a time of a frame or a stream in seconds; None if it is unknown."""
    time_base = fraction(timed.time_base)
    return None if ticks is None or time_base is None else ticks * time_base
