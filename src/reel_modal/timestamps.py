"""The rhythm of a video, read from the times of its packets.

Pure; it must not open files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from statistics import median_low
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["PacketTimes", "choose_rate"]

# 30 and 30000/1001 differ by a thousandth: less than that is the same rate, written by a careless muxer.
_NOT_NTSC: Final = Fraction(1, 1500)
_SAME: Final = Fraction(1, 100_000)
_STANDARD_RATES: Final = tuple(
    sorted(
        [Fraction(n) for n in (10, 12, 15, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)]
        + [Fraction(n * 1000, 1001) for n in (12, 15, 24, 30, 48, 60, 120, 240)]
    )
)
_FALLBACK: Final = Fraction(25)
_SLOWEST: Final = Fraction(1, 60)
_FASTEST: Final = Fraction(1000)
# A millisecond is what Matroska keeps of a time; two roundings meet in one interval.
_JITTER_SECONDS: Final = Fraction(15, 10000)


@dataclass(frozen=True, slots=True)
class PacketTimes:
    """The presentation times of the packets that are shown, in order.

    Attributes:
        seconds: Exact times; empty where the container keeps none.
        count: Packets that are shown, with or without a time.
        last_duration_seconds: Of the last one, 0 where it is not said.
        tick_seconds: The time base: no time is more exact.
    """

    seconds: tuple[Fraction, ...]
    count: int
    last_duration_seconds: Fraction
    tick_seconds: Fraction

    @classmethod
    def of(
        cls, packets: Iterable[Packet[VideoStream]], time_base: Fraction | None, *, first: int | None = None
    ) -> Self:
        """Read the times of `packets`; those that an edit list hides are left out.

        Args:
            packets: In the order of the file, which is the order of decoding.
            time_base: Seconds of one tick.
            first: Look at this many packets only; None looks at all.
        """
        base = time_base or Fraction(1)
        shown = [(p.pts, p.duration or 0, p.dts) for p in islice(packets, first) if p.size and not p.is_discard]
        timed = sorted((pts, duration) for pts, duration, _ in shown if pts is not None)
        if len(shown) == first and (decoded := shown[-1][2]) is not None:
            # Packets come in the order of decoding: up to the last decoding time, no picture is still to come.
            timed = [item for item in timed if item[0] <= decoded]
        last = timed[-1][1] * base if timed else Fraction(0)
        return cls(tuple(pts * base for pts, _ in timed), len(shown), last, base)

    @property
    def first_seconds(self) -> Fraction:
        """Time of the first picture."""
        return self.seconds[0] if self.seconds else Fraction(0)

    @property
    def intervals(self) -> list[Fraction]:
        """Seconds from each picture to the next."""
        return [after - before for before, after in zip(self.seconds, self.seconds[1:], strict=False)]

    @property
    def evenly_spaced(self) -> bool:
        """Whether every interval is the usual one, but for the rounding of times."""
        intervals = self.intervals
        if not intervals:
            return True
        usual = (self.seconds[-1] - self.seconds[0]) / len(intervals)
        allowed = max(2 * self.tick_seconds, min(_JITTER_SECONDS, usual / 8))
        return all(abs(interval - usual) <= allowed for interval in intervals)

    def span_seconds(self, rate: Fraction) -> Fraction:
        """Seconds from the first picture to the end of the last, which lasts a frame where it is not said."""
        if not self.seconds:
            return self.count / rate
        return self.seconds[-1] - self.seconds[0] + (self.last_duration_seconds or 1 / rate)


def choose_rate(times: PacketTimes, claims: Sequence[Fraction | None]) -> Fraction:
    """Return the frame rate that the timestamps confirm.

    A header's claim is believed when it is within what the rounding of times allows; 57600 or 90000 frames a
    second are not. A rhythm that is not even has the rate of its usual interval.

    Args:
        times: Times of packets.
        claims: Rates that headers claim, the best first.
    """
    sane = [claim for claim in claims if claim is not None and _SLOWEST <= claim <= _FASTEST]
    intervals = [interval for interval in times.intervals if interval > 0]
    if not intervals:
        return sane[0] if sane else _FALLBACK
    if times.evenly_spaced:
        interval = (times.seconds[-1] - times.seconds[0]) / len(times.intervals)
        # The mean of n intervals is off by at most two half ticks over the whole.
        uncertain = max(times.tick_seconds, Fraction(1, 100_000)) / len(intervals)
    else:
        interval = median_low(intervals)
        uncertain = max(times.tick_seconds, Fraction(1, 1000))
    allowed = max(uncertain / interval, _NOT_NTSC)
    for rate in (*sane, *sorted(_STANDARD_RATES, key=lambda rate: abs(rate * interval - 1))):
        if abs(rate * interval - 1) <= allowed:
            # 2997/100 is how some containers write 30000/1001.
            return next((standard for standard in _STANDARD_RATES if abs(rate / standard - 1) < _SAME), rate)
    return (1 / interval).limit_denominator(1001)
