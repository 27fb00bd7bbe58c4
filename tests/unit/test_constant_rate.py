"""The constant frame rate chosen for a variable-rate clip, over generated timelines."""

from __future__ import annotations

import random
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reel_modal._rendering.frame_schedule import Schedule
from reel_modal.media.constant_rate import MOST_LATE_FRAMES, FrameGrid, constant_rate_for
from reel_modal.media.timestamps import PacketTimes
from reel_modal.schema import Timeline

F = Fraction
TICK = F(1, 90_000)
NTSC = F(30_000, 1001)


def times_of(seconds: Iterable[Fraction | float], *, tick: Fraction = TICK, last: Fraction | int = 0) -> PacketTimes:
    ticks = tuple(sorted({round(F(each) / tick) for each in seconds}))
    return PacketTimes(ticks, len(ticks), round(F(last) / tick), tick)


def sections(*parts: tuple[Fraction | int, int]) -> list[Fraction]:
    """Return frame times at successive rates, given (rate, frame count) pairs."""
    times, start = [], F(0)
    for rate, count in parts:
        times += [start + F(number) / rate for number in range(count)]
        start += F(count) / rate
    return times


RATES = st.sampled_from([F(1, 2), F(1), F(2), F(5), F(10), F(15), F(20), F(24), NTSC, F(30), F(50), F(60), F(120)])
PARTS = st.lists(st.tuples(RATES, st.integers(1, 150)), min_size=2, max_size=5)
TIMELINES = st.builds(
    lambda parts, last: times_of(sections(*parts), last=last),
    PARTS,
    st.fractions(0, 5, max_denominator=100),
)


@pytest.mark.parametrize(
    ("pictures", "rate"),
    [
        (sections((15, 90), (30, 300)), 30),
        (sections((2, 40), (60, 640)), 60),
        ([F(0), F(9), *(10 + F(number, 60) for number in range(200))], 60),
        (sections((10, 600), (60, 300)), 60),
        (sections((30, 100), (120, 200), (30, 100)), 120),
        ([F(number, 2) for number in range(50) if number % 5], 24),
        ([number / NTSC for number in range(300) if number % 7], NTSC),
        ([F(number, 30) for number in range(300) if number % 7], 30),
        ([F(number, 25) for number in range(50) if number < 25 or number % 3], 25),
    ],
)
def test_constant_rate_of_known_timelines_is_expected(pictures: list[Fraction], rate: Fraction) -> None:
    assert constant_rate_for(times_of(pictures), []) == rate


def test_constant_rate_of_rounded_ntsc_times_is_ntsc() -> None:
    times = times_of([number / NTSC for number in range(300) if number % 7], tick=F(1, 1000))
    assert constant_rate_for(times, []) == NTSC


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_constant_rate_of_jittering_clock_is_its_nominal_rate(seed: int, milliseconds: int) -> None:
    clock = random.Random(seed)
    spread = milliseconds / 1000
    times = times_of(number / 30 + clock.uniform(-spread, spread) for number in range(300))
    assert constant_rate_for(times, []) == 30
    assert FrameGrid.of(times, F(30)).dropped <= 3


@given(TIMELINES)
def test_constant_rate_drops_at_most_one_percent(times: PacketTimes) -> None:
    rate = constant_rate_for(times, [])
    grid = FrameGrid.of(times, rate)
    assert rate <= 120
    assert 100 * grid.dropped <= len(times.ticks)
    assert grid.count == grid.repeated + len(times.ticks) - grid.dropped


@given(TIMELINES, RATES, st.sampled_from([0, MOST_LATE_FRAMES]))
def test_frame_grid_counts_equal_a_schedule(times: PacketTimes, rate: Fraction, late: float) -> None:
    """`process_framing` writes by the schedule; the notes and `FrameReader` count by the grid."""
    seconds = [(tick - times.ticks[0]) * times.tick_seconds for tick in times.ticks]
    grid = FrameGrid.of(times, rate, most_late_frames=late)
    schedule = Schedule(Timeline.of(F(0), times.span_seconds(rate)), rate, "repeat", most_late_frames=late)
    shown: list[int] = []
    for number, moment in enumerate(seconds):
        shown += [number - 1] * len(list(schedule.picture(moment)))
    shown += [len(seconds) - 1] * len(list(schedule.rest()))
    assert abs(len(shown) - grid.count) <= 1  # half a frame at the end is rounded to even
    assert shown == sorted(shown)
    if len(shown) == grid.count:
        assert len(seconds) - len(set(shown)) == grid.dropped


@given(TIMELINES, RATES)
def test_schedule_shows_no_picture_much_too_late_or_early(times: PacketTimes, rate: Fraction) -> None:
    seconds = [(tick - times.ticks[0]) * times.tick_seconds for tick in times.ticks]
    schedule = Schedule(
        Timeline.of(F(0), times.span_seconds(rate)), rate, "repeat", most_late_frames=MOST_LATE_FRAMES
    )
    first: dict[int, int] = {}
    for number, moment in enumerate(seconds):
        for frame in schedule.picture(moment):
            first.setdefault(number - 1, frame.index)
    for number, index in first.items():
        assert -F(1, 2) - F(1, 1000) <= index - seconds[number] * rate <= MOST_LATE_FRAMES + F(1, 1000)


@given(PARTS, st.fractions(0, 5, max_denominator=100))
def test_packet_times_each_picture_lasts_until_the_next(parts: list[tuple[Fraction, int]], last: Fraction) -> None:
    times = times_of(sections(*parts), last=last)
    starts = [tick * times.tick_seconds for tick in times.ticks]
    for start, following in pairwise(starts):
        assert times.after(start) == following
    assert times.after(starts[-1]) is None
    assert times.span_seconds(F(30)) > starts[-1] - starts[0]
