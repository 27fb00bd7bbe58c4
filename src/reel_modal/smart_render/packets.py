"""Reads every packet of a picture, as far as a splice must know it: times and kinds, without the data.

It must not know what changes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from reel_modal.errors import SpliceError
from reel_modal.frames import PixelFormat
from reel_modal.media import MediaInfo
from reel_modal.media.output_rate import output_rate
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.timestamps import PacketTimes
from reel_modal.media.untrusted import opened, packets_of
from reel_modal.smart_render.fields import FieldHeaders, FieldOrder, one_order
from reel_modal.smart_render.h264 import ParameterSets, PictureUnit, Sps
from reel_modal.smart_render.picture_times import PacketTable, PictureTimes, decoding_times

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["Picture", "read_picture", "refuse_by_headers"]

_CONTAINERS: Final = frozenset({"mov", "mp4", "matroska"})
_FAR_SECONDS: Final = 15
"""No further than what is fetched around the part that is shown of a file in a store."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that can be spliced.

    Attributes:
        media: The file.
        table: Its packets.
        shown_pts: Their `pts` in the order of showing.
        times: When they are due in the output.
        sets: All its parameter sets, those within packets too.
        sps: What its sequence parameter sets say that concerns an encoder, one for all.
        pixel_format: Layout of its frames, as stored.
        field_order: Whether its pictures are two fields each, all alike.
        bits_per_pixel: Mean size of a coded pixel.
    """

    media: MediaInfo
    table: PacketTable
    shown_pts: Sequence[int]
    times: PictureTimes
    sets: ParameterSets
    sps: Sps
    pixel_format: PixelFormat
    field_order: FieldOrder
    bits_per_pixel: float


def refuse_by_headers(media: MediaInfo) -> None:
    """Return where `media` is of a codec and a container that can be spliced.

    Raises:
        SpliceError: It is not; the message says why.
    """
    if media.codec != "h264":
        raise SpliceError(f"its codec is {media.codec}; only h264 can be spliced")
    if not _CONTAINERS & set(media.format.split(",")):
        raise SpliceError(f"its container is {media.format}; only MP4, MOV and Matroska can be spliced")


def read_picture(
    media: MediaInfo, kept: tuple[Fraction, Fraction] | None = None, *, in_part: bool = False
) -> Picture:
    """Read the packets of the picture of `media`, without decoding.

    Args:
        media: The file.
        kept: First moment and end of what matters, in seconds from the first picture; None is all. Packets far from
            it count by their times alone: of a file in a store their data need not be here.
        in_part: Take the headers' word for packets that are not here and read as zeros.

    Raises:
        SpliceError: It is coded in a way that is not spliced here; the message says how.
        InvalidMediaError: The file cannot be read to its end.
    """
    refuse_by_headers(media)
    with opened(media.path, packets_only=media.keeps_decoding_times) as container:
        stream = next(stream for stream in container.streams.video if stream.index == media.stream_index)
        sets = ParameterSets.parse(stream.codec_context.extradata or b"")
        tick_seconds = seconds_per_tick(stream)
        reading = _Reading(sets, in_part=in_part)
        if kept is not None:
            first, end = (media.start_seconds + seconds for seconds in kept)
            reading.near = ((first - _FAR_SECONDS) / tick_seconds, (end + _FAR_SECONDS) / tick_seconds)
        if media.keeps_decoding_times:
            # The headers' word, for each packet that is not looked into.
            reading.keyframes = [entry.is_keyframe for entry in stream.index_entries]
        for packet in packets_of(container, stream):
            if packet.size:
                reading.take(packet)
    if all(reading.hidden):
        raise SpliceError("no picture of it is shown")
    dts = reading.dts if reading.dts_known else decoding_times(reading.pts)
    last_ticks = reading.last_ticks if media.keeps_decoding_times else reading.latest_ticks
    table = PacketTable(reading.pts, dts, reading.idr, reading.hidden, tick_seconds, last_ticks)
    pixels = media.coded_size[0] * media.coded_size[1] * len(table)
    sps, pixel_format = _common([Sps.parse(unit) for unit in reading.sets.sps], media)
    times = PictureTimes.of(table, media.fps)
    if min(at for at, hidden in zip(table.pts, table.hidden, strict=True) if not hidden) * tick_seconds != (
        media.start_seconds
    ):
        raise SpliceError("its first picture does not decode")
    shown_pts = array("q", sorted(table.pts))
    if not times.constant and not media.rate_by_all:
        found = PacketTimes(tuple(shown_pts), len(shown_pts), last_ticks, tick_seconds)
        media = replace(media, fps=output_rate(found, [media.fps]), constant_rate=False, rate_by_all=True)
    return Picture(
        media,
        table,
        shown_pts,
        times,
        reading.sets,
        sps,
        pixel_format,
        "frame" if sps.frames_only or not reading.orders else one_order(reading.orders),
        8 * reading.size_bytes / pixels,
    )


class _Reading:
    """Gathers what packets say."""

    def __init__(self, sets: ParameterSets, *, in_part: bool) -> None:
        self.take_sets(sets)
        self.in_part = in_part
        self.orders: set[FieldOrder] = set()
        self.near: tuple[Fraction, Fraction] | None = None
        self.keyframes: Sequence[bool] = ()
        self.pts = array("q")
        self.dts = array("q")
        self.idr = bytearray()
        self.hidden = bytearray()
        self.size_bytes = 0
        self.dts_known = True
        # Of the packet that is decoded last, and of the one that is shown last.
        self.last_ticks = self.latest_ticks = 0
        self.latest: int | None = None

    def take_sets(self, sets: ParameterSets) -> None:
        """Go by `sets` from here on."""
        self.sets = sets
        allow_fields = not all(Sps.parse(unit).frames_only for unit in sets.sps)
        self.headers = FieldHeaders.of(sets) if allow_fields else None

    def take(self, packet: Packet[VideoStream]) -> None:
        """Take the next packet."""
        if packet.pts is None:
            raise SpliceError("one of its packets has no time")
        if packet.has_sidedata("new_extradata"):
            raise SpliceError("its parameter sets change in mid-stream")
        if packet.is_corrupt:
            raise SpliceError("one of its packets is damaged")
        data = memoryview(packet)
        near = self.near is None or self.near[0] <= packet.pts <= self.near[1]
        missing = self.in_part and not any(data[: self.sets.length_size])
        if (near and not missing) or len(self.pts) >= len(self.keyframes):
            unit = PictureUnit.parse(data, self.sets.length_size)
            if unit.sets:
                self.take_sets(self.sets.with_units(unit.sets))
            if self.headers is not None:
                self.orders.add(self.headers.order(data, self.sets.length_size))
        else:
            unit = PictureUnit(self.keyframes[len(self.pts)], ())
        self.last_ticks = packet.duration or 0
        if self.latest is None or packet.pts > self.latest:
            self.latest, self.latest_ticks = packet.pts, self.last_ticks
        self.pts.append(packet.pts)
        self.dts.append(packet.pts if packet.dts is None else packet.dts)
        self.dts_known = self.dts_known and packet.dts is not None
        self.idr.append(unit.idr)
        self.hidden.append(packet.is_discard)
        self.size_bytes += packet.size


def _common(all_sps: Sequence[Sps], media: MediaInfo) -> tuple[Sps, PixelFormat]:
    """Return the one sequence parameter set that an encoder must follow, and the layout of its frames."""
    first = all_sps[0]
    if first.pixel_format is None or first.pixel_format != media.pixel_format.replace("yuvj", "yuv"):
        kind = f"profile {first.profile_idc}, chroma format {first.chroma_format}, {first.bit_depths[0]} bits"
        raise SpliceError(f"its pictures are {media.pixel_format} ({kind}), which new ones cannot match")
    for sps in all_sps:
        if (sps.pixel_format, sps.frames_only, sps.profile) != (first.pixel_format, first.frames_only, first.profile):
            raise SpliceError("its parameter sets differ in profile, layout of samples, or whether there are fields")
    most = max(all_sps, key=lambda sps: (sps.level_idc, sps.reference_frames))
    return replace(most, profile_idc=first.profile_idc), first.pixel_format
