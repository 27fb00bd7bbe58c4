"""Expected progress of a plan at a given time, and plans that are refused."""

from __future__ import annotations

import math
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reel_modal._progress.plan import UNKNOWN_RELATIVE_STD, expected_remaining
from reel_modal.errors import ConfigError
from reel_modal.progress import Curve, PlannedPhase, ProgressPlan, WorkPhase, asymptotic, linear_with_cap
from reel_modal.testing.strategies import curves, durations, plans, spreads

DEFAULT = ProgressPlan.default()
moments = st.lists(st.floats(0, 1e5) | st.integers(0, 50).map(float), min_size=2, max_size=30).map(sorted)


@pytest.mark.parametrize(
    ("seconds", "phase", "percent"),
    [
        (0, "startup", 5),
        (2.5, "startup", 17.5),
        (5, "processing", 30),
        (20, "processing", 60),
        (33.5, "processing", 87),
        (35, "processing", 87),
        (1e6, "processing", 87),
    ],
)
def test_default_plan_equals_table_of_first_apps(seconds: float, phase: str, percent: float) -> None:
    row, shown = DEFAULT.at(seconds, linear_with_cap)
    assert (row.name, shown) == (phase, pytest.approx(percent))


def test_default_plan_messages_name_no_location() -> None:
    messages = [row.message for row in (*DEFAULT.phases, DEFAULT.saving)]
    assert messages == [
        "Sending the video...",
        "Starting the renderer...",
        "Processing the video...",
        "Saving the result...",
    ]
    assert (DEFAULT.complete_message, DEFAULT.failed_message) == ("Done.", "The job failed.")


def test_seed_plan_has_messages_of_first_apps() -> None:
    seed = ProgressPlan.seed()
    assert [(row.name, row.start, row.end, row.message) for row in (*seed.phases, seed.saving)] == [
        ("init", 5, 5, "Sending to cloud GPU..."),
        ("startup", 5, 30, "Starting cloud GPU..."),
        ("processing", 30, 90, "Processing video on GPU..."),
        ("saving", 95, 95, "Saving to library..."),
    ]
    assert (seed.complete_message, seed.failed_message) == ("Export complete!", "Export failed.")


@given(startup=durations(), work=durations().filter(bool), curve=st.sampled_from([asymptotic, linear_with_cap]))
def test_plan_from_benchmarks_startup_ends_at_thirty_percent(startup: float, work: float, curve: Curve) -> None:
    plan = ProgressPlan.from_benchmarks(startup_seconds=startup, processing_seconds=work)
    assert plan.at(startup, curve)[1] == 30
    assert plan.startup_seconds == startup
    assert plan.processing_seconds == work


@given(plan=plans(), curve=st.sampled_from([asymptotic, linear_with_cap]), moments=moments)
def test_plan_only_goes_forward_within_its_rows(plan: ProgressPlan, curve: Curve, moments: list[float]) -> None:
    shown = [plan.at(seconds, curve) for seconds in moments]
    assert all(row.start <= percent <= row.end for row, percent in shown)
    assert all(later >= earlier for (_, earlier), (_, later) in pairwise(shown))


@given(plan=plans(), curve=curves(), seconds=st.floats(0, 1e6))
def test_plan_any_curve_stays_within_its_row(plan: ProgressPlan, curve: Curve, seconds: float) -> None:
    row, percent = plan.at(seconds, curve)
    assert row.start <= percent <= row.end


def test_plan_rounding_stays_within_its_row() -> None:
    low, high = 0.5540970476308771, 5.1925163661906035
    assert low + (high - low) > high
    plan = ProgressPlan(phases=(row(low, high),), saving=row(high, high), work=())
    assert plan.at(1, lambda _elapsed, _expected, _spread: 1.0)[1] == high


@given(expected=st.floats(0.01, 1e5), spread=st.floats(0.05, 2), share=st.floats(0, 20))
def test_asymptotic_curve_never_stands_still_or_ends(expected: float, spread: float, share: float) -> None:
    now, later = share * expected, (share + 0.01) * expected
    assert 0 <= asymptotic(now, expected, spread) < 1
    if asymptotic(now, expected, spread) < 1 - 1e-12:
        assert asymptotic(later, expected, spread) > asymptotic(now, expected, spread)


def speed_and_due(expected: float, spread: float, share: float) -> tuple[float, float]:
    """Return the speed of the curve at a share of the expected time, and (remaining share) / `expected_remaining`."""
    now, step = share * expected, 1e-6 * expected
    speed = (asymptotic(now + step, expected, spread) - asymptotic(now - step, expected, spread)) / (2 * step)
    return speed, (1 - asymptotic(now, expected, spread)) / expected_remaining(now, expected, spread)


@given(expected=st.floats(0.01, 1e5), spread=st.floats(0.05, 1.29), share=st.floats(0.01, 5))
def test_asymptotic_speed_is_rest_over_expected_remaining(expected: float, spread: float, share: float) -> None:
    speed, due = speed_and_due(expected, spread, share)
    if expected >= 300 or due > 1.001 / 300:
        assert speed == pytest.approx(due, rel=1e-3, abs=1e-7 / expected)
    else:
        assert 0 <= speed <= 1.001 / 300


