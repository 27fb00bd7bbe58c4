"""Read what a splice needs of an H.264 stream: packet table, parameter sets and field order, without decoding."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

from reel_modal._smart_render.h264.fields import FieldHeaders, FieldOrder, one_order
from reel_modal._smart_render.h264.parameter_sets import (
    AccessUnit,
    ParameterSets,
    parse_sps,
    pixel_format_of,
    x264_profile,
)
from reel_modal._smart_render.packet_reading import read_packets, refuse_container, refuse_late_start
from reel_modal._smart_render.packet_table import PacketTable, PictureTimes
from reel_modal.errors import SpliceError
from reel_modal.media import MediaInfo
from reel_modal.media.constant_rate import constant_rate_for
from reel_modal.media.frames import PixelFormat
from reel_modal.media.h264_headers import Sps
from reel_modal.media.timestamps import PacketTimes

__all__ = ["SpliceSource", "read_picture", "refuse_by_headers"]


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
    refuse_container(media)


def read_picture(
    media: MediaInfo, kept: tuple[Fraction, Fraction] | None = None, *, in_part: bool = False
) -> SpliceSource:
    """Read the packets of the video stream of `media`, without decoding.

    Args:
        media: The file.
        kept: See `read_packets`.
        in_part: See `read_packets`.

    Raises:
        SpliceError: The stream cannot be spliced; the message names the reason.
        InvalidMediaError: The file cannot be read to its end.
    """
    refuse_by_headers(media)
    packets = read_packets(media, _H264Units.parse, kept, in_part=in_part)
    table, units = packets.table, packets.units
    pixels = media.coded_size[0] * media.coded_size[1] * len(table)
    sps, pixel_format = _common([parse_sps(unit) for unit in units.sets.sps], media)
    times = PictureTimes.of(table, media.fps)
    refuse_late_start(table, media)
    shown_pts = array("q", sorted(table.pts))
    if not times.constant and not media.rate_by_all:
        shown = PacketTimes(tuple(shown_pts), len(shown_pts), table.last_ticks, table.tick_seconds)
        media = replace(media, fps=constant_rate_for(shown, [media.fps]), constant_rate=False, rate_by_all=True)
    return SpliceSource(
        media,
        table,
        shown_pts,
        times,
        units.sets,
        sps,
        pixel_format,
        "frame" if sps.frames_only or not units.orders else one_order(units.orders),
        8 * packets.size_bytes / pixels,
    )


class _H264Units:
    """The NAL units of an H.264 track: parameter sets and field orders of all packets so far.

    Args:
        sets: The parameter sets before the first packet.
    """

    def __init__(self, sets: ParameterSets) -> None:
        self.length_size: int = sets.length_size
        self.orders: set[FieldOrder] = set()
        self._take_sets(sets)

    @classmethod
    def parse(cls, record: bytes) -> Self:
        """Parse the content of an `avcC` box."""
        return cls(ParameterSets.parse(record))

    def take(self, packet: memoryview) -> bool:
        """Read the next packet; return whether it is an IDR access unit."""
        unit = AccessUnit.parse(packet, self.length_size)
        if unit.sets:
            self._take_sets(self.sets.with_units(unit.sets))
        if self._headers is not None:
            self.orders.add(self._headers.order(packet, self.length_size))
        return unit.idr

    def take_flag(self, *, keyframe: bool) -> bool:
        """Return whether a packet whose data is not read counts as an IDR access unit: if it is a keyframe."""
        return keyframe

    def _take_sets(self, sets: ParameterSets) -> None:
        """Use `sets` for the following packets."""
        self.sets = sets
        allow_fields = not all(parse_sps(unit).frames_only for unit in sets.sps)
        self._headers = FieldHeaders.of(sets) if allow_fields else None


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
