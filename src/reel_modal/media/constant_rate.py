"""Choose a constant frame rate for a variable one, and count the frames that it drops or repeats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, median_low
from typing import Final, Self

from reel_modal.media.timestamps import PacketTimes, choose_rate

__all__ = ["MOST_LATE_FRAMES", "NEAREST", "TIE_FRAMES", "FrameGrid", "constant_rate_for", "slots_of"]

MOST_LATE_FRAMES: Final = 1.25
"""Maximum delay of a source frame, in output frames, if its own slot is taken by the previous frame. Timestamps of
phones jitter by up to a third of an interval: with a limit of 0.5, one frame in ten would be dropped at its own rate.
"""

NEAREST: Final = 0.5
"""The same limit for slots that always show the nearest source frame."""

TIE_FRAMES: Final = 1e-4
"""A source frame that is due halfway between two output frames goes to the later one, regardless of rounding."""

# The second rate of each pair is used, unless the timestamps match the first.
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
# A rate below the usual interval's rate keeps dropping frames, even if a short clip does not show it.
_LEAST_OF_USUAL: Final = 0.985
# Fractions of an interval: the tolerance for a usual interval, and for one of a given rate.
_USUAL: Final = 0.5
_NEAR: Final = 0.25
_MOSTLY: Final = 0.8
# Matroska stores milliseconds.
_ROUNDED_SECONDS: Final = 0.0015
_NTSC_TOLERANCE: Final = 0.00025


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """The source frames of a video on the slots of a constant rate.

    A source frame takes the slot nearest to its time. If that is taken, it takes the next one. If it would then be
    too late, it replaces the previous source frame, which is dropped. A slot without a source frame repeats the
    previous one.

    Attributes:
        rate: Frames per second.
        count: Number of slots, from the first source frame to the end of the last.
        dropped: Number of source frames without a slot.
        repeated: Number of slots that repeat the previous source frame.
    """

    rate: Fraction
    count: int
    dropped: int
    repeated: int

    @classmethod
    def of(cls, times: PacketTimes, rate: Fraction, *, most_late_frames: float = MOST_LATE_FRAMES) -> Self:
        """Place source frames on the slots of `rate`.

        Args:
            times: Timestamps of all source frames.
            rate: Frames per second.
            most_late_frames: Maximum delay of a source frame, in slots; 0.5 shows the nearest one in each slot.
        """
        count = max(1, math.floor(times.span_seconds(rate) * rate + Fraction(1, 2)))
        taken = {frame for frame in _frames(times, rate, most_late_frames) if frame < count}
        return cls(rate, count, len(times.ticks) - len(taken) if times.ticks else 0, count - len(taken))


def slots_of(dues: Iterable[float], most_late_frames: float) -> Iterator[int]:
    """Yield the slot of each source frame of a `FrameGrid`; a dropped one has the slot of the frame after it.

    Args:
        dues: When each frame is due, in slots from the first one, increasing.
        most_late_frames: See `FrameGrid.of`.
    """
    last = -1
    for due in dues:
        nearest = math.floor(due + 0.5 + TIE_FRAMES)
        if nearest > last or last + 1 - due <= most_late_frames:
            last = max(nearest, last + 1)
        yield last


def constant_rate_for(times: PacketTimes, claims: Sequence[Fraction | None]) -> Fraction:
    """Return the output frame rate for a video whose frames are not evenly spaced.

    It is the smallest standard rate, 23.976 to 120, that is at most 1.5 % below the usual rate of the frames and that
    drops at most 1 % of them; of 29.97 and 30, and of each similar pair, the one that the timestamps match. If all
    standard rates drop more, it is the rate of the usual interval.

    Args:
        times: Timestamps of all source frames.
        claims: Rates that headers claim, most reliable first.
    """
    intervals = [float(ticks * times.tick_seconds) for ticks in times.intervals if ticks > 0]
    if not intervals:
        return choose_rate(times, claims)
    usual = fmean(_near(intervals, median_low(intervals), _USUAL))
    for pair in _STANDARD_RATES:
        rate = _matching_rate(pair, intervals)
        if rate * usual >= _LEAST_OF_USUAL and FrameGrid.of(times, rate).dropped <= _MOST_DROPPED * len(times.ticks):
            return rate
    return choose_rate(times, claims)


def _frames(times: PacketTimes, rate: Fraction, most_late_frames: float) -> Iterator[int]:
    """Yield the slot of each source frame; a dropped one has the slot of the frame after it."""
    if not times.ticks:
        return
    first, frames_per_tick = times.ticks[0], float(times.tick_seconds * rate)
    yield from slots_of(((tick - first) * frames_per_tick for tick in times.ticks), most_late_frames)


def _matching_rate(pair: tuple[Fraction, ...], intervals: Sequence[float]) -> Fraction:
    """Return which of two rates that differ by a factor of 1.001 the intervals match."""
    rate = pair[-1]
    near = _near(intervals, float(1 / rate), _NEAR)
    if len(pair) == 1 or not near:
        return rate
    ntsc = float(1 / pair[0])
    regular = sum(abs(interval - ntsc) <= _ROUNDED_SECONDS for interval in near) >= _MOSTLY * len(near)
    return pair[0] if regular and abs(fmean(near) / ntsc - 1) < _NTSC_TOLERANCE else rate


def _near(intervals: Sequence[float], usual: float, share: float) -> list[float]:
    return [interval for interval in intervals if abs(interval - usual) <= share * usual]
