"""Decode the pictures of a video with libav in this process: all those that an ffmpeg process gives."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from reel_modal.config import Settings
from reel_modal.media.headers import SEEK_MARGIN_SECONDS
from reel_modal.media.parameter_sets import CodedSizeGuard, opened_picture
from reel_modal.media.probing import MediaInfo
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.untrusted import packets_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["PictureDecoder"]

_MICROSECONDS: Final = 1_000_000


@dataclass(slots=True)
class _Given:
    """What has been decoded so far; times in ticks of the stream.

    Attributes:
        shown_times: Whether the times of showing can be trusted; those of decoding are looked at if not.
        count: Pictures.
        latest: The latest time of a picture.
        due: The latest time of a packet.
    """

    shown_times: bool
    count: int = 0
    latest: int | None = None
    due: int | None = None

    @property
    def lacks_latest(self) -> bool:
        """Whether the picture of the last packet was not among them."""
        return self.due is not None and (self.latest is None or self.latest < self.due)

    def expect(self, packet: Packet[VideoStream]) -> None:
        """Note that the picture of `packet` should come."""
        if not packet.is_discard:
            self.due = self._later(self.due, packet)

    def noted(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield `frames`, each noted."""
        for frame in frames:
            self.count += 1
            self.latest = self._later(self.latest, frame)
            yield frame

    def is_later(self, timed: VideoFrame | Packet[VideoStream]) -> bool:
        """Whether `timed` is shown after all pictures so far."""
        return self.latest is not None and timed.pts is not None and timed.pts > self.latest

    def _later(self, known: int | None, timed: VideoFrame | Packet[VideoStream]) -> int | None:
        ticks = timed.pts if self.shown_times else timed.dts
        return known if ticks is None else ticks if known is None else max(known, ticks)


class PictureDecoder:
    """Decodes the pictures of a video on libav's own threads, in the order in which they are shown.

    Args:
        media: The video.
        settings: Limits of what a decoder may allocate, and its threads.
    """

    def __init__(self, media: MediaInfo, settings: Settings) -> None:
        self._media = media
        self._settings = settings
        self.broken_packets: int = 0
        self.broken_at_start: int = 0

    def pictures(self, seek_seconds: Fraction | None) -> Iterator[VideoFrame]:
        """Yield each picture that can be decoded.

        Args:
            seek_seconds: Where to begin at the latest, on the file's own clock; None is the beginning.

        Raises:
            InvalidMediaError: The file cannot be opened any more, or its pictures grow beyond the limits.
        """
        from av.error import FFmpegError

        threads = self._settings.decoder_threads
        given, flushed = _Given(self._media.keeps_presentation_times), True
        with self._opened(threads) as (container, stream, guard):
            if seek_seconds is not None:
                container.seek(int(seek_seconds * _MICROSECONDS))
            for packet in self._packets(container, stream):
                guard.check(packet)
                given.expect(packet)
                yield from given.noted(self._decoded(packet))
                if not given.count:
                    self.broken_at_start = self.broken_packets
            try:
                rest = stream.decode(_end_of(stream))
            except FFmpegError:
                rest, flushed = [], False
            yield from given.noted(rest)
        if threads > 1 and (not flushed or given.lacks_latest):
            yield from self._tail(given)

    @contextmanager
    def _opened(self, threads: int) -> Iterator[tuple[InputContainer, VideoStream, CodedSizeGuard]]:
        media = self._media
        with opened_picture(media.path, media.stream_index, self._settings.limits) as (container, stream, guard):
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            yield container, stream, guard

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Yield the packets that hold a picture, up to the end or to the place at which the file breaks off."""
        from av.error import FFmpegError

        packets = packets_of(container, stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                self.broken_packets += 1
                return
            if packet is None:
                return
            if packet.size:  # one without data repeats the picture before, or is the end
                yield packet

    def _decoded(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        from av.error import FFmpegError

        try:
            return packet.decode()
        except FFmpegError:
            self.broken_packets += 1
            return []

    def _tail(self, given: _Given) -> Iterator[VideoFrame]:
        """Decode the end of the file again, on one thread, and yield the pictures after those that were given.

        At the end of a file several threads hold pictures. PyAV gives those before a broken one, and libav takes no
        second flush. On one thread, each packet has its own error.
        """
        if given.shown_times and (yield from self._tail_from_keyframe(given)):
            return
        self.broken_packets = 0  # all are met again
        with self._opened(1) as opened_again:
            yield from islice(self._all_of(*opened_again), given.count, None)

    def _tail_from_keyframe(self, given: _Given) -> Generator[VideoFrame, None, bool]:
        """Yield the same, found by a seek; return whether there was a place to go to."""
        from av.error import FFmpegError

        latest, counted = given.latest, self.broken_packets
        with self._opened(1) as (container, stream, guard):
            # A container without an index may be read from a place between two keyframes on.
            margin = 0 if self._media.has_index else SEEK_MARGIN_SECONDS
            try:
                container.seek(int(((latest or 0) * seconds_per_tick(stream) - margin) * _MICROSECONDS))
            except FFmpegError:
                return False
            begun = False
            for frame in self._all_of(container, stream, guard, given):
                if not begun and (frame.pts is None or latest is None or frame.pts > latest):
                    break
                begun = True
                if given.is_later(frame):
                    yield frame
        if not begun:
            self.broken_packets = counted
        return begun

    def _all_of(
        self,
        container: InputContainer,
        stream: VideoStream,
        guard: CodedSizeGuard,
        counted: _Given | None = None,
    ) -> Iterator[VideoFrame]:
        """Yield all pictures from where `container` is; broken packets up to what is `counted` do not count again."""
        for packet in self._packets(container, stream):
            guard.check(packet)
            before = self.broken_packets
            yield from self._decoded(packet)
            if counted is not None and not counted.is_later(packet):
                self.broken_packets = before
        yield from stream.decode(_end_of(stream))


def _end_of(stream: VideoStream) -> Packet[VideoStream]:
    """Return the packet that flushes the decoder of `stream`; the pictures get their time base from it."""
    from av.packet import Packet

    end = Packet()
    end.time_base = seconds_per_tick(stream)
    return cast("Packet[VideoStream]", end)
