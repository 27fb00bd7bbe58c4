"""The packets of a picture as a table, and when each is due in a splice.

Pure; it must not know files, nor what changes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Final, Self

from reel_modal.errors import SpliceError
from reel_modal.media.timestamps import PacketTimes, choose_rate, ends_early

__all__ = ["PacketTable", "PictureTimes", "decoding_times", "ranks_of"]

# A millisecond is what Matroska keeps of a time; more than its rounding is no constant rate.
_JITTER_SECONDS: Final = Fraction(15, 10_000)
_LEAST_TICKS_A_SECOND: Final = 10_000
_SAME: Final = Fraction(1, 1_000_000)


@dataclass(frozen=True, slots=True)
class PacketTable:
    """The packets of a picture in the order of decoding.

    Attributes:
        pts: When each is shown, in ticks.
        dts: When each is decoded, in ticks.
        idr: 1 where it begins anew, and nothing behind it refers to anything before it; else 0.
        hidden: 1 where it is decoded but not shown, by an edit list; else 0.
        tick_seconds: The time base.
        last_ticks: How long the picture that is shown last lasts; 0 if the file does not say.
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
        """Most packets from one that begins anew to the next."""
        starts = [place for place, idr in enumerate(self.idr) if idr]
        return max(after - before for before, after in pairwise([*starts, len(self)]))


@dataclass(frozen=True, slots=True)
class PictureTimes:
    """When the pictures and packets of a splice are due, in ticks of its own time base.

    Attributes:
        pts: By rank.
        dts: By place in the order of decoding.
        seconds: By rank, from the first picture that is shown; what a change is asked for at.
        tick_seconds: The time base.
        constant: Whether all are evenly spaced, exactly.
        ends_seconds: When the last one is no longer shown, where that is known better than by a frame's length.
    """

    pts: Sequence[int]
    dts: Sequence[int]
    seconds: Sequence[Fraction]
    tick_seconds: Fraction
    constant: bool
    ends_seconds: Fraction | None = None

    @classmethod
    def of(cls, table: PacketTable, fps: Fraction) -> Self:
        """Take the times of `table`; a constant rate whose times a container has rounded gets exact ones.

        Args:
            table: The packets.
            fps: The rate by the probe, which counts where the times agree with it.
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
        made = cls._on_grid(start, rate, first, len(pts), _reorder_depth(order))
        return replace(made, ends_seconds=made.seconds[-1] + stands) if 2 * stands * rate > 3 else made

    def cut(self, table: PacketTable, start: Fraction, end: Fraction) -> Self:
        """Return the times of a trim at any two moments: the picture that is on the screen at `start` begins there.

        Packets get decoding times that are as late as can be: a picture that began long before would else have one
        that lies as far before the output.

        Args:
            table: The packets.
            start: First moment that is kept, in seconds from the first picture that is shown; 0 or more.
            end: First moment that is not.

        Raises:
            SpliceError: No picture is kept.
        """
        moved = round((start - self.seconds[0]) / self.tick_seconds) + self.pts[0]
        first, last = bisect_right(self.pts, moved) - 1, bisect_left(self.seconds, end)
        if last <= first:
            raise SpliceError("the part that is kept of it is shorter than the rounding of its times")
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
        """Return when the picture in front of rank `end` is no longer shown, at the latest a frame of `fps` later."""
        if end < len(self.seconds):
            return self.seconds[end]
        return self.ends_seconds or self.seconds[-1] + 1 / fps

    def until(self, rank: int) -> Fraction:
        """Return when the picture of `rank` is no longer shown, as far as the times say."""
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
    """Return decoding times for packets of a container that keeps none, such as Matroska: as late as can be.

    Args:
        pts: When each is shown, in ticks, in the order of decoding.
    """
    order = sorted(range(len(pts)), key=pts.__getitem__)
    return _as_late([pts[place] for place in order], _reorder_depth(order))


def ranks_of(order: Sequence[int]) -> list[int]:
    """Return the rank of each packet, of the places of all ranks."""
    ranks = [0] * len(order)
    for rank, place in enumerate(order):
        ranks[place] = rank
    return ranks


def _as_late(shown: Sequence[int], depth: int) -> list[int]:
    """Return decoding times, in order, for pictures that are shown at such times and decoded `depth` places late."""
    usual = max(1, (shown[-1] - shown[0]) // max(1, len(shown) - 1))
    early = [shown[0] - usual * (depth - place) for place in range(min(depth, len(shown)))]
    return early + list(shown[: len(shown) - len(early)])


def _reorder_depth(order: Sequence[int]) -> int:
    """Return by how many places a packet is decoded late, at most."""
    return max(place - rank for rank, place in enumerate(order))


def _even(ticks: Sequence[int]) -> bool:
    return len({after - before for before, after in pairwise(ticks)}) <= 1
