"""Splice plans on packet tables of any structure: no copied packet depends on a replaced one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reel_modal._smart_render.packet_table import PacketTable, PictureTimes, decoding_times
from reel_modal._smart_render.plan import RenderPlan, Trim, plan_packets
from reel_modal.errors import SpliceError

FPS = Fraction(25)
TICK = Fraction(1, 12800)
STEP = 512


@dataclass(frozen=True)
class Stream:
    """A packet table, with the packets that each packet depends on."""

    table: PacketTable
    times: PictureTimes
    refers_to: tuple[frozenset[int], ...]


def stream(groups: list[tuple[bool, list[int]]], *, hidden: int = 0, depth: int = 2) -> Stream:
    """Build a stream: each group starts with a keyframe (IDR if closed) and has runs of B-frames.

    A B-frame depends on the anchors around it, an anchor on the previous one. In an open group, the B-frames of the
    first run precede the keyframe in display order and depend on it and on the previous group.
    """
    ranks: list[int] = []
    idr: list[int] = []
    refers: list[frozenset[int]] = []
    shown = 0
    anchor = 0
    for closed, runs in groups:
        for number, run in enumerate(runs or [0]):
            key = number == 0
            leading = 0 if key and (closed or not ranks) else run
            position = len(ranks)
            ranks.append(shown + leading)
            idr.append(int(key and (closed or position == 0)))
            refers.append(frozenset() if key else frozenset({anchor}))
            for offset in range(leading):
                ranks.append(shown + offset)
                idr.append(0)
                refers.append(frozenset({anchor, position}))
            shown += leading + 1
            anchor = position
    pts = [rank * STEP for rank in ranks]
    dts = [(position - depth) * STEP for position in range(len(ranks))]
    table = PacketTable(pts, dts, idr, [int(rank < hidden) for rank in ranks], TICK)
    return Stream(table, PictureTimes.of(table, FPS), tuple(refers))


STREAMS = st.builds(
    stream,
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 4), min_size=1, max_size=6)), min_size=1, max_size=6),
    depth=st.integers(0, 2),
)
MOMENTS = st.fractions(0, 4, max_denominator=100)
INTERVALS = st.lists(st.tuples(MOMENTS, MOMENTS).map(lambda pair: (min(pair), max(pair))), max_size=4)


def planned(of: Stream, *intervals: tuple[Fraction, Fraction], trim: Trim | None = None) -> RenderPlan | None:
    try:
        return plan_packets(of.table, of.times, intervals, trim=trim)
    except SpliceError:
        return None


@given(STREAMS, INTERVALS)
def test_plan_copied_packets_depend_only_on_copied_ones(
    of: Stream, intervals: list[tuple[Fraction, Fraction]]
) -> None:
    plan = planned(of, *intervals)
    if plan is None:
        return
    copied = {position for start, end in plan.copied for position in range(start, end)}
    for position in copied:
        assert of.refers_to[position] <= copied
    assert all(start == 0 or of.table.idr[start] for start, _ in plan.copied)
    assert len(copied) + plan.frames_rendered == len(of.table)
    assert plan.frames_copied == len(copied)


@given(STREAMS, INTERVALS)
def test_plan_renders_every_change_in_disjoint_spans(of: Stream, intervals: list[tuple[Fraction, Fraction]]) -> None:
    plan = planned(of, *intervals)
    if plan is None:
        return
    rendered = {rank for window in plan.windows for rank in range(*window.kept)}
    for rank, seconds in enumerate(of.times.seconds):
        if any(start <= seconds <= end for start, end in intervals):
            assert rank in rendered
    edges = [edge for window in plan.windows for edge in (window.first, window.end)]
    assert edges == sorted(set(edges))
    order = sorted(range(len(of.table)), key=of.table.pts.__getitem__)
    for window in plan.windows:
        # Packets and pictures of a span are the same ones.
        assert {order[rank] for rank in range(window.first, window.end)} == set(range(window.first, window.end))
        assert window.decode_from <= window.first
        assert of.table.idr[window.decode_from]


@given(STREAMS, INTERVALS)
def test_plan_new_pictures_fit_the_old_decoding_times(of: Stream, intervals: list[tuple[Fraction, Fraction]]) -> None:
    plan = planned(of, *intervals)
    if plan is None:
        return
    for window in plan.windows:
        start, end = window.kept
        for position in range(start, end):
            late = max(start, position - plan.reorder_depth)
            assert of.times.pts[late] >= of.times.dts[position]


@given(STREAMS, st.integers(0, 40), st.integers(1, 40))
def test_plan_trim_keeps_exactly_its_pictures(of: Stream, first: int, count: int) -> None:
    trim = Trim(first / FPS, (first + count) / FPS)
    plan = planned(of, trim=trim)
    if plan is None:
        return
    assert plan.kept == (first, first + count)
    copied = {position for start, end in plan.copied for position in range(start, end)}
    rendered = {rank for window in plan.windows for rank in range(*window.kept)}
    assert not copied & rendered
    assert copied | rendered == set(range(first, first + count))
    for position in copied:
        assert of.refers_to[position] <= copied


@given(STREAMS, st.lists(st.integers(1, 40), min_size=200, max_size=200), MOMENTS, MOMENTS)
def test_plan_variable_rate_trim_keeps_shown_pictures(
    of: Stream, steps: list[int], start: Fraction, length: Fraction
) -> None:
    """Presentation and decoding times increase, and no picture is shown before it is decoded."""
    late = list(itertools.accumulate(steps, initial=0))
    pts = [late[at // STEP] * 100 for at in of.table.pts]
    table = PacketTable(pts, decoding_times(pts), of.table.idr, of.table.hidden, TICK)
    whole = PictureTimes.of(table, FPS)
    try:
        times = whole.cut(table, start, start + length)
        plan = plan_packets(table, times, (), trim=Trim(start, start + length, evenly_spaced=False))
    except SpliceError:
        return
    first, end = plan.kept
    on_screen = [rank for rank, at in enumerate(whole.seconds) if at < start + length]
    assert end == len(on_screen)
    # It may be one tick away from the requested time.
    assert first in {len([at for at in whole.seconds if at <= start + off]) - 1 for off in (-TICK, 0, TICK)}
    assert (times.seconds[first], times.end_of(end, FPS)) == (start, start + length)
    assert times.pts[first + 1 : end] == whole.pts[first + 1 : end]
    for run in (times.pts[first:end], times.dts[first:end]):
        assert all(before < after for before, after in itertools.pairwise(run))
    order = sorted(range(len(table)), key=pts.__getitem__)
    for begin, stop in plan.copied:
        assert all(times.pts[rank] >= times.dts[order[rank]] for rank in range(begin, stop))
    for window in plan.windows:
        for position in range(*window.kept):
            assert times.pts[max(window.kept[0], position - plan.reorder_depth)] >= times.dts[position]


def test_plan_interval_includes_both_ends() -> None:
    of = stream([(True, [0] * 10), (True, [0] * 10)])
    plan = planned(of, (Fraction(3, 25), Fraction(5, 25)))
    assert plan is not None
    assert [(window.first, window.end) for window in plan.windows] == [(3, 10)]
    plan = planned(of, (Fraction(301, 2500), Fraction(324, 2500)))
    assert plan is not None
    assert plan.windows == ()


@given(st.lists(st.integers(1, 20), min_size=2, max_size=30), st.tuples(MOMENTS, MOMENTS).map(sorted))
def test_plan_highlight_on_long_picture_is_never_copied(frames: list[int], interval: list[Fraction]) -> None:
    """Each picture is an IDR picture that lasts the given number of frames at 25 fps."""
    starts = [sum(frames[:number]) * STEP for number in range(len(frames))]
    table = PacketTable(starts, starts, [1] * len(starts), [0] * len(starts), TICK, frames[-1] * STEP)
    times = PictureTimes.of(table, FPS)
    start, end = interval
    # The file may give the last picture of a constant rate up to half an interval more, which does not count.
    spans = [*itertools.pairwise(at * TICK for at in starts), (starts[-1] * TICK, times.end_of(len(frames), FPS))]
    standing = [first for first, last in spans if last - first > Fraction(1, 10) and first <= end and start < last]
    within = [rank for rank, (first, _) in enumerate(spans) if start <= first <= end]
    if standing and not times.constant:
        with pytest.raises(SpliceError, match="which is shown for"):
            plan_packets(table, times, [(start, end)])
        return
    try:
        plan = plan_packets(table, times, [(start, end)])
    except SpliceError:  # every picture changes
        return
    rendered = {rank for window in plan.windows for rank in range(*window.kept)}
    assert rendered >= set(within)
    assert rendered >= {rank for rank, (first, _) in enumerate(spans) if first in standing}


def test_plan_does_not_count_hidden_frames_as_copied() -> None:
    plan = planned(stream([(True, [0] * 8), (True, [0] * 8)], hidden=3), (Fraction(8, 25), Fraction(9, 25)))
    assert plan is not None
    assert (plan.hidden, plan.frames_rendered, plan.frames_copied, plan.frames) == (3, 5, 8, 13)


def test_plan_span_in_open_group_extends_to_the_next_idr() -> None:
    of = stream([(True, [0, 2, 2]), (False, [2, 2, 2]), (True, [0, 2, 2])])
    plan = planned(of, (Fraction(4, 25), Fraction(4, 25)))
    assert plan is not None
    (window,) = plan.windows
    assert of.table.idr[window.end]
    assert window.end == 7 + 9


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_plan_reorder_depth_is_that_of_the_source(depth: int) -> None:
    plan = planned(stream([(True, [0] * 8), (True, [0] * 8)], depth=depth), (Fraction(0), Fraction(0)))
    assert plan is not None
    assert plan.reorder_depth == depth


def test_plan_leading_pictures_at_idr_are_refused() -> None:
    """A table may mark a picture as IDR although it is shown before earlier ones."""
    honest = stream([(True, [0] * 4), (True, [0] * 4)]).table
    pts = [at * STEP for at in (0, 1, 2, 4, 3, 5, 6, 7)]
    dts = [(position - 2) * STEP for position in range(8)]
    table = PacketTable(pts, dts, honest.idr, honest.hidden, TICK)
    with pytest.raises(SpliceError, match="depend on one that does"):
        plan_packets(table, PictureTimes.of(table, FPS), [(Fraction(0), Fraction(0))])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pts": [0, 512, 512, 1536]}, "two of its frames have the same timestamp"),
        ({"dts": [0, 512, 512, 1536]}, "not in the order of their decoding times"),
        ({"dts": [0, 512, 1536, 2048]}, "shown before it is decoded"),
        ({"idr": [0, 0, 0, 0]}, "depends on earlier ones"),
        ({"hidden": [0, 0, 0, 1]}, "hides frames in the middle or at the end"),
    ],
)
def test_plan_unsupported_table_is_refused_with_the_reason(change: dict[str, list[int]], words: str) -> None:
    of = {"pts": [0, 512, 1024, 1536], "dts": [0, 512, 1024, 1536], "idr": [1, 0, 0, 0], "hidden": [0, 0, 0, 0]}
    table = PacketTable(**{**of, **change}, tick_seconds=TICK)
    with pytest.raises(SpliceError, match=words):
        plan_packets(table, PictureTimes.of(table, FPS), [(Fraction(0), Fraction(0))])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 2))
def test_decoding_times_increase_and_precede_display(runs: list[int], start: int) -> None:
    pts = [at + start for at in stream([(True, runs)]).table.pts]
    dts = decoding_times(pts)
    assert all(before < after for before, after in itertools.pairwise(dts))
    assert all(decoded <= shown for decoded, shown in zip(dts, pts, strict=True))


@given(st.integers(0, 1000), st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(60000, 1001)]), STREAMS)
def test_picture_times_rounded_by_container_become_exact(start_ms: int, fps: Fraction, of: Stream) -> None:
    count = len(of.table)
    pts = [round(1000 * (at // STEP) / fps) + start_ms for at in of.table.pts]
    table = PacketTable(pts, decoding_times(pts), of.table.idr, [0] * count, Fraction(1, 1000))
    times = PictureTimes.of(table, fps)
    if count < 30:  # too short to distinguish a rounded rate from a variable one
        return
    assert times.constant
    assert {after - before for before, after in itertools.pairwise(times.pts)} == {1 / fps / times.tick_seconds}
    assert all(
        abs(at * times.tick_seconds - at_ms * Fraction(1, 1000)) < Fraction(2, 1000)
        for at, at_ms in zip(times.pts, sorted(pts), strict=True)
    )
    assert list(times.seconds) == [rank / fps for rank in range(count)]
