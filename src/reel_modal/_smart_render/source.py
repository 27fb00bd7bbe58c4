"""Read the packet table of a video stream for a splice: times, IDR flags and parameter sets, without decoding."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from reel_modal._smart_render.h264.fields import FieldHeaders, FieldOrder, one_order
from reel_modal._smart_render.h264.parameter_sets import (
    AccessUnit,
    ParameterSets,
    parse_sps,
    pixel_format_of,
    x264_profile,
)
from reel_modal._smart_render.packet_table import PacketTable, PictureTimes, decoding_times
from reel_modal.errors import SpliceError
from reel_modal.media import MediaInfo
from reel_modal.media.constant_rate import constant_rate_for
from reel_modal.media.frames import PixelFormat
from reel_modal.media.h264_headers import Sps
from reel_modal.media.open import opened, packets_of
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.timestamps import PacketTimes

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["SpliceSource", "read_picture", "refuse_by_headers"]

_CONTAINERS: Final = frozenset({"mov", "mp4", "matroska"})
_FAR_SECONDS: Final = 15
"""At most the margin that is fetched around the shown part of a file in a store."""


@dataclass(frozen=True, slots=True)
class SpliceSource:
    """A video stream that can be spliced.

    Attributes:
        media: The file.
        table: The packets of the stream.
        shown_pts: Their `pts` in output order.
        times: Their times in the output.
        sets: All parameter sets, including those inside packets.
        sps: One sequence parameter set that represents all, with the values that an encoder must match.
        pixel_format: Pixel format of the stored frames.
        field_order: Field order of all frames; `frame` if they are progressive.
        bits_per_pixel: Mean coded bits per pixel.
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
    """Raise SpliceError, with the reason, if the codec or the container of `media` cannot be spliced."""
    if media.codec != "h264":
        raise SpliceError(f"its codec is {media.codec}; only h264 can be spliced")
    if not _CONTAINERS & set(media.format.split(",")):
        raise SpliceError(f"its container is {media.format}; only MP4, MOV and Matroska can be spliced")


def read_picture(
    media: MediaInfo, kept: tuple[Fraction, Fraction] | None = None, *, in_part: bool = False
) -> SpliceSource:
    """Read the packets of the video stream of `media`, without decoding.

    Args:
        media: The file.
        kept: Start and end of the kept part, in seconds from the first shown frame; None keeps all. Of packets more
            than 15 s away from it only the times are used, so their data need not be fetched from a store.
        in_part: Use the container's index for packets whose data is not fetched (it reads as zeros).

    Raises:
        SpliceError: The stream cannot be spliced; the message names the reason.
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
    pixels = media.coded_size[0] * media.coded_size[1] * len(table)
    sps, pixel_format = _common([parse_sps(unit) for unit in reading.sets.sps], media)
    times = PictureTimes.of(table, media.fps)
    if min(at for at, hidden in zip(table.pts, table.hidden, strict=True) if not hidden) * tick_seconds != (
        media.start_seconds
    ):
        raise SpliceError("its first frame does not decode")
    shown_pts = array("q", sorted(table.pts))
    if not times.constant and not media.rate_by_all:
        shown = PacketTimes(tuple(shown_pts), len(shown_pts), last_ticks, tick_seconds)
        media = replace(media, fps=constant_rate_for(shown, [media.fps]), constant_rate=False, rate_by_all=True)
    return SpliceSource(
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
    """Collects times, IDR flags, parameter sets and field orders from packets."""

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
        # Duration of the last packet in decoding order, and of the last one in output order.
        self.last_ticks = self.latest_ticks = 0
        self.latest: int | None = None

    def take_sets(self, sets: ParameterSets) -> None:
        """Use `sets` for the following packets."""
        self.sets = sets
        allow_fields = not all(parse_sps(unit).frames_only for unit in sets.sps)
        self.headers = FieldHeaders.of(sets) if allow_fields else None

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
        missing = self.in_part and not any(data[: self.sets.length_size])
        if (near and not missing) or len(self.pts) >= len(self.keyframes):
            unit = AccessUnit.parse(data, self.sets.length_size)
            if unit.sets:
                self.take_sets(self.sets.with_units(unit.sets))
            if self.headers is not None:
                self.orders.add(self.headers.order(data, self.sets.length_size))
        else:
            unit = AccessUnit(self.keyframes[len(self.pts)], ())
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
    """Return one sequence parameter set that an encoder must match, and its pixel format."""
    first = all_sps[0]
    pixel_format, profile = pixel_format_of(first), x264_profile(first)
    if pixel_format is None or pixel_format != media.pixel_format.replace("yuvj", "yuv"):
        kind = f"profile {first.profile_idc}, chroma format {first.chroma_format}, {first.bit_depths[0]} bits"
        raise SpliceError(f"its frames are {media.pixel_format} ({kind}), which x264 cannot match")
    for sps in all_sps:
        if (pixel_format_of(sps), sps.frames_only, x264_profile(sps)) != (pixel_format, first.frames_only, profile):
            raise SpliceError("its parameter sets differ in profile, pixel format or field coding")
    most = max(all_sps, key=lambda sps: (sps.level_idc, sps.reference_frames))
    return replace(most, profile_idc=first.profile_idc), pixel_format
