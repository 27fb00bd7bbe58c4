"""Plan, from a packet table, which packets are copied and which frames are re-encoded. Opens no files.

The rank of a frame is its index in output order; packets are in decoding order. A cut before packet i is clean if
the packets before it are exactly the frames of the ranks below i: then each side can be replaced independently.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Final, Literal, Self, TypeAlias

from reel_modal._rendering.region_track import STANDING_SECONDS
from reel_modal._smart_render.packet_table import PacketTable, PictureTimes, ranks_of
from reel_modal._smart_render.source import SpliceSource, refuse_by_headers
from reel_modal.errors import SpliceError
from reel_modal.media import MediaInfo

__all__ = [
    "Interval",
    "RenderPlan",
    "RenderSpan",
    "SplicePlan",
    "Trim",
    "estimate_rendered_frames",
    "plan_packets",
    "refuse_most",
]

Interval: TypeAlias = tuple[Fraction, Fraction]
"""Start and end, both inclusive, in seconds from the first shown frame."""

# x264's B-pyramid has one level, so its reorder depth is at most two frames.
_DEEPEST_REORDER: Final = 2
# A re-encoded frame takes 1.3 times as long as a frame of a full render, because its quality is higher.
_MOST_RENDERED: Final = Fraction(3, 4)


@dataclass(frozen=True, slots=True)
class Trim:
    """The part of a clip that is kept.

    Attributes:
        start: Start, inclusive, in seconds from the first shown frame.
        end: End, exclusive, in the same unit.
        sound: Whether the audio is kept as well.
        evenly_spaced: Whether `start` and `end` are frame times of a clip with evenly spaced frames. If False, they
            may be any times, and the frame visible at `start` begins at `start`.
    """

    start: Fraction
    end: Fraction
    sound: bool = True
    evenly_spaced: bool = True


@dataclass(frozen=True, slots=True)
class RenderSpan:
    """A run of frames that are re-encoded.

    Attributes:
        first: The first replaced packet.
        end: The packet after the last replaced one.
        kept: (first, end) of the encoded ranks: the whole span, unless a trim cuts it.
        decode_from: The IDR packet at which decoding begins.
    """

    first: int
    end: int
    kept: tuple[int, int]
    decode_from: int


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """Which packets are copied and which frames are re-encoded.

    Attributes:
        kind: `smart`, or `full` if the whole clip has to be rendered.
        reason: Why the kind is `full`; empty if it is `smart`.
        windows: The render spans, in order.
        kept: (first, end) of the ranks that are in the output.
        reorder_depth: Largest reorder depth allowed for the re-encoded frames, 0 to 2.
        hidden: How many of the first kept ranks are decoded but not shown (edit list).
        trim: The kept part; None if the whole clip is kept, with its times unchanged.
    """

    kind: Literal["smart", "full"]
    reason: str = ""
    windows: tuple[RenderSpan, ...] = ()
    kept: tuple[int, int] = (0, 0)
    reorder_depth: int = 0
    hidden: int = 0
    trim: Trim | None = None

    @classmethod
    def full(cls, reason: str) -> Self:
        """Return the plan to render the whole clip."""
        return cls("full", reason)

    @property
    def copied(self) -> tuple[tuple[int, int], ...]:
        """(first, end) of each run of copied packets, in order."""
        edges = [self.kept[0], *(edge for window in self.windows for edge in window.kept), self.kept[1]]
        return tuple((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)

    @property
    def frames_rendered(self) -> int:
        """Number of re-encoded frames."""
        return sum(window.kept[1] - window.kept[0] for window in self.windows)

    @property
    def frames(self) -> int:
        """Number of frames of the output."""
        return self.frames_rendered + self.frames_copied

    @property
    def frames_copied(self) -> int:
        """Number of frames that are copied and shown."""
        shown = self.kept[0] + self.hidden
        return sum(max(0, end - max(start, shown)) for start, end in self.copied)


@dataclass(frozen=True, slots=True)
class SplicePlan(RenderPlan):
    """A plan of the kind `smart` with the source that it was made for.

    Attributes:
        picture: The source.
    """

    picture: SpliceSource = field(kw_only=True)

    def spans_of(self, parts: Iterable[tuple[int, int]]) -> list[RenderSpan]:
        """Return a span for each part of a render span, which is decoded from the last entry point before it.

        Args:
            parts: (first, end) of the ranks of each part.
        """
        entries, spans = self.picture.table.entry_points(), []
        for first, end in parts:
            window = next(window for window in self.windows if window.kept[0] <= first < window.kept[1])
            before = bisect_right(entries, first)
            start = entries[before - 1] if before else window.decode_from
            spans.append(RenderSpan(first=window.first, end=window.end, kept=(first, end), decode_from=start))
        return spans


def plan_packets(
    table: PacketTable,
    times: PictureTimes,
    changed: Iterable[Interval],
    *,
    trim: Trim | None = None,
) -> RenderPlan:
    """Plan the splice of `table` with as few re-encoded frames as its GOP structure allows.

    A span may begin at any clean cut, because the packets before it refer to none after it. It must end at a clean
    cut before an IDR packet (a closed GOP boundary), because the packets copied after it must not refer to replaced
    ones.

    Args:
        table: The packets.
        times: Their times; for a trim at arbitrary times, those of `PictureTimes.cut`.
        changed: The intervals that are drawn on.
        trim: The part to keep; None keeps all.

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
        raise SpliceError("all of its frames change, or depend on one that does")
    return plan


