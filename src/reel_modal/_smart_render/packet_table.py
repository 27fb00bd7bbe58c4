"""The packets of a video stream as a table, and their times in a splice. Opens no files."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Final, Self

from reel_modal.errors import SpliceError
from reel_modal.media.timestamps import PacketTimes, choose_rate, ends_early

__all__ = ["PacketTable", "PictureTimes", "decoding_times", "ranks_of"]

# Matroska stores times in milliseconds. If the deviation is larger than its rounding, the rate is not constant.
_JITTER_SECONDS: Final = Fraction(15, 10_000)
_LEAST_TICKS_A_SECOND: Final = 10_000
_SAME: Final = Fraction(1, 1_000_000)


@dataclass(frozen=True, slots=True)
class PacketTable:
    """The packets of a video stream in decoding order.

    Attributes:
        pts: Presentation time of each packet, in ticks.
        dts: Decoding time of each packet, in ticks.
        idr: 1 if the packet is an IDR access unit (no later packet refers to anything before it), else 0.
        hidden: 1 if an edit list hides the packet (it is decoded but not shown), else 0.
        tick_seconds: The time base.
        last_ticks: Duration of the last shown frame; 0 if the file does not store it.
    """

    pts: Sequence[int]
    dts: Sequence[int]
    idr: Sequence[int]
    hidden: Sequence[int]
    tick_seconds: Fraction
    last_ticks: int = 0

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def longest_run(self) -> int:
        """Largest number of packets from one IDR packet to the next."""
        starts = [place for place, idr in enumerate(self.idr) if idr]
        return max(after - before for before, after in pairwise([*starts, len(self)]))

    @property
    def reorder_depth(self) -> int:
        """The most places by which a packet is later in decoding order than its frame in output order."""
        return _reorder_depth(sorted(range(len(self)), key=self.pts.__getitem__))

    def entry_points(self) -> list[int]:
        """Return the indices of the IDR packets before which there are exactly the earlier frames, increasing.

        Decoding may begin at each of them. The index is also the rank of the packet's frame.
        """
        ranks = ranks_of(sorted(range(len(self)), key=self.pts.__getitem__))
        highest = [-1, *accumulate(ranks, max)]
        return [
            place for place, idr in enumerate(self.idr) if idr and highest[place] == ranks[place] - 1 == place - 1
        ]


@dataclass(frozen=True, slots=True)
class PictureTimes:
    """The times of the frames and packets of a splice, in ticks of the splice's time base.

    Attributes:
        pts: Presentation times, by rank.
        dts: Decoding times, by index in decoding order.
        seconds: Presentation times by rank, from the first shown frame; changed intervals use this clock.
        tick_seconds: The time base.
        constant: Whether all times are exactly evenly spaced.
        ends_seconds: End of the last frame, if it is known more precisely than by one frame interval; else None.
    """

    pts: Sequence[int]
    dts: Sequence[int]
    seconds: Sequence[Fraction]
    tick_seconds: Fraction
    constant: bool
    ends_seconds: Fraction | None = None

    @classmethod
    def of(cls, table: PacketTable, fps: Fraction) -> Self:
        """Return the times of `table`; if the container has rounded the times of a constant rate, make them exact.

        Args:
            table: The packets.
            fps: The probed rate, used if the times agree with it.
        """
        order = sorted(range(len(table)), key=table.pts.__getitem__)
        pts = [table.pts[place] for place in order]
        first = next(rank for rank, place in enumerate(order) if not table.hidden[place])
        tick = table.tick_seconds
        stands = table.last_ticks * tick
        if _even(pts) and _even(table.dts):
            exact = 1 / fps if len(pts) > 1 and abs((pts[1] - pts[0]) * tick * fps - 1) < _SAME else None
            step = exact or (pts[1] - pts[0] if len(pts) > 1 else 1) * tick
            seconds = [(rank - first) * step for rank in range(len(pts))]
            early = ends_early(stands, step)
            ends = seconds[-1] + stands if early or 2 * stands > 3 * step else None
            return cls(pts, table.dts, seconds, tick, constant=not early, ends_seconds=ends)
        shown = PacketTimes(tuple(pts), len(pts), table.last_ticks, tick)
        rate = choose_rate(shown, [fps])
        start = pts[first] * tick
        allowed = _JITTER_SECONDS + tick
        late = max(abs(at * tick - start - (rank - first) / rate) for rank, at in enumerate(pts))
        if not shown.evenly_spaced or late > allowed:
            seconds = [(at - pts[first]) * tick for at in pts]
            ends = seconds[-1] + stands if 2 * stands * fps >= 1 else None
            return cls(pts, table.dts, seconds, tick, constant=False, ends_seconds=ends)
        exact_times = cls._on_grid(start, rate, first, len(pts), _reorder_depth(order))
        ends = exact_times.seconds[-1] + stands
        return replace(exact_times, ends_seconds=ends) if 2 * stands * rate > 3 else exact_times

    def cut(self, table: PacketTable, start: Fraction, end: Fraction) -> Self:
        """Return the times of a trim at arbitrary times: the frame visible at `start` begins at `start`.

        Packets get the latest possible decoding times. Otherwise a frame that began long before `start` would have a
        dts equally long before the output.

        Args:
            table: The packets.
            start: Start, inclusive, in seconds from the first shown frame; 0 or more.
            end: End, exclusive, in the same unit.

        Raises:
            SpliceError: No frame is kept.
        """
        moved = round((start - self.seconds[0]) / self.tick_seconds) + self.pts[0]
        first, last = bisect_right(self.pts, moved) - 1, bisect_left(self.seconds, end)
        if last <= first:
            raise SpliceError("the kept part is shorter than the rounding of its timestamps")
        pts, seconds = list(self.pts), list(self.seconds)
        pts[first], seconds[first] = moved, start
        if last < len(seconds):
            seconds[last] = end
        order = sorted(range(len(table)), key=table.pts.__getitem__)
        return replace(
            self,
            pts=pts,
            dts=[*self.dts[:first], *_as_late(pts[first:last], _reorder_depth(order)), *self.dts[last:]],
            seconds=seconds,
            constant=False,
            ends_seconds=end,
        )

    def end_of(self, end: int, fps: Fraction) -> Fraction:
        """Return the end of the frame before rank `end`; if unknown, one frame of `fps` after the frame's start."""
        if end < len(self.seconds):
            return self.seconds[end]
        return self.ends_seconds or self.seconds[-1] + 1 / fps

    def until(self, rank: int) -> Fraction:
        """Return the end of the frame of `rank`; if unknown, the frame lasts as long as the one before it."""
        if rank + 1 < len(self.seconds):
            return self.seconds[rank + 1]
        before = self.seconds[rank] - self.seconds[rank - 1] if rank else self.tick_seconds
        return self.ends_seconds or self.seconds[rank] + before

    @classmethod
    def _on_grid(cls, start: Fraction, rate: Fraction, first: int, count: int, depth: int) -> Self:
        scale = 1
        while rate.numerator * scale < _LEAST_TICKS_A_SECOND:
            scale *= 2
        tick, step = Fraction(1, rate.numerator * scale), rate.denominator * scale
        begin = round(start / tick) - first * step
        pts = [begin + rank * step for rank in range(count)]
        dts = [at - depth * step for at in pts]
        return cls(pts, dts, [(rank - first) / rate for rank in range(count)], tick, constant=True)


