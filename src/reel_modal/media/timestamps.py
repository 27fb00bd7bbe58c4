"""Determine the frame rate and spacing of a video from the timestamps of its packets.

Pure functions: no files are opened.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING, Final, Self

from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.second_fields import SecondFields

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

__all__ = ["PacketTimes", "UntimedStart", "choose_rate", "ends_early", "last_shown", "same_rate", "tagged_end"]

# 30 and 30000/1001 differ by a factor of 1.001. A smaller difference means the same rate, written by an imprecise
# muxer.
_NOT_NTSC: Final = Fraction(1, 1500)
_SAME: Final = Fraction(1, 100_000)
_STANDARD_RATES: Final = tuple(
    sorted(
        [Fraction(n) for n in (10, 12, 15, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)]
        + [Fraction(n * 1000, 1001) for n in (12, 15, 24, 30, 48, 60, 120, 240)]
    )
)
_DURATION_TAG: Final = re.compile(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)", re.ASCII)
_NEW_RECORD: Final = "new_extradata"
_VP8: Final = frozenset({"vp8", "libvpx"})
_FALLBACK: Final = Fraction(25)
_SLOWEST: Final = Fraction(1, 60)
_FASTEST: Final = Fraction(1000)
# Matroska stores milliseconds; an interval contains two roundings.
_JITTER_SECONDS: Final = Fraction(15, 10000)
# A shorter duration of a last frame is one tick, or another number that a muxer writes for an unknown duration.
_LEAST_STATED_SECONDS: Final = Fraction(4, 1000)
_VISIBLE_SECONDS: Final = Fraction(1, 10)


@dataclass(frozen=True, slots=True)
class UntimedStart:
    """Frames at the start of a file without timestamps, because Matroska cannot store times before its zero.

    Attributes:
        count: Number of frames.
        interval_seconds: From each frame to the next, and from the last one to the first frame with a timestamp.
    """

    count: int
    interval_seconds: Fraction


@dataclass(frozen=True, slots=True)
class PacketTimes:
    """The sorted presentation times of the packets that are shown; each frame lasts until the next one begins.

    Attributes:
        ticks: Times in units of `tick_seconds`; empty if the container stores none. Empty packets are included: they
            repeat the previous frame.
        count: Number of packets that contain a frame, with or without a timestamp.
        last_duration_ticks: Duration of the last packet, 0 if unknown.
        tick_seconds: The time base, which limits the precision of all times.
        untimed_start: Frames at the start whose times were counted back from the first one that has a timestamp.
        second_fields: Packets that contain only the second field of a frame; they are not counted in `count`.
    """

    ticks: tuple[int, ...]
    count: int
    last_duration_ticks: int
    tick_seconds: Fraction
    untimed_start: UntimedStart | None = None
    second_fields: int = 0

    @classmethod
    def of(cls, packets: Iterable[Packet[VideoStream]], stream: VideoStream) -> Self:
        """Read the times of `packets`, without those that are decoded but never shown.

        Args:
            packets: In file order, which is decoding order; from the start of the file, not always to its end.
            stream: The stream of the packets.
        """
        shown: list[tuple[int | None, int]] = []
        count = newest_duration = untimed = paired = 0
        is_second = _second_fields(stream)
        newest_dts: int | None = None
        marked = _marks_shown(stream)
        ended = False
        for packet in packets:
            ended = packet.dts is None and not packet.size  # PyAV's last packet, which flushes a decoder
            newest_dts = newest_dts if packet.dts is None else packet.dts
            if packet.size and is_second(packet):
                paired += 1
                newest_duration += packet.duration or 0
                if shown and not packet.is_discard:
                    shown[-1] = (shown[-1][0], shown[-1][1] + (packet.duration or 0))
                continue
            if packet.size:
                newest_duration = packet.duration or 0
            if _is_shown(packet, marked=marked):
                shown.append((packet.pts, packet.duration or 0))
                count += packet.size > 0
                untimed += packet.pts is None and packet.dts is None
        timed = sorted((pts, duration) for pts, duration in shown if pts is not None)
        if not ended and newest_dts is not None:
            # Packets are in decoding order: all frames up to the last decoding time are known.
            timed = [item for item in timed if item[0] <= newest_dts]
        last_duration = 0
        if ended and timed:
            last_duration = timed[-1][1]
            last_duration = newest_duration if _counts_by_decoding(stream) else last_duration
            if (end_seconds := tagged_end(stream)) is not None:  # Matroska's packets may have no duration
                last_duration = max(last_duration, round(end_seconds / seconds_per_tick(stream)) - timed[-1][0])
        ticks = tuple(pts for pts, _ in timed)
        times = cls(ticks, count, last_duration, seconds_per_tick(stream), second_fields=paired)
        return times._counted_back(untimed) if untimed and timed and _is_matroska(stream) else times

    def _counted_back(self, count: int) -> Self:
        """Return the times, preceded by those of `count` earlier frames."""
        intervals = [interval for interval in self.intervals if interval > 0]
        if not intervals:
            return self
        mean = Fraction(self.ticks[-1] - self.ticks[0], len(self.intervals))
        interval = mean if self.evenly_spaced else Fraction(median_low(intervals))
        before = tuple(self.ticks[0] - round(number * interval) for number in range(count, 0, -1))
        start = UntimedStart(count, interval * self.tick_seconds)
        return replace(self, ticks=before + self.ticks, untimed_start=start)

    def since(self, seconds: Fraction) -> Self:
        """Return the times from `seconds` on; frames before the first one that can be decoded are never shown."""
        ticks = self.ticks[bisect_left(self.ticks, seconds / self.tick_seconds) :]
        count = self.count - (len(self.ticks) - len(ticks))
        return replace(self, ticks=ticks, count=count)

    def after(self, seconds: Fraction) -> Fraction | None:
        """Return the time of the first frame after `seconds`; None if no frame follows."""
        place = bisect_right(self.ticks, seconds / self.tick_seconds)
        return self.ticks[place] * self.tick_seconds if place < len(self.ticks) else None

    @property
    def first_seconds(self) -> Fraction:
        """Time of the first frame."""
        return self.ticks[0] * self.tick_seconds if self.ticks else Fraction(0)

    @property
    def intervals(self) -> list[int]:
        """Ticks from each frame to the next."""
        return [after - before for before, after in pairwise(self.ticks)]

    @property
    def evenly_spaced(self) -> bool:
        """Whether all intervals are equal, except for the rounding of times.

        False as well if the file shows the last frame for a visibly shorter time.
        """
        intervals = self.intervals
        if not intervals:
            return True
        usual = Fraction(self.ticks[-1] - self.ticks[0], len(intervals))
        if ends_early(self.last_duration_ticks * self.tick_seconds, usual * self.tick_seconds):
            return False
        allowed = max(Fraction(2), min(_JITTER_SECONDS / self.tick_seconds, usual / 8))
        # If a tick is as long as a frame, rounding cannot explain a missing frame.
        allowed = min(allowed, usual / 2)
        return usual - allowed <= min(intervals) and max(intervals) <= usual + allowed

    def span_seconds(self, rate: Fraction) -> Fraction:
        """Return the seconds from the first frame to the end of the last."""
        if not self.ticks:
            return self.count / rate
        return self.end_seconds(rate) - self.first_seconds

    @property
    def stated_seconds(self) -> Fraction:
        """Seconds from the first frame to the end of the last one as stated by the file, even if it is very short."""
        return (self.ticks[-1] + self.last_duration_ticks) * self.tick_seconds - self.first_seconds

    def end_seconds(self, rate: Fraction) -> Fraction:
        """Return the time at which the last frame ends.

        Its duration is not confirmed by a next timestamp, and many muxers write 0 or 1 tick. A duration of less than
        half a frame counts as unknown: the last frame then lasts one frame.

        Args:
            rate: Frames per second.
        """
        duration = self.last_duration_ticks * self.tick_seconds
        return self.ticks[-1] * self.tick_seconds + (duration if 2 * duration * rate >= 1 else 1 / rate)


def ends_early(last_seconds: Fraction, usual_seconds: Fraction) -> bool:
    """Return whether the last of evenly spaced frames is shown for a visibly shorter time than the others.

    Args:
        last_seconds: Its duration, as stated by the file.
        usual_seconds: Interval between two frames.
    """
    return last_seconds >= _LEAST_STATED_SECONDS and usual_seconds - last_seconds > _VISIBLE_SECONDS


def last_shown(packets: Iterable[Packet[VideoStream]], stream: VideoStream, tick: int) -> int | None:
    """Return the time in ticks of the last of `packets` shown at or before `tick`; None if none of them is.

    It reads no more packets than necessary: a frame is never shown before it is decoded.
    """
    last, marked, is_second = None, _marks_shown(stream), _second_fields(stream)
    for packet in packets:
        second = bool(packet.size) and is_second(packet)
        if packet.pts is not None and packet.pts <= tick and not second and _is_shown(packet, marked=marked):
            last = packet.pts if last is None else max(last, packet.pts)
        if packet.dts is not None and packet.dts > tick:
            break
    return last


def choose_rate(times: PacketTimes, claims: Sequence[Fraction | None]) -> Fraction:
    """Return the frame rate that the timestamps confirm.

    A header's claim is accepted if it is within the rounding error of the times; 57600 or 90000 frames per second are
    not. If frames are not evenly spaced, the rate is that of the usual interval.

    Args:
        times: Times of packets.
        claims: Rates that headers claim, most reliable first.
    """
    sane = [claim for claim in claims if claim is not None and _SLOWEST <= claim <= _FASTEST]
    intervals = [interval for interval in times.intervals if interval > 0]
    if not intervals:
        duration = times.last_duration_ticks * times.tick_seconds
        allowed = max(times.tick_seconds, _NOT_NTSC * duration)
        # The claimed rate of a single frame may be that of its fields, which is twice as high.
        fields = [rate / 2 for rate in sane]
        claimed = [rate for rate in (*sane, *fields) if duration and abs(duration - 1 / rate) <= allowed]
        return next(iter([*claimed, *sane]), _FALLBACK)
    if times.evenly_spaced:
        interval = Fraction(times.ticks[-1] - times.ticks[0], len(times.intervals)) * times.tick_seconds
        # The mean of n intervals is off by at most two half ticks over the whole.
        uncertain = max(times.tick_seconds, Fraction(1, 100_000)) / len(intervals)
    else:
        interval = median_low(intervals) * times.tick_seconds
        uncertain = max(times.tick_seconds, Fraction(1, 1000))
    allowed = max(uncertain / interval, _NOT_NTSC)
    for rate in (*sane, *sorted(_STANDARD_RATES, key=lambda rate: abs(rate * interval - 1))):
        if abs(rate * interval - 1) <= allowed:
            # Some containers write 30000/1001 as 2997/100.
            return next((standard for standard in _STANDARD_RATES if abs(rate / standard - 1) < _SAME), rate)
    return (1 / interval).limit_denominator(1001)


def same_rate(one: Fraction, other: Fraction) -> bool:
    """Return whether two frame rates are the same, except for the rounding of the rate or its times by containers."""
    return abs(one / other - 1) <= _NOT_NTSC


def tagged_end(stream: Stream) -> Fraction | None:
    """Return the end of a stream from the tag that Matroska writers put into a file; None if it has none."""
    tag = _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", ""))
    return None if tag is None else int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3])


def _counts_by_decoding(stream: VideoStream) -> bool:
    """Return whether a packet's duration is the time until the next one is decoded, as in MP4 and MOV.

    Only the last one is independent of that: it is the duration of the frame that is shown last.
    """
    return "mov" in stream.container.format.name.split(",")


def _is_matroska(stream: VideoStream) -> bool:
    return "matroska" in stream.container.format.name.split(",")


def _marks_shown(stream: VideoStream) -> bool:
    """Return whether the packets themselves mark if they are shown, as in VP8.

    Call it before anything is decoded: PyAV 19 crashes when asked for the name of a codec that could not be opened.
    """
    return stream.codec_context.name in _VP8


def _second_fields(stream: VideoStream) -> Callable[[Packet[VideoStream]], bool]:
    """Return what says whether a packet is the second field of a picture.

    All packets with data have to be given to it, in the order of the file. MPEG-2 has both fields in one packet, and
    each field of HEVC is a picture.
    """
    fields = SecondFields(stream.codec_context.extradata or b"") if stream.codec_context.name == "h264" else None
    if fields is None or not fields.possible:
        return lambda _: False

    def is_second(packet: Packet[VideoStream]) -> bool:
        new = bytes(packet.get_sidedata(_NEW_RECORD)) if packet.has_sidedata(_NEW_RECORD) else b""
        return fields.take(memoryview(packet), new)

    return is_second


def _is_shown(packet: Packet[VideoStream], *, marked: bool) -> bool:
    """Return whether a player shows the packet: not if an edit list hides it, or it is a reference frame of VP8.

    VP8 stores such a frame in a separate packet; the packet's fifth bit is `show_frame` (RFC 6386, 9.1). An empty
    packet with a timestamp shows the previous frame again, as in Theora.
    """
    if packet.is_discard or (not packet.size and packet.pts is None):
        return False
    return not packet.size or not marked or bool(memoryview(packet)[0] & 0x10)