def test_asymptotic_curve_of_an_unknown_job_slows_down_where_the_line_ends() -> None:
    knee = 1 / (1 + UNKNOWN_RELATIVE_STD)
    assert speed_and_due(30, UNKNOWN_RELATIVE_STD, 0.99 * knee)[0] == pytest.approx(1 / 30)
    assert speed_and_due(30, UNKNOWN_RELATIVE_STD, 1.01 * knee)[0] == pytest.approx(1 / 300)


@pytest.mark.parametrize(
    ("plan", "until"),
    [
        (DEFAULT, 100),
        (ProgressPlan.from_benchmarks(startup_seconds=5, processing_seconds=30), 1.5 * 35),
        (ProgressPlan.from_benchmarks(startup_seconds=20, processing_seconds=60, spread=0.3), 1.2 * 80),
        (ProgressPlan.from_benchmarks(startup_seconds=5, processing_seconds=120), 1.1 * 125),
    ],
)
def test_plan_no_whole_percent_stands_for_longer_than_five_seconds(plan: ProgressPlan, until: float) -> None:
    shown = [math.floor(plan.at(tick / 4)[1]) for tick in range(int(4 * until))]
    stands = [len(list(ticks)) / 4 for _, ticks in groupby(shown)]
    assert max(stands) <= 5.25


def test_expected_remaining_overdue_job_grows_with_elapsed_time() -> None:
    assert [expected_remaining(elapsed, 30, 0.5) for elapsed in (0, 10, 20, 30, 60)] == [30, 20, 10, 15, 30]


@given(
    startup=durations(),
    seconds=st.lists(durations(), min_size=1, max_size=5).filter(any),
    startup_spread=spreads(),
    work_spread=spreads(),
)
def test_weighted_plan_percents_are_shares_of_time(
    startup: float, seconds: list[float], startup_spread: float, work_spread: float
) -> None:
    plan = ProgressPlan.weighted(
        startup_seconds=startup,
        work=[WorkPhase(f"phase {index}", value) for index, value in enumerate(seconds)],
        startup_spread=startup_spread,
        work_spread=work_spread,
    )
    everything = startup + sum(seconds)
    assert plan.phases[0].start == 0
    assert plan.limit == 99
    assert plan.phases[1].end == pytest.approx(99 * startup / everything)
    assert all(0.05 <= row.spread <= 2 for row in plan.phases)


def row(start: float = 0, end: float = 90, seconds: float = 1, **fields: float) -> PlannedPhase:
    return PlannedPhase("row", start, end, seconds, "...", **fields)


@pytest.mark.parametrize(
    ("start", "end", "seconds", "spread", "words"),
    [
        (-1, 5, 1, 0.5, "-1 to 5 %"),
        (6, 5, 1, 0.5, "6 to 5 %"),
        (5, 101, 1, 0.5, "5 to 101 %"),
        (math.nan, 5, 1, 0.5, "nan to 5 %"),
        (0, 5, -1, 0.5, "-1 s"),
        (0, 5, math.nan, 0.5, "nan s"),
        (0, 5, math.inf, 0.5, "inf s"),
        (0, 5, 1, math.nan, "must be a number"),
    ],
)
def test_phase_with_invalid_figures_is_refused(
    start: float, end: float, seconds: float, spread: float, words: str
) -> None:
    with pytest.raises(ConfigError, match=f"phase 'row' .*{words}"):
        PlannedPhase("row", start, end, seconds, "...", spread)


@pytest.mark.parametrize(
    ("phases", "saving", "words"),
    [
        ((), row(95, 95), "at least one phase"),
        ((row(seconds=0),), row(95, 95), "more than 0 s"),
        ((row(0, 50), row(40, 90)), row(95, 95), "starts at 40 %, below .*50 %"),
        ((row(0, 90),), row(80, 95), "starts at 80 %, below .*90 %"),
        ((row(0, 100),), row(100, 100), "below 100 %"),
        ((row(0, 90),), row(100, 100), "below 100 %"),
    ],
)
def test_plan_with_invalid_phases_is_refused(
    phases: tuple[PlannedPhase, ...], saving: PlannedPhase, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        ProgressPlan(phases=phases, saving=saving, work=())


def test_plan_constructors_refuse_invalid_durations() -> None:
    with pytest.raises(ConfigError, match="'startup' is expected to take -5 s"):
        ProgressPlan.from_benchmarks(startup_seconds=-5, processing_seconds=30)
    with pytest.raises(ConfigError, match="more than 0 s"):
        ProgressPlan.from_benchmarks(startup_seconds=5, processing_seconds=0)
    with pytest.raises(ConfigError, match="work of a plan must take more than 0 s"):
        ProgressPlan.weighted(startup_seconds=5, work=[])
    with pytest.raises(ConfigError, match="work phase 'render' is expected to take nan s"):
        WorkPhase("render", math.nan)


def test_with_messages_replaces_messages_of_known_phases() -> None:
    plan = DEFAULT.with_messages(startup="Einen Moment...", saving="Gleich da...", render="Rechnet...")
    assert plan.at(1)[0].message == "Einen Moment..."
    assert plan.saving.message == "Gleich da..."
    assert {phase.name: phase.message for phase in plan.work}["render"] == "Rechnet..."
    assert plan.at(10) == DEFAULT.at(10)
    with pytest.raises(ConfigError, match=r"no phase 'rendr'; it has .*render"):
        DEFAULT.with_messages(rendr="Rechnet...")
