"""What the headers of a file say about its streams: hints, which packets and frames confirm or refute."""

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
"""Readers seek to this long before the time that is wanted and then go by timestamps, so that a seek can be too early
but never wrong."""

_MICROSECONDS: Final = 1_000_000
# Their headers say when the last stream ends, counted from 0, which is not always when the first one begins.
_COUNTED_FROM_ZERO: Final = frozenset({"matroska", "webm"})


@dataclass(frozen=True, slots=True)
class AudioStream:
    """One audio stream, by its header. Times in seconds on the file's clock; the rest in ffmpeg's words."""

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
    """Return the stream that is the picture.

    Raises:
        InvalidMediaError: There is none.
    """
    candidates = [stream for stream in container.streams.video if not is_cover(stream)]
    known = [stream for stream in candidates if _is_known(stream)]
    if not known:
        lack = "no video stream but cover art" if container.streams.video else "no video stream"
        lack = "no video stream of a codec that is known here" if candidates else lack
        raise InvalidMediaError(f"{str(path)!r} has no picture: {lack}; give a file with a video track")
    best = container.streams.best("video")
    return next((stream for stream in known if best is not None and stream.index == best.index), known[0])


def _is_known(stream: VideoStream | AvAudioStream) -> bool:
    """Whether libav knows the codec: for one that it does not, PyAV has no context, whatever its types say."""
    context: object = stream.codec_context
    return context is not None


def claimed_rates(stream: VideoStream) -> tuple[Fraction | None, ...]:
    """Return the frame rates that headers claim for the picture, the best first."""
    return (fraction(stream.guessed_rate), fraction(stream.average_rate), fraction(stream.base_rate))


def container_length(container: InputContainer, start: Fraction | None = None) -> Fraction:
    """Return how many seconds the file lasts from its own start on, by its header; 0 if it does not say.

    Args:
        container: The file.
        start: Its first time, if libav has not looked for it.
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
    """Return how long the picture lasts from `start` on, as far as the headers say."""
    # libav copies the length of a container that counts from 0 to its streams, also if they begin before that.
    copied = _counts_from_zero(container) and (container.start_time or 0) < 0
    told = None if copied else seconds_of(stream.duration, stream)
    if told is not None:
        ends = [(seconds_of(stream.start_time, stream) or Fraction(0)) + told]
    else:
        # The container lasts as long as its longest stream. Matroska keeps no length of a track at all; its
        # writers put the end of each into a tag.
        length = container_length(container)
        ends = [Fraction(container.start_time or 0, _MICROSECONDS) + length] if length else []
    if (end := tagged_end(stream)) is not None:
        ends.append(end)
    return min((end - start for end in ends if end > start), default=None)


def audio_streams(container: InputContainer) -> Iterator[AudioStream]:
    """Yield the audio streams of a codec that is known here."""
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
    """Drop a claim that is no count, or far from what length and rate allow."""
    if count <= 0 or (duration is not None and count > 4 * duration * fps + 10):
        return None
    return count


def seconds_of(ticks: int | None, timed: VideoFrame | VideoStream | AvAudioStream) -> Fraction | None:
    """Return a time of a frame or a stream in seconds; None if it is not known."""
    time_base = fraction(timed.time_base)
    return None if ticks is None or time_base is None else ticks * time_base
