"""The constant frame rate that shows a variable one, and which of its pictures that rate drops or repeats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, median_low
from typing import Final, Self

from reel_modal.media.timestamps import PacketTimes, choose_rate

__all__ = ["MOST_LATE_FRAMES", "TIE_FRAMES", "FrameGrid", "output_rate"]

MOST_LATE_FRAMES: Final = 1.25
"""How late a picture may be shown, in frames, if its own frame was taken by the one before it. The times of phones
jitter by up to a third of an interval: with half a frame, one picture in ten would be dropped at their own rate."""

TIE_FRAMES: Final = 1e-4
"""A picture that is due halfway between two frames goes to the later one, however its time is rounded."""

# Of each pair, the second is meant unless the times are those of the first.
_STANDARD_RATES: Final = (
    (Fraction(24000, 1001), Fraction(24)),
    (Fraction(25),),
    (Fraction(30000, 1001), Fraction(30)),
    (Fraction(48),),
    (Fraction(50),),
    (Fraction(60000, 1001), Fraction(60)),
    (Fraction(120000, 1001), Fraction(120)),
)
_MOST_DROPPED: Final = Fraction(1, 100)
# A rate that is slower than the usual rhythm drops pictures without end, even if a short clip hides that.
_LEAST_OF_USUAL: Final = 0.985
# Shares of an interval: what counts as usual, and as one of a rate.
_USUAL: Final = 0.5
_NEAR: Final = 0.25
_MOSTLY: Final = 0.8
# Matroska keeps milliseconds.
_ROUNDED_SECONDS: Final = 0.0015
_NTSC_TOLERANCE: Final = 0.00025


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """The pictures of a video on the frames of a constant rate.

    A picture takes the frame that is nearest to its time. If that one is taken, it takes the next one, unless it
    would be too late by then: it replaces the picture before it, which is dropped. A frame without a picture of its
    own repeats the one before.

    Attributes:
        rate: Frames a second.
        count: Frames, from the first picture to the end of the last.
        dropped: Pictures that no frame shows.
        repeated: Frames that show the picture of the frame before them.
    """

    rate: Fraction
    count: int
    dropped: int
    repeated: int

    @classmethod
    def of(cls, times: PacketTimes, rate: Fraction, *, most_late_frames: float = MOST_LATE_FRAMES) -> Self:
        """Lay pictures on the frames of `rate`.

        Args:
            times: Of the pictures, all of them.
            rate: Frames a second.
            most_late_frames: How late a picture may be shown; 0.5 shows the nearest one at each frame.
        """
        count = max(1, math.floor(times.span_seconds(rate) * rate + Fraction(1, 2)))
        taken = {frame for frame in _frames(times, rate, most_late_frames) if frame < count}
        return cls(rate, count, len(times.ticks) - len(taken) if times.ticks else 0, count - len(taken))


def output_rate(times: PacketTimes, claims: Sequence[Fraction | None]) -> Fraction:
    """Return the rate at which pictures that are not evenly spaced are shown.

    It is the smallest standard rate, 23.976 to 120, at which at most 1 % of them are dropped; of 29.97 and 30, and of
    each other such pair, the one that the times follow. If all of them drop more, it is that of the usual interval.

    Args:
        times: Of the pictures, all of them.
        claims: Rates that headers claim, the best first.
    """
    intervals = [float(ticks * times.tick_seconds) for ticks in times.intervals if ticks > 0]
    if not intervals:
        return choose_rate(times, claims)
    usual = fmean(_near(intervals, median_low(intervals), _USUAL))
    for pair in _STANDARD_RATES:
        rate = _meant(pair, intervals)
        if rate * usual >= _LEAST_OF_USUAL and FrameGrid.of(times, rate).dropped <= _MOST_DROPPED * len(times.ticks):
            return rate
    return choose_rate(times, claims)


def _frames(times: PacketTimes, rate: Fraction, most_late_frames: float) -> Iterator[int]:
    """Yield the frame of each picture; a dropped one has that of the picture after it."""
    if not times.ticks:
        return
    first, frames_per_tick, last = times.ticks[0], float(times.tick_seconds * rate), -1
    for tick in times.ticks:
        due = (tick - first) * frames_per_tick
        nearest = math.floor(due + 0.5 + TIE_FRAMES)
        if nearest > last or last + 1 - due <= most_late_frames:
            last = max(nearest, last + 1)
        yield last


def _meant(pair: tuple[Fraction, ...], intervals: Sequence[float]) -> Fraction:
    """Return the one of two rates that differ by a thousandth which the intervals follow."""
    rate = pair[-1]
    near = _near(intervals, float(1 / rate), _NEAR)
    if len(pair) == 1 or not near:
        return rate
    ntsc = float(1 / pair[0])
    regular = sum(abs(interval - ntsc) <= _ROUNDED_SECONDS for interval in near) >= _MOSTLY * len(near)
    return pair[0] if regular and abs(fmean(near) / ntsc - 1) < _NTSC_TOLERANCE else rate


def _near(intervals: Sequence[float], usual: float, share: float) -> list[float]:
    return [interval for interval in intervals if abs(interval - usual) <= share * usual]