def decoding_times(pts: Sequence[int]) -> list[int]:
    """Return the latest possible decoding times, for containers that store none, such as Matroska.

    Args:
        pts: Presentation times in ticks, in decoding order.
    """
    order = sorted(range(len(pts)), key=pts.__getitem__)
    return _as_late([pts[place] for place in order], _reorder_depth(order))


def ranks_of(order: Sequence[int]) -> list[int]:
    """Return the rank of each packet, given the packet index of each rank."""
    ranks = [0] * len(order)
    for rank, place in enumerate(order):
        ranks[place] = rank
    return ranks


def _as_late(shown: Sequence[int], depth: int) -> list[int]:
    """Return the latest decoding times, in order, for frames shown at `shown` with a reorder depth of `depth`."""
    usual = max(1, (shown[-1] - shown[0]) // max(1, len(shown) - 1))
    early = [shown[0] - usual * (depth - place) for place in range(min(depth, len(shown)))]
    return early + list(shown[: len(shown) - len(early)])


def _reorder_depth(order: Sequence[int]) -> int:
    """Return the reorder depth: the most places by which a packet is later in decoding order than in output order."""
    return max(place - rank for rank, place in enumerate(order))


def _even(ticks: Sequence[int]) -> bool:
    return len({after - before for before, after in pairwise(ticks)}) <= 1
