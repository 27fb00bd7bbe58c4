"""Decode the frames of a video with libav in this process: the same frames as from an ffmpeg process."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from reel_modal._ffmpeg.packet_seek import packets_from
from reel_modal.media.coded_size import CodedSizeGuard, opened_picture
from reel_modal.media.headers import SEEK_MARGIN_SECONDS
from reel_modal.media.open import packets_of
from reel_modal.media.probing import MediaInfo
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.settings import Settings

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["PictureDecoder"]

_MICROSECONDS: Final = 1_000_000


@dataclass(slots=True)
class _DecodeState:
    """The state of decoding; times in ticks of the stream.

    Attributes:
        shown_times: Whether presentation times are reliable; otherwise decoding times are used.
        count: Number of decoded frames.
        latest: The latest time of a frame.
        due: The latest time of a packet.
    """

    shown_times: bool
    count: int = 0
    latest: int | None = None
    due: int | None = None

    @property
    def lacks_latest(self) -> bool:
        """Whether the frame of the latest packet is missing."""
        return self.due is not None and (self.latest is None or self.latest < self.due)

    def expect(self, packet: Packet[VideoStream]) -> None:
        """Record that the frame of `packet` is expected."""
        if not packet.is_discard:
            self.due = self._later(self.due, packet)

    def recorded(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield `frames` and record each of them."""
        for frame in frames:
            self.count += 1
            self.latest = self._later(self.latest, frame)
            yield frame

    def is_later(self, timed: VideoFrame | Packet[VideoStream]) -> bool:
        """Return whether `timed` is shown after all frames so far."""
        return self.latest is not None and timed.pts is not None and timed.pts > self.latest

    def _later(self, latest: int | None, timed: VideoFrame | Packet[VideoStream]) -> int | None:
        ticks = timed.pts if self.shown_times else timed.dts
        return latest if ticks is None else ticks if latest is None else max(latest, ticks)


class PictureDecoder:
    """A decoder that yields the frames of a video in display order, decoded in libav's threads.

    Args:
        media: The video.
        settings: Memory limits of the decoder, and the number of its threads.
    """

    def __init__(self, media: MediaInfo, settings: Settings) -> None:
        self._media = media
        self._settings = settings
        self.broken_packets: int = 0
        self.broken_at_start: int = 0

    def pictures(self, seek_seconds: Fraction | None) -> Iterator[VideoFrame]:
        """Yield each frame that can be decoded.

        Args:
            seek_seconds: Source timestamp at or before which decoding begins; None means the beginning.

        Raises:
            InvalidMediaError: The file can no longer be opened, or its frames grow beyond the limits.
        """
        from av.error import FFmpegError

        threads = self._settings.decoder_threads
        state, flushed = _DecodeState(self._media.keeps_presentation_times), True
        with self._opened(threads) as (container, stream, guard):
            if seek_seconds is not None:
                container.seek(int(seek_seconds * _MICROSECONDS))
            for packet in self._packets(container, stream):
                guard.check(packet)
                state.expect(packet)
                yield from state.recorded(self._decoded(packet))
                if not state.count:
                    self.broken_at_start = self.broken_packets
            try:
                rest = stream.decode(_end_of(stream))
            except FFmpegError:
                rest, flushed = [], False
            yield from state.recorded(rest)
        if threads > 1 and (not flushed or state.lacks_latest):
            yield from self._tail(state)

    def pictures_from(self, pts: int) -> Iterator[VideoFrame]:
        """Yield each frame from the keyframe with the timestamp `pts` on; any error in a packet counts it as broken.

        Raises:
            InvalidMediaError: The file can no longer be opened, or its frames grow beyond the limits.
        """
        from av.error import FFmpegError

        # One thread: several of them miss an error in some runs, and the output must not depend on that.
        with self._opened(1) as (container, stream, guard):
            stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
            try:
                for packet in packets_from(container, stream, pts):
                    guard.check(packet)
                    yield from packet.decode()
                yield from stream.decode(_end_of(stream))
            except FFmpegError:
                self.broken_packets += 1

    @contextmanager
    def _opened(self, threads: int) -> Iterator[tuple[InputContainer, VideoStream, CodedSizeGuard]]:
        media = self._media
        with opened_picture(media.path, media.stream_index, self._settings.limits) as (container, stream, guard):
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            yield container, stream, guard

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
        """Yield the packets that contain a frame, up to the end or to the point of truncation."""
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
            if packet.size:  # a packet without data repeats the last frame, or is the end
                yield packet

    def _decoded(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        from av.error import FFmpegError

        try:
            return packet.decode()
        except FFmpegError:
            self.broken_packets += 1
            return []

    def _tail(self, state: _DecodeState) -> Iterator[VideoFrame]:
        """Decode the end of the file again in one thread, and yield the frames that are still missing.

        At the end of a file several threads hold frames. PyAV returns only those before a broken one, and libav
        supports no second flush. With one thread, each packet has its own error.
        """
        if state.shown_times and (yield from self._tail_from_keyframe(state)):
            return
        self.broken_packets = 0  # the second pass counts all of them again
        with self._opened(1) as opened_again:
            yield from islice(self._all_of(*opened_again), state.count, None)

    def _tail_from_keyframe(self, state: _DecodeState) -> Generator[VideoFrame, None, bool]:
        """Seek and yield the missing frames; return False if the seek failed or found no suitable position."""
        from av.error import FFmpegError

        latest, counted = state.latest, self.broken_packets
        with self._opened(1) as (container, stream, guard):
            # A file without an index may be read from a position between two keyframes.
            margin = 0 if self._media.has_index else SEEK_MARGIN_SECONDS
            try:
                container.seek(int(((latest or 0) * seconds_per_tick(stream) - margin) * _MICROSECONDS))
            except FFmpegError:
                return False
            started = False
            for frame in self._all_of(container, stream, guard, state):
                if not started and (frame.pts is None or latest is None or frame.pts > latest):
                    break
                started = True
                if state.is_later(frame):
                    yield frame
        if not started:
            self.broken_packets = counted
        return started

    def _all_of(
        self,
        container: InputContainer,
        stream: VideoStream,
        guard: CodedSizeGuard,
        counted: _DecodeState | None = None,
    ) -> Iterator[VideoFrame]:
        """Yield all frames from the current position; do not count broken packets again that `counted` includes."""
        for packet in self._packets(container, stream):
            guard.check(packet)
            before = self.broken_packets
            yield from self._decoded(packet)
            if counted is not None and not counted.is_later(packet):
                self.broken_packets = before
        yield from stream.decode(_end_of(stream))


def _end_of(stream: VideoStream) -> Packet[VideoStream]:
    """Return the packet that flushes the decoder of `stream`; the frames get their time base from it."""
    from av.packet import Packet

    end = Packet()
    end.time_base = seconds_per_tick(stream)
    return cast("Packet[VideoStream]", end)
