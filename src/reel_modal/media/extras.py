"""Subtitles, data, chapters and the timecode that go along with picture and sound, at their times in the output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from reel_modal.config import Settings
from reel_modal.media import MediaInfo, find_ffmpeg
from reel_modal.media.ffmpeg_process import QUIET, FFmpegProcess, output_size
from reel_modal.media.filters import clock_arguments, seconds_text
from reel_modal.media.headers import SEEK_MARGIN_SECONDS
from reel_modal.media.muxing import is_mp4_like, muxer_options, muxer_takes
from reel_modal.media.pyav import open_output, seconds_per_tick
from reel_modal.media.streams import Chapter, StreamInfo
from reel_modal.media.untrusted import COPIED, file_url, input_arguments, opened, packets_of
from reel_modal.schema import Timeline
from reel_modal.schema.encoding import MetadataPolicy

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream

__all__ = ["Extras", "Track", "kept_tags", "put"]

# What subtitles of letters become, and a container in which a file of them alone can be written. The same containers
# have chapters.
_TEXT: Final = {
    ".mp4": ("mov_text", ".mp4"),
    ".m4v": ("mov_text", ".mp4"),
    ".mov": ("mov_text", ".mov"),
    ".mkv": ("subrip", ".mkv"),
    ".webm": ("webvtt", ".webm"),
}
_WITH_TIMECODE: Final = frozenset({".mp4", ".mov"})
_KEPT_TAGS: Final = frozenset({"title", "creation_time"})
_MOST_BYTES: Final = 64 << 20
_MILLISECONDS: Final = 1000
_MICROSECONDS: Final = 1_000_000

_log = logging.getLogger(__name__)


def kept_tags(media: MediaInfo, policy: MetadataPolicy) -> dict[str, str]:
    """Return the tags of `media` that its output is to have."""
    return {key: value for key, value in media.contents.tags if policy == "keep" or key in _KEPT_TAGS}


@dataclass(frozen=True, slots=True)
class Track:
    """One stream that goes along.

    Attributes:
        template: What the output's stream is made like.
        info: The stream of the source.
        packets: At their times in the output.
    """

    template: Stream
    info: StreamInfo
    packets: list[Packet[Any]]


@dataclass(frozen=True)
class Extras:
    """What goes along.

    Attributes:
        media: The source.
        timeline: Its moments in the output, from its first picture on.
        length_seconds: Of the output; None if it ends when the source does.
        target: The output; its suffix says what can be kept.
        streams: The streams that the container takes, as they are or as text of another codec.
        timecode: Of the first picture of the output.
    """

    media: MediaInfo
    timeline: Timeline
    length_seconds: Fraction | None
    target: Path
    streams: tuple[StreamInfo, ...]
    timecode: str | None

    @classmethod
    def of(
        cls,
        media: MediaInfo,
        target: Path,
        policy: MetadataPolicy,
        *,
        timeline: Timeline | None = None,
        length_seconds: Fraction | None = None,
    ) -> Self:
        """Return what of `media` goes along into `target`.

        Args:
            media: The source.
            target: The output.
            policy: Whether streams of data, which may hold places, go along.
            timeline: The moments of the source in the output; None keeps all of them.
            length_seconds: Of the output.
        """
        timeline = timeline or Timeline.of()
        kinds = {"subtitles", "data"} if policy == "keep" else {"subtitles"}
        streams = tuple(
            stream
            for stream in media.contents.streams
            if stream.kind in kinds and not stream.in_other_program and _is_taken(stream, media, target)
        )
        timecode = next((each.timecode for each in media.contents.streams if each.timecode is not None), None)
        keeps_time = timeline.untouched and target.suffix.lower() in _WITH_TIMECODE
        return cls(media, timeline, length_seconds, target, streams, timecode if keeps_time else None)

    @cached_property
    def chapters(self) -> tuple[Chapter, ...]:
        """The chapters that are in the output, at their times there."""
        moved = (
            (self._moment(chapter.start_seconds), self._moment(chapter.end_seconds), chapter.title)
            for chapter in self.media.contents.chapters
        )
        return tuple(Chapter(start, end, title) for start, end, title in moved if start < end)

    @property
    def empty(self) -> bool:
        """Whether nothing goes along."""
        chapters = self.chapters if self.target.suffix.lower() in _TEXT else ()
        return not self.streams and not chapters and self.timecode is None

    def mark(self, output: OutputContainer, picture: Stream) -> None:
        """Write chapters and timecode into the headers of `output`, whose picture is `picture`."""
        # A lone track refers either to its timecode or to the titles of its chapters.
        alone = len(output.streams) == 1 and not self.streams
        if self.timecode is not None and not (alone and self.chapters):
            picture.metadata["timecode"] = self.timecode
        if self.chapters:
            output.set_chapters(
                [
                    {
                        "id": number,
                        "start": round(chapter.start_seconds * _MILLISECONDS),
                        "end": round(chapter.end_seconds * _MILLISECONDS),
                        "time_base": Fraction(1, _MILLISECONDS),
                        "metadata": {"title": chapter.title},
                    }
                    for number, chapter in enumerate(self.chapters, 1)
                ]
            )

    @contextmanager
    def tracks(self, settings: Settings, check: Callable[[], None]) -> Iterator[list[Track]]:
        """Read the streams that go along; the tracks are valid within the block.

        Text that cannot be converted is left out; a comparison of source and output then names it.

        Args:
            settings: Which ffmpeg.
            check: Called now and then; may raise to stop.

        Raises:
            InvalidMediaError: The source cannot be read any more.
        """
        copied = [stream for stream in self.streams if _is_copied(stream, self.media, self.target)]
        text = [stream for stream in self.streams if stream not in copied]
        with ExitStack() as stack:
            tracks = []
            if copied:
                places = {stream.index: stream for stream in copied}
                origin = self.media.start_seconds
                tracks += self._read(stack, self.media.path, places, origin, check, bounded=True)
            if text:
                path = self.target.with_name(f"{self.target.stem}.text{_TEXT[self.target.suffix.lower()][1]}")
                stack.callback(path.unlink, missing_ok=True)
                if self._convert(text, path, settings, check):
                    places, origin = dict(enumerate(text)), self.media.start_seconds - self._begin
                    tracks += self._read(stack, path, places, origin, check, bounded=False)
            for track in tracks:
                track.packets.sort(key=lambda packet: packet.pts or 0)  # muxers refuse times that go back
            yield [track for track in tracks if track.packets]

    def add_to(
        self, made: Path, target: Path, tags: Mapping[str, str], settings: Settings, check: Callable[[], None]
    ) -> None:
        """Write `target`: all of the finished file `made`, packet by packet, and what goes along.

        Args:
            made: Picture and sound.
            target: The file that is written.
            tags: Of the whole file.
            settings: Which ffmpeg.
            check: Called now and then; may raise to stop.

        Raises:
            InvalidMediaError: A file cannot be read or written.
        """
        options = muxer_options(target, tags)
        # A timecode counts by the frame rate, which libav finds by decoding some pictures.
        with (
            self.tracks(settings, check) as tracks,
            opened(made) as source,
            open_output(file_url(target), options=options) as output,
        ):
            output.metadata.update(tags)
            written = {}
            for stream in source.streams:
                copy = written[stream.index] = output.add_stream_from_template(stream, opaque=True)
                if is_mp4_like(target):  # where the same codec may have one of several names
                    copy.codec_context.codec_tag = stream.codec_context.codec_tag
                copy.time_base, copy.disposition = stream.time_base, stream.disposition
                copy.metadata.update(stream.metadata)
            self.mark(output, written[source.streams.video[0].index])
            put(tracks, output)
            for packet in packets_of(source, *source.streams):
                check()
                if packet.size:
                    packet.stream = written[packet.stream_index]
                    output.mux_one(packet)

    @property
    def _begin(self) -> Fraction:
        """When reading begins, on the file's clock: a line of text that began earlier is not found."""
        first = self.media.container_start_seconds
        if not self.media.has_index:
            return first
        return max(first, self.media.start_seconds + self.timeline.source_start - SEEK_MARGIN_SECONDS)

    @property
    def _end(self) -> Fraction | None:
        """When reading ends, on the file's clock; None is the end of the file."""
        end = self.timeline.source_end
        return None if end is None else self.media.start_seconds + end + 1

    def _moment(self, seconds: Fraction) -> Fraction:
        """Return when a moment on the file's clock is in the output, its beginning or its end if it is not there."""
        moment = max(Fraction(0), self.timeline.to_output(seconds - self.media.start_seconds))
        return moment if self.length_seconds is None else min(moment, self.length_seconds)

    def _convert(self, streams: list[StreamInfo], path: Path, settings: Settings, check: Callable[[], None]) -> bool:
        """Write `streams` as text that the container takes into the file `path`; return whether that succeeded."""
        codec = _TEXT[self.target.suffix.lower()][0]
        length = () if self._end is None else ("-t", seconds_text(self._end - self._begin))
        command = (
            *(find_ffmpeg(settings).path, *QUIET, "-y"),
            *clock_arguments(self._begin, first_seconds=self.media.container_start_seconds),
            *(*length, *COPIED, *input_arguments(self.media.path, settings.limits)),
            *(word for stream in streams for word in ("-map", f"0:{stream.index}")),
            *("-c:s", codec, "-map_metadata", "-1", "-map_chapters", "-1", file_url(path)),
        )
        process = FFmpegProcess(command, stall_seconds=settings.stall_seconds)

        def grows() -> int:
            check()
            return output_size(path)

        try:
            if process.finish(grows) == 0:
                return True
            _log.warning("%s: its subtitles cannot be converted to %s: %s", self.media.path.name, codec, process.tail)
            return False
        finally:
            process.kill()

    def _read(
        self,
        stack: ExitStack,
        path: Path,
        places: Mapping[int, StreamInfo],
        origin: Fraction,
        check: Callable[[], None],
        *,
        bounded: bool,
    ) -> list[Track]:
        """Read the packets of the streams in `path` whose numbers `places` has.

        Args:
            stack: Keeps the file open.
            path: The source, or a file of its text.
            places: Streams of the source by the numbers of those in the file.
            origin: The time of the source's first picture on the clock of the file.
            check: Called at each packet; may raise to stop.
            bounded: Whether to read no more than what lies around the part that is shown.
        """
        container = stack.enter_context(opened(path, packets_only=True))
        tracks = {number: Track(container.streams[number], info, []) for number, info in places.items()}
        clock = [
            stream
            for stream in container.streams.video
            if bounded and self._end is not None and stream.index == self.media.stream_index
        ]
        if bounded and self._begin > self.media.container_start_seconds:
            container.seek(int(self._begin * _MICROSECONDS))
        size_bytes = 0
        for packet in packets_of(container, *clock, *(track.template for track in tracks.values())):
            check()
            track = tracks.get(packet.stream_index)
            if track is not None:
                size_bytes += packet.size
                if size_bytes <= _MOST_BYTES and (moved := self._moved(packet, origin)) is not None:
                    track.packets.append(moved)
            elif (
                self._end is not None and packet.dts is not None and packet.dts * seconds_per_tick(packet) > self._end
            ):
                break
        return list(tracks.values())

    def _moved(self, packet: Packet[Any], origin: Fraction) -> Packet[Any] | None:
        """Return `packet` at its time in the output, None if it is not shown there."""
        if packet.pts is None or not packet.size:
            return None
        tick = seconds_per_tick(packet)
        start = packet.pts * tick - origin
        end = start + (packet.duration or 0) * tick
        first, last = self.timeline.to_output(start), self.timeline.to_output(end)
        if last <= 0 < last - first or first < 0 == last - first:
            return None
        if self.length_seconds is not None:
            if first >= self.length_seconds:
                return None
            last = min(last, self.length_seconds)
        first = max(Fraction(0), first)
        packet.pts = packet.dts = round(first / tick)
        packet.duration = round(last / tick) - packet.pts
        return packet


def put(tracks: Sequence[Track], output: OutputContainer) -> None:
    """Add `tracks` to `output`, with their languages and titles, after all its other streams."""
    streams = []
    for track in tracks:
        stream = output.add_stream_from_template(track.template, opaque=True)
        said = {"language": track.info.language, "title": track.info.title}
        stream.metadata.update({key: value for key, value in said.items() if value is not None})
        stream.disposition = track.template.disposition
        streams.append(stream)
    for track, stream in zip(tracks, streams, strict=True):
        for packet in track.packets:
            packet.stream = stream
            output.mux_one(packet)


def _is_taken(stream: StreamInfo, media: MediaInfo, target: Path) -> bool:
    return (stream.is_text and target.suffix.lower() in _TEXT) or _is_copied(stream, media, target)


def _is_copied(stream: StreamInfo, media: MediaInfo, target: Path) -> bool:
    return stream.codec is not None and muxer_takes(media.path, stream.index, target)
