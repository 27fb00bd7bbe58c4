"""Which packets are copied and which pictures are made anew, decided on a table of packets.

Pure; it must not open files. A picture's rank is its place in the order of showing; packets stand in the order of
decoding. A cut is clean in front of packet i when the packets before it are exactly the pictures of the ranks below
i: then what is before and what is behind can each be replaced.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Final, Literal, Self, TypeAlias

from reel_modal.errors import SpliceError
from reel_modal.rendering.timeline import STANDING_SECONDS
from reel_modal.smart_render.packets import Picture
from reel_modal.smart_render.picture_times import PacketTable, PictureTimes, ranks_of

__all__ = ["Interval", "RenderPlan", "Trim", "Window", "plan_packets", "refuse_most"]

Interval: TypeAlias = tuple[Fraction, Fraction]
"""First and last moment, both inclusive, in seconds from the first picture that is shown."""

# x264 keeps no more than one level of its pyramid: a picture is decoded at most two places late.
_DEEPEST_REORDER: Final = 2
# A frame of a window takes 1.3 times as long as one of a full render, since it is to lose less.
_MOST_RENDERED: Final = Fraction(3, 4)


@dataclass(frozen=True, slots=True)
class Trim:
    """The part of a clip that is kept.

    Attributes:
        start: First moment that is kept, in seconds from the first picture that is shown.
        end: First moment that is not.
        sound: Whether its sound is kept as well.
        evenly_spaced: Whether these are moments at which pictures come, of a clip whose pictures are evenly spaced.
            Else they are any, and the picture that is on the screen at the first of them begins there.
    """

    start: Fraction
    end: Fraction
    sound: bool = True
    evenly_spaced: bool = True


@dataclass(frozen=True, slots=True)
class Window:
    """A run of pictures that are made anew.

    Attributes:
        first: First packet that is replaced.
        end: The packet behind the last that is replaced.
        kept: (first, end) of the ranks that are encoded; all of the window, but where a trim cuts it.
        decode_from: The packet with which decoding has to begin.
    """

    first: int
    end: int
    kept: tuple[int, int]
    decode_from: int


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """What is copied and what is made anew.

    Attributes:
        kind: `smart`, or `full` where all of it has to be rendered.
        reason: Why it is `full`; empty where it is not.
        windows: Runs of pictures that are made anew, in order.
        kept: (first, end) of the ranks that are in the output.
        reorder_depth: By how many places the new pictures may be decoded late, 0 to 2.
        hidden: How many of the first kept ranks are decoded but not shown.
        trim: What is kept; None where all is, at the times where it was.
        picture: What is spliced; None where the plan is of a table alone, or `full`.
    """

    kind: Literal["smart", "full"]
    reason: str = ""
    windows: tuple[Window, ...] = ()
    kept: tuple[int, int] = (0, 0)
    reorder_depth: int = 0
    hidden: int = 0
    trim: Trim | None = None
    picture: Picture | None = None

    @classmethod
    def full(cls, reason: str) -> Self:
        """Return the plan to render all of it."""
        return cls("full", reason)

    @property
    def copied(self) -> tuple[tuple[int, int], ...]:
        """(first, end) of each run of packets that are copied, in order."""
        edges = [self.kept[0], *(edge for window in self.windows for edge in window.kept), self.kept[1]]
        return tuple((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)

    @property
    def frames_rendered(self) -> int:
        """Pictures that are made anew."""
        return sum(window.kept[1] - window.kept[0] for window in self.windows)

    @property
    def frames(self) -> int:
        """Pictures of the output."""
        return self.frames_rendered + self.frames_copied

    @property
    def frames_copied(self) -> int:
        """Pictures that are copied and shown."""
        shown = self.kept[0] + self.hidden
        return sum(max(0, end - max(start, shown)) for start, end in self.copied)


def plan_packets(
    table: PacketTable,
    times: PictureTimes,
    changed: Iterable[Interval],
    *,
    trim: Trim | None = None,
) -> RenderPlan:
    """Plan the splice of `table`: as few pictures anew as its structure allows.

    A new run may begin in front of any clean cut, since what is before it refers to nothing behind. It ends in front
    of a clean cut at a picture that begins anew, since what is copied behind it must not refer to what was replaced.

    Args:
        table: The packets.
        times: Their times; of a trim at any moments, those of `PictureTimes.cut`.
        changed: When something is drawn.
        trim: What is kept; None keeps all.

    Raises:
        SpliceError: The packets cannot be spliced; the message says why.
    """
    _check(table)
    count = len(table)
    order = sorted(range(count), key=table.pts.__getitem__)
    ranks = ranks_of(order)
    clean = [True, *(highest == place for place, highest in enumerate(accumulate(ranks, max)))]
    hidden = _hidden_ranks(table, order)
    kept = (0, count) if trim is None else _kept(times, trim, hidden)
    spans = []
    for interval in changed:
        first, last = _touched(times, interval)
        spans.append((max(first, hidden, kept[0]), min(last, kept[1])))
    if trim is not None:
        if not (clean[kept[0]] and table.idr[kept[0]]):
            spans.append((kept[0], kept[0] + 1))
        if not clean[kept[1]]:
            spans.append((kept[1] - 1, kept[1]))
    windows = _windows(table, clean, sorted(span for span in spans if span[0] < span[1]), kept)
    depth = min((_depth_allowed(times, *window.kept) for window in windows), default=0)
    plan = RenderPlan("smart", "", windows, kept, depth, max(0, hidden - kept[0]), trim)
    if not plan.copied:
        raise SpliceError("every picture of it changes, or depends on one that does")
    return plan


def _touched(times: PictureTimes, interval: Interval) -> tuple[int, int]:
    """Return (first, end) of the ranks whose pictures are drawn on.

    Those are the pictures that appear within the interval, and the one that stands on the screen when it begins.

    Raises:
        SpliceError: A picture of a variable rate stands while something is drawn on it: it takes more than one frame.
    """
    start, end = interval
    first, last = bisect_left(times.seconds, start), bisect_right(times.seconds, end)

    def lasts(rank: int) -> Fraction:
        return times.until(rank) - times.seconds[rank]

    if first and start < times.until(first - 1) and lasts(first - 1) > STANDING_SECONDS:
        first -= 1
    if not times.constant:
        for rank in range(first, last):
            if lasts(rank) > STANDING_SECONDS:
                raise SpliceError(
                    f"a highlight changes its picture at {float(times.seconds[rank]):g} s, which stands for"
                    f" {float(lasts(rank)):g} s and becomes several frames"
                )
    return first, last


def refuse_most(rendered: int, frames: int) -> None:
    """Return where it is worth it to copy the others.

    Raises:
        SpliceError: It is not.
    """
    if rendered > _MOST_RENDERED * frames:
        raise SpliceError(f"{rendered} of its pictures would have to be rendered anyway")


def _check(table: PacketTable) -> None:
    if not len(table):
        raise SpliceError("it has no packets")
    if not table.idr[0]:
        raise SpliceError("its first picture depends on earlier ones, which are not there")
    if any(after <= before for before, after in pairwise(table.dts)):
        raise SpliceError("its packets are not in the order of their decoding times")
    if len(set(table.pts)) != len(table):
        raise SpliceError("two of its pictures have the same time")
    if any(shown < decoded for shown, decoded in zip(table.pts, table.dts, strict=True)):
        raise SpliceError("one of its pictures is shown before it is decoded")


def _hidden_ranks(table: PacketTable, order: Sequence[int]) -> int:
    """Return how many pictures an edit list hides at the beginning."""
    hidden = [bool(table.hidden[place]) for place in order]
    count = sum(hidden)
    if count == len(hidden):
        raise SpliceError("its edit list hides all of it")
    if not all(hidden[:count]):
        raise SpliceError("its edit list hides pictures in the middle or at the end")
    return count


def _kept(times: PictureTimes, trim: Trim, hidden: int) -> tuple[int, int]:
    first = max(hidden, bisect_left(times.seconds, trim.start))
    end = bisect_left(times.seconds, trim.end)
    if not trim.evenly_spaced:
        return first, end
    if not times.constant or len(times.seconds) < 2:
        raise SpliceError("its frame rate varies behind its first seconds")
    step = times.seconds[1] - times.seconds[0]
    if first >= end or end - first != round((trim.end - trim.start) / step):
        raise SpliceError("it has fewer pictures than are kept, and the last one is repeated")
    return first, end


def _windows(
    table: PacketTable, clean: Sequence[bool], spans: Sequence[tuple[int, int]], kept: tuple[int, int]
) -> tuple[Window, ...]:
    """Widen the `spans` of ranks to clean cuts, and join those that meet."""
    count = len(table)
    ranges: list[tuple[int, int]] = []
    for start, end in spans:
        if ranges and end <= ranges[-1][1]:
            continue
        first = next(place for place in range(start, -1, -1) if clean[place])
        last = next(place for place in range(end, count + 1) if clean[place] and (place == count or table.idr[place]))
        if ranges and first <= ranges[-1][1]:
            first = ranges.pop()[0]
        ranges.append((first, last))
    return tuple(
        Window(
            first=first,
            end=last,
            kept=(max(first, kept[0]), min(last, kept[1])),
            decode_from=next(place for place in range(min(first, count - 1), -1, -1) if table.idr[place]),
        )
        for first, last in ranges
    )


def _depth_allowed(times: PictureTimes, start: int, end: int) -> int:
    """Return how late the pictures of a window may be decoded in the old packets' times, and none be shown before."""
    for depth in range(_DEEPEST_REORDER, 0, -1):
        if all(times.pts[max(start, place - depth)] >= times.dts[place] for place in range(start, end)):
            return depth
    return 0