def _touched(times: PictureTimes, interval: Interval) -> tuple[int, int]:
    """Return (first, end) of the ranks whose frames are drawn on.

    These are the frames that appear within the interval, and the frame before it if that one is shown for longer
    than `STANDING_SECONDS` and is still visible when the interval begins.

    Raises:
        SpliceError: A drawn-on frame of a variable-rate clip is shown for so long that it needs several new frames.
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
                    f"a highlight changes its frame at {float(times.seconds[rank]):g} s, which is shown for"
                    f" {float(lasts(rank)):g} s and would need several frames"
                )
    return first, last


def refuse_most(rendered: int, frames: int) -> None:
    """Raise SpliceError if more than three quarters of the frames would have to be rendered."""
    if rendered > _MOST_RENDERED * frames:
        raise SpliceError(f"{rendered} of its frames would have to be rendered anyway")


def _check(table: PacketTable) -> None:
    if not len(table):
        raise SpliceError("it has no packets")
    if not table.idr[0]:
        raise SpliceError("its first frame depends on earlier ones, which are missing")
    if any(after <= before for before, after in pairwise(table.dts)):
        raise SpliceError("its packets are not in the order of their decoding times")
    if len(set(table.pts)) != len(table):
        raise SpliceError("two of its frames have the same timestamp")
    if any(shown < decoded for shown, decoded in zip(table.pts, table.dts, strict=True)):
        raise SpliceError("one of its frames is shown before it is decoded")


def _hidden_ranks(table: PacketTable, order: Sequence[int]) -> int:
    """Return how many frames an edit list hides at the beginning."""
    hidden = [bool(table.hidden[place]) for place in order]
    count = sum(hidden)
    if count == len(hidden):
        raise SpliceError("its edit list hides all frames")
    if not all(hidden[:count]):
        raise SpliceError("its edit list hides frames in the middle or at the end")
    return count


def _kept(times: PictureTimes, trim: Trim, hidden: int) -> tuple[int, int]:
    first = max(hidden, bisect_left(times.seconds, trim.start))
    end = bisect_left(times.seconds, trim.end)
    if not trim.evenly_spaced:
        return first, end
    if not times.constant or len(times.seconds) < 2:
        raise SpliceError("its frame rate varies after its first seconds")
    step = times.seconds[1] - times.seconds[0]
    if first >= end or end - first != round((trim.end - trim.start) / step):
        raise SpliceError("it has fewer frames than the kept part, so the last one is repeated")
    return first, end


def _windows(
    table: PacketTable, clean: Sequence[bool], spans: Sequence[tuple[int, int]], kept: tuple[int, int]
) -> tuple[RenderSpan, ...]:
    """Widen the `spans` of ranks to clean cuts, and merge those that touch."""
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
        RenderSpan(
            first=first,
            end=last,
            kept=(max(first, kept[0]), min(last, kept[1])),
            decode_from=next(place for place in range(min(first, count - 1), -1, -1) if table.idr[place]),
        )
        for first, last in ranges
    )


def _depth_allowed(times: PictureTimes, start: int, end: int) -> int:
    """Return the largest reorder depth at which no frame of the ranks `start` to `end` has a pts before its dts."""
    for depth in range(_DEEPEST_REORDER, 0, -1):
        if all(times.pts[max(start, place - depth)] >= times.dts[place] for place in range(start, end)):
            return depth
    return 0


# The keyframe positions are unknown. Encoders for the web set a keyframe every two seconds, and a change ends, on
# average, in the middle between two keyframes.
_TO_KEYFRAME_SECONDS: Final = Fraction(1)


def estimate_rendered_frames(media: MediaInfo, changed: Iterable[Interval]) -> int:
    """Return how many frames of `media` would be rendered: those of each change and of one second after it.

    Args:
        media: The clip.
        changed: See `_smart_render.plan_render`.

    Raises:
        SpliceError: The clip's headers show that it cannot be spliced, or too few frames would be copied.
    """
    refuse_by_headers(media)
    frames = media.expected_frames or 1
    rendered = done = Fraction(0)
    for start, end in sorted(changed):
        begin, stop = max(start, done), min(end + _TO_KEYFRAME_SECONDS, frames / media.fps)
        if begin < stop:
            rendered, done = rendered + stop - begin, stop
    count = min(frames, round(rendered * media.fps))
    refuse_most(count, frames)
    return count
