"""Read the packet table of a video stream, without decoding."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from reel_modal._smart_render.packet_table import PacketTable, decoding_times
from reel_modal.errors import SpliceError
from reel_modal.media import MediaInfo
from reel_modal.media.open import opened, packets_of
from reel_modal.media.pyav import seconds_per_tick

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["Packets", "Units", "read_packets", "refuse_container", "refuse_late_start"]

_CONTAINERS: Final = frozenset({"mov", "mp4", "matroska"})
_FAR_SECONDS: Final = 15
"""At most the margin that is fetched around the shown part of a file in a store."""


class Units(Protocol):
    """The NAL units of a track.

    Attributes:
        length_size: Bytes of the length before each NAL unit.
    """

    length_size: int

    def take(self, packet: memoryview) -> bool:
        """Read the next packet; return whether no later packet refers to anything before it."""

    def take_flag(self, *, keyframe: bool) -> bool:
        """Return the same for a packet whose data is not read, from the keyframe flag of the container's index."""


AnyUnits = TypeVar("AnyUnits", bound=Units)


@dataclass(frozen=True, slots=True)
class Packets(Generic[AnyUnits]):
    """The packets of a video stream.

    Attributes:
        table: Their times and IDR flags.
        units: What was read from them.
        size_bytes: Their total size.
    """

    table: PacketTable
    units: AnyUnits
    size_bytes: int


def refuse_container(media: MediaInfo) -> None:
    """Raise SpliceError, with the reason, if the container of `media` stores too little about its packets."""
    if not _CONTAINERS & set(media.format.split(",")):
        raise SpliceError(f"its container is {media.format}; only MP4, MOV and Matroska can be spliced")


def refuse_late_start(table: PacketTable, media: MediaInfo) -> None:
    """Raise SpliceError if the first frame of `media` is not that of the first packet that is shown."""
    first = min(at for at, hidden in zip(table.pts, table.hidden, strict=True) if not hidden)
    if first * table.tick_seconds != media.start_seconds:
        raise SpliceError("its first frame does not decode")


def read_packets(
    media: MediaInfo,
    parse_record: Callable[[bytes], AnyUnits],
    kept: tuple[Fraction, Fraction] | None = None,
    *,
    in_part: bool = False,
) -> Packets[AnyUnits]:
    """Read the packets of the video stream of `media`, without decoding.

    Args:
        media: The file.
        parse_record: Parses the decoder configuration record of the track.
        kept: Start and end of the kept part, in seconds from the first shown frame; None keeps all. Of packets more
            than 15 s away from it only the times are used, so their data need not be fetched from a store.
        in_part: Use the container's index for packets whose data is not fetched (it reads as zeros).

    Raises:
        SpliceError: The packets are not supported; the message names the reason.
        InvalidMediaError: The file cannot be read to its end.
    """
    with opened(media.path, packets_only=media.keeps_decoding_times) as container:
        stream = next(stream for stream in container.streams.video if stream.index == media.stream_index)
        units = parse_record(stream.codec_context.extradata or b"")
        tick_seconds = seconds_per_tick(stream)
        reading = _Reading(units, in_part=in_part)
        if kept is not None:
            first, end = (media.start_seconds + seconds for seconds in kept)
            reading.near = ((first - _FAR_SECONDS) / tick_seconds, (end + _FAR_SECONDS) / tick_seconds)
        if media.keeps_decoding_times:
            # Keyframe flags of the container's index, for the packets that are not parsed.
            reading.keyframes = [entry.is_keyframe for entry in stream.index_entries]
        for packet in packets_of(container, stream):
            if packet.size:
                reading.take(packet)
    if all(reading.hidden):
        raise SpliceError("none of its frames is shown")
    dts = reading.dts if reading.dts_known else decoding_times(reading.pts)
    last_ticks = reading.last_ticks if media.keeps_decoding_times else reading.latest_ticks
    table = PacketTable(reading.pts, dts, reading.idr, reading.hidden, tick_seconds, last_ticks)
    return Packets(table, units, reading.size_bytes)


class _Reading:
    """Collects times and IDR flags from packets."""

    def __init__(self, units: Units, *, in_part: bool) -> None:
        self.units = units
        self.in_part = in_part
        self.near: tuple[Fraction, Fraction] | None = None
        self.keyframes: Sequence[bool] = ()
        self.pts = array("q")
        self.dts = array("q")
        self.idr = bytearray()
        self.hidden = bytearray()
        self.size_bytes = 0
        self.dts_known = True
        # Duration of the last packet in decoding order, and of the last one in output order.
        self.last_ticks = self.latest_ticks = 0
        self.latest: int | None = None

    def take(self, packet: Packet[VideoStream]) -> None:
        """Add the next packet."""
        if packet.pts is None:
            raise SpliceError("one of its packets has no timestamp")
        if packet.has_sidedata("new_extradata"):
            raise SpliceError("its parameter sets change within the stream")
        if packet.is_corrupt:
            raise SpliceError("one of its packets is damaged")
        data = memoryview(packet)
        near = self.near is None or self.near[0] <= packet.pts <= self.near[1]
        missing = self.in_part and not any(data[: self.units.length_size])
        if (near and not missing) or len(self.pts) >= len(self.keyframes):
            idr = self.units.take(data)
        else:
            idr = self.units.take_flag(keyframe=self.keyframes[len(self.pts)])
        self.last_ticks = packet.duration or 0
        if self.latest is None or packet.pts > self.latest:
            self.latest, self.latest_ticks = packet.pts, self.last_ticks
        self.pts.append(packet.pts)
        self.dts.append(packet.pts if packet.dts is None else packet.dts)
        self.dts_known = self.dts_known and packet.dts is not None
        self.idr.append(idr)
        self.hidden.append(packet.is_discard)
        self.size_bytes += packet.size
