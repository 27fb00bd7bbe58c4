"""Keep the source's subtitles, data streams, chapters and timecode, at their times in the output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.filters import clock_arguments, seconds_text
from reel_modal._ffmpeg.muxing import is_mp4_like, muxer_options, muxer_takes
from reel_modal._ffmpeg.process import QUIET, FFmpegProcess, output_size
from reel_modal.media import MediaInfo
from reel_modal.media.headers import SEEK_MARGIN_SECONDS
from reel_modal.media.open import COPIED, file_url, input_arguments, opened, packets_of
from reel_modal.media.pyav import open_output, seconds_per_tick
from reel_modal.media.streams import Chapter, StreamInfo
from reel_modal.schema import Timeline
from reel_modal.schema.options import MetadataPolicy
from reel_modal.settings import Settings

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream

__all__ = ["Extras", "Track", "kept_tags", "put"]

# Codec that text subtitles are converted to, and a container for a file that contains only subtitles. The same
# containers support chapters.
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
    """Return the tags of `media` that its output keeps."""
    return {key: value for key, value in media.contents.tags if policy == "keep" or key in _KEPT_TAGS}


@dataclass(frozen=True, slots=True)
class Track:
    """One stream that is kept.

    Attributes:
        template: The stream whose settings the output stream gets.
        info: The stream of the source.
        packets: Its packets, at their times in the output.
    """

    template: Stream
    info: StreamInfo
    packets: list[Packet[Any]]


@dataclass(frozen=True)
class Extras:
    """The streams, chapters and timecode that are kept.

    Attributes:
        media: The source.
        timeline: Maps source time, counted from the first frame, to output time.
        length_seconds: Length of the output; None if it ends with the source.
        target: The output; its suffix decides which streams can be kept.
        streams: The streams that the container accepts, unchanged or converted to another text codec.
        timecode: Timecode of the first frame of the output.
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
        """Return the extra streams of `media` that `target` keeps.

        Args:
            media: The source.
            target: The output.
            policy: Whether data streams are kept; they may contain locations.
            timeline: Maps source time to output time; None keeps all times.
            length_seconds: Length of the output.
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
        """The chapters of the output, at their times there."""
        moved = (
            (self._moment(chapter.start_seconds), self._moment(chapter.end_seconds), chapter.title)
            for chapter in self.media.contents.chapters
        )
        return tuple(Chapter(start, end, title) for start, end, title in moved if start < end)

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        chapters = self.chapters if self.target.suffix.lower() in _TEXT else ()
        return not self.streams and not chapters and self.timecode is None

    def mark(self, output: OutputContainer, picture: Stream) -> None:
        """Write chapters and timecode into the headers of `output`; `picture` is its video stream."""
        # A track without others refers either to its timecode or to its chapter titles.
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
        """Yield the kept streams as tracks, which are valid inside the block.

        Text that cannot be converted is dropped; the later comparison of source and output reports it.

        Args:
            settings: Which ffmpeg to use.
            check: Called regularly; it may raise an exception to stop.

        Raises:
            InvalidMediaError: The source can no longer be read.
        """
        copied = [stream for stream in self.streams if _is_copied(stream, self.media, self.target)]
        text = [stream for stream in self.streams if stream not in copied]
        with ExitStack() as stack:
            tracks = []
            if copied:
                infos = {stream.index: stream for stream in copied}
                origin = self.media.start_seconds
                tracks += self._read(stack, self.media.path, infos, origin, check, bounded=True)
            if text:
                path = self.target.with_name(f"{self.target.stem}.text{_TEXT[self.target.suffix.lower()][1]}")
                stack.callback(path.unlink, missing_ok=True)
                if self._convert(text, path, settings, check):
                    infos, origin = dict(enumerate(text)), self.media.start_seconds - self._begin
                    tracks += self._read(stack, path, infos, origin, check, bounded=False)
            for track in tracks:
                track.packets.sort(key=lambda packet: packet.pts or 0)  # muxers reject times that go back
            yield [track for track in tracks if track.packets]

    def add_to(
        self, finished: Path, target: Path, tags: Mapping[str, str], settings: Settings, check: Callable[[], None]
    ) -> None:
        """Write `target`: the packets of the finished file `finished`, and the kept streams.

        Args:
            finished: A file with the video and audio.
            target: The file to write.
            tags: Tags of the file.
            settings: Which ffmpeg to use.
            check: Called regularly; it may raise an exception to stop.

        Raises:
            InvalidMediaError: A file cannot be read or written.
        """
        options = muxer_options(target, tags)
        # A timecode depends on the frame rate, which libav determines by decoding some frames.
        with (
            self.tracks(settings, check) as tracks,
            opened(finished) as source,
            open_output(file_url(target), options=options) as output,
        ):
            output.metadata.update(tags)
            written = {}
            for stream in source.streams:
                copy = written[stream.index] = output.add_stream_from_template(stream, opaque=True)
                if is_mp4_like(target):  # the same codec may have several tags there
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
        """The source timestamp at which reading begins; subtitles that begin earlier are not found."""
        first = self.media.container_start_seconds
        if not self.media.has_index:
            return first
        return max(first, self.media.start_seconds + self.timeline.source_start - SEEK_MARGIN_SECONDS)

    @property
    def _end(self) -> Fraction | None:
        """The source timestamp at which reading ends; None means the end of the file."""
        end = self.timeline.source_end
        return None if end is None else self.media.start_seconds + end + 1

    def _moment(self, seconds: Fraction) -> Fraction:
        """Return the output time for a source timestamp, limited to the start and the end of the output."""
        moment = max(Fraction(0), self.timeline.to_output(seconds - self.media.start_seconds))
        return moment if self.length_seconds is None else min(moment, self.length_seconds)

    def _convert(self, streams: list[StreamInfo], path: Path, settings: Settings, check: Callable[[], None]) -> bool:
        """Convert `streams` to text that the container accepts, in the file `path`; return whether it succeeded."""
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

        def written_bytes() -> int:
            check()
            return output_size(path)

        try:
            if process.finish(written_bytes) == 0:
                return True
            _log.warning("%s: subtitles cannot be converted to %s: %s", self.media.path.name, codec, process.tail)
            return False
        finally:
            process.kill()

    def _read(
        self,
        stack: ExitStack,
        path: Path,
        infos: Mapping[int, StreamInfo],
        origin: Fraction,
        check: Callable[[], None],
        *,
        bounded: bool,
    ) -> list[Track]:
        """Read the packets of the streams in `path` that `infos` lists.

        Args:
            stack: Keeps the file open.
            path: The source, or a file with its text streams.
            infos: Streams of the source by their stream index in the file.
            origin: The time of the source's first frame, as a timestamp in the file.
            check: Called for each packet; it may raise an exception to stop.
            bounded: Whether to read only the packets near the part that is shown.
        """
        container = stack.enter_context(opened(path, packets_only=True))
        tracks = {number: Track(container.streams[number], info, []) for number, info in infos.items()}
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
        """Return `packet` at its time in the output, or None if it is not shown there."""
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
        tags = {"language": track.info.language, "title": track.info.title}
        stream.metadata.update({key: value for key, value in tags.items() if value is not None})
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
