"""Read all packets of a picture, without decoding: how many, how long, and at which rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reel_modal.media.headers import claimed_rates, picture_of
from reel_modal.media.output_rate import MOST_LATE_FRAMES, FrameGrid, output_rate
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.timestamps import PacketTimes, choose_rate
from reel_modal.media.untrusted import opened, packets_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

S = TypeVar("S", bound="Stream")

__all__ = ["MediaScan", "readable_packets", "scan_packets"]


@dataclass(frozen=True, slots=True)
class MediaScan:
    """What the packets of the picture say, all of them.

    Attributes:
        frame_count: Packets that are shown, edit lists honored.
        duration_seconds: From the first picture to the end of the last.
        fps: The rate by the whole file; if it varies, the standard rate at which it is shown.
        constant_rate: Whether they are evenly spaced, all through.
        times: When each picture is shown.
        sound_ends: When each stream of sound ends, by its number, on the file's clock, if no header says it.
    """

    frame_count: int
    duration_seconds: Fraction
    fps: Fraction
    constant_rate: bool
    times: PacketTimes = field(repr=False, compare=False)
    sound_ends: Mapping[int, Fraction] = field(default_factory=dict, repr=False, compare=False)

    def grid(self, rate: Fraction) -> FrameGrid:
        """Return which pictures are dropped and repeated at a constant rate.

        At `fps`, which was chosen to keep them, a picture may be a little late; at others the nearest one is shown.
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
    """Read every packet of the picture, without decoding, and say what they say.

    Args:
        path: The file.
        start_seconds: Time of the first picture that decodes: what is before it does not count.
        check: Called at each packet; may raise to stop.
        to_break: Whether a file that breaks off counts up to there, as it does for those who decode it.

    Raises:
        InvalidMediaError: The file cannot be read, or has no picture.
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
    rate = choose_rate(times, claims) if even else output_rate(times, claims)
    return MediaScan(times.count, times.span_seconds(rate), rate, even, times, ends)


def readable_packets(container: InputContainer, *streams: S) -> Iterator[Packet[S]]:
    """Yield the packets of `streams` up to the end or to the place at which the file breaks off."""
    from av.error import FFmpegError

    with suppress(FFmpegError):
        yield from packets_of(container, *streams)


def _pictures(
    packets: Iterator[Packet[Any]], stream: VideoStream, sound_ends: dict[int, Fraction]
) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of `stream`; when those of other streams end goes into `sound_ends`."""
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
