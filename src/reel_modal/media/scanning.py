"""Read all packets of a video stream without decoding: frame count, duration and frame rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reel_modal.media.constant_rate import MOST_LATE_FRAMES, FrameGrid, constant_rate_for
from reel_modal.media.headers import claimed_rates, picture_of
from reel_modal.media.open import opened, packets_of
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.timestamps import PacketTimes, choose_rate

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

S = TypeVar("S", bound="Stream")

__all__ = ["MediaScan", "readable_packets", "scan_packets"]


@dataclass(frozen=True, slots=True)
class MediaScan:
    """Facts from all packets of the video stream.

    Attributes:
        frame_count: Number of packets that are shown; edit lists are applied.
        duration_seconds: From the first frame to the end of the last.
        fps: The frame rate of the whole file; for a variable rate, the standard rate for the output.
        constant_rate: Whether all frames are evenly spaced.
        times: Presentation time of each frame.
        sound_ends: Timestamp of the end of each audio stream, by stream index, if no header states it.
    """

    frame_count: int
    duration_seconds: Fraction
    fps: Fraction
    constant_rate: bool
    times: PacketTimes = field(repr=False, compare=False)
    sound_ends: Mapping[int, Fraction] = field(default_factory=dict, repr=False, compare=False)

    def grid(self, rate: Fraction) -> FrameGrid:
        """Return which frames are dropped and repeated at a constant rate.

        At `fps`, which was chosen to keep them, a frame may be slightly late; at other rates the nearest one is
        shown.
        """
        late = MOST_LATE_FRAMES if rate == self.fps else 0
        return FrameGrid.of(self.times, rate, most_late_frames=late)


def scan_packets(
    path: Path,
    *,
    start_seconds: Fraction | None = None,
    check: Callable[[], None] | None = None,
    to_break: bool = False,
) -> MediaScan:
    """Read every packet of the video stream, without decoding, and return the facts.

    Args:
        path: The file.
        start_seconds: Timestamp of the first frame that can be decoded; earlier frames are not counted.
        check: Called for each packet; it may raise an exception to stop.
        to_break: Whether a truncated file counts up to its break, as it does for decoders.

    Raises:
        InvalidMediaError: The file cannot be read, or has no video stream.
    """
    with opened(path, packets_only=True) as container:
        stream = picture_of(container, path)
        sounds = [each for each in container.streams.audio if each.duration is None]
        ends: dict[int, Fraction] = {}
        read = readable_packets if to_break else packets_of
        packets = _pictures(read(container, stream, *sounds), stream, ends)
        times = PacketTimes.of(packets if check is None else _checked(packets, check), stream)
        claims = claimed_rates(stream)
    if start_seconds is not None:
        times = times.since(start_seconds)
    even = times.evenly_spaced
    rate = choose_rate(times, claims) if even else constant_rate_for(times, claims)
    return MediaScan(times.count, times.span_seconds(rate), rate, even, times, ends)


def readable_packets(container: InputContainer, *streams: S) -> Iterator[Packet[S]]:
    """Yield the packets of `streams` up to the end or to the point of truncation."""
    from av.error import FFmpegError

    with suppress(FFmpegError):
        yield from packets_of(container, *streams)


def _pictures(
    packets: Iterator[Packet[Any]], stream: VideoStream, sound_ends: dict[int, Fraction]
) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of `stream`; store the end of each other stream in `sound_ends`."""
    for packet in packets:
        if packet.stream_index == stream.index:
            yield packet
        elif packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * seconds_per_tick(packet)
            sound_ends[packet.stream_index] = max(end, sound_ends.get(packet.stream_index, end))


def _checked(packets: Iterator[Packet[VideoStream]], check: Callable[[], None]) -> Iterator[Packet[VideoStream]]:
    for packet in packets:
        check()
        yield packet
