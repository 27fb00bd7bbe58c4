"""Read frames from the middle of a source, if they are certain to equal those of one pass over the whole file."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Self

from reel_modal._ffmpeg.frame_slots import FrameSpan, SpanError
from reel_modal._smart_render.hevc import HevcUnits
from reel_modal._smart_render.packet_reading import read_packets, refuse_container, refuse_late_start
from reel_modal._smart_render.packet_table import PacketTable
from reel_modal._smart_render.source import read_picture
from reel_modal.errors import SpliceError
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.media import MediaInfo
from reel_modal.media.frames import PixelFormat
from reel_modal.settings import Settings

__all__ = ["ExactSource", "refuse_inexact_headers"]


@dataclass(frozen=True, slots=True)
class ExactSource:
    """A source and its packets, which show that decoding may begin at any of `keyframes`.

    Attributes:
        media: The source.
        ticks: Timestamp of each frame in ticks, increasing.
        keyframes: Timestamps of the packets at which decoding can begin, in ticks, increasing.
    """

    media: MediaInfo
    ticks: Sequence[int]
    keyframes: Sequence[int]

    @classmethod
    def of(cls, media: MediaInfo, kept: tuple[Fraction, Fraction] | None = None) -> Self:
        """Read the packets of `media`; nothing is decoded.

        Args:
            media: The source.
            kept: Start and end of the part that was fetched, in seconds from the first frame; None is all.

        Raises:
            SpanError: Frames may differ if decoding begins in the middle; the message says why.
            InvalidMediaError: The file cannot be read.
        """
        refuse_inexact_headers(media)
        try:
            table = _READERS[media.codec](media, kept)
        except SpliceError as error:
            raise SpanError(str(error)) from error
        ticks, starts = array("q", sorted(table.pts)), table.entry_points()
        _refuse({
            "an edit list hides some of its frames": any(table.hidden),
            "two of its frames have the same timestamp": len(set(ticks)) < len(ticks),
            "its first frame depends on earlier ones, which are missing": not starts or starts[0] != 0,
        })  # fmt: skip
        return cls(media, ticks, [table.pts[place] for place in starts])

    def reader(
        self,
        shown: Sequence[int],
        *,
        pixel_format: PixelFormat,
        settings: Settings,
        first_seconds: Fraction = Fraction(0),
        interval_seconds: Fraction | None = None,
        retain_frames: int = 1,
    ) -> FrameReader:
        """Return a reader of some frames, which raises SpanError if one of them is damaged.

        Args:
            shown: Timestamps of the frames in ticks, increasing; a repeated one repeats the frame.
            pixel_format: Layout of the frames.
            settings: Limits of the decoder.
            first_seconds: Time of the first frame.
            interval_seconds: From each frame to the next; None keeps the times of the source.
            retain_frames: See `FrameReader`.
        """
        keyframe = self.keyframes[bisect_right(self.keyframes, shown[0]) - 1]
        reader = FrameReader(
            self.media,
            pixel_format=pixel_format,
            decoder="in_process",
            zero_copy=retain_frames == 1,
            retain_frames=retain_frames,
            settings=settings,
        )
        reader.read_span(FrameSpan(keyframe, shown, first_seconds, interval_seconds))
        return reader


def refuse_inexact_headers(media: MediaInfo) -> None:
    """Raise SpanError, with the reason, if the headers of `media` show that decoding cannot begin in the middle."""
    _refuse({
        "it is interlaced": media.interlaced or media.deinterlace is not None,
        "its HDR is converted to SDR": media.hdr_color is not None,
        "it has transparency": media.contents.alpha,
        "it is truncated": media.breaks_off,
        "its container has no index of all frames": not media.has_index,
    })  # fmt: skip
    if media.codec not in _READERS:
        raise SpanError(f"its codec is {media.codec}, not {' or '.join(_READERS)}")
    try:
        refuse_container(media)
    except SpliceError as error:
        raise SpanError(str(error)) from error


def _read_h264(media: MediaInfo, kept: tuple[Fraction, Fraction] | None) -> PacketTable:
    picture = read_picture(media, kept)
    _refuse({
        "its parameter sets change": len(picture.sets.sps) > 1,
        "its frames are coded as fields": picture.field_order != "frame",
    })  # fmt: skip
    return picture.table


def _read_hevc(media: MediaInfo, kept: tuple[Fraction, Fraction] | None) -> PacketTable:
    table = read_packets(media, HevcUnits.parse, kept).table
    refuse_late_start(table, media)
    return table


_READERS: Final = {"h264": _read_h264, "hevc": _read_hevc}


def _refuse(reasons: dict[str, bool]) -> None:
    """Raise SpanError with the first reason that holds."""
    for reason, holds in reasons.items():
        if holds:
            raise SpanError(reason)
