"""Estimates from finished jobs: fixed and proportional time, sizes, spread, published figures."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.progress.timings import HD, timing

from reel_modal._progress.timing_model import (
    LOCAL,
    JobTiming,
    fit_line,
    published_startup,
    published_work,
    spread_of,
    typical_work,
    units_of,
    work_from,
)
from reel_modal.errors import ConfigError
from reel_modal.functions.catalog import all_functions
from reel_modal.schema import RenderResult


def seconds_of(timings: list[JobTiming], size: tuple[int, int], frames: int) -> float:
    return sum(phase.seconds for phase in work_from(timings, size, frames).work)


def test_work_from_one_job_scales_with_pixels() -> None:
    assert seconds_of([timing(30.0)], HD, 1800) == pytest.approx(60)
    assert seconds_of([timing(30.0)], (960, 540), 900) == pytest.approx(7.5)


def test_work_from_several_lengths_separates_fixed_time() -> None:
    jobs = [timing(40 + 0.1 * frames, frames) for frames in (100, 200, 400, 800, 1600)]
    assert seconds_of(jobs, HD, 3200) == pytest.approx(360)
    assert seconds_of(jobs, HD, 10) == pytest.approx(41)


def test_work_from_ignores_outliers() -> None:
    odd = [timing(900.0, 300), timing(0.5, 1000)]
    jobs = [timing(0.1 * frames, frames) for frames in range(200, 1200, 100)]
    assert seconds_of([*odd, *jobs], HD, 600) == pytest.approx(60, rel=0.1)


def test_work_from_prefers_jobs_of_similar_size() -> None:
    small = [timing(90.0, size=(320, 180)) for _ in range(30)]  # time here depends on frames, not on pixels
    large = [timing(90.0) for _ in range(5)]
    estimate = work_from([*small, *large], HD, 900)
    assert (estimate.jobs, estimate.near) == (5, 5)
    assert sum(phase.seconds for phase in estimate.work) == pytest.approx(90)
    assert work_from([*small, *large[:4]], HD, 900).jobs == 34


def test_work_from_splits_time_by_phase_in_order() -> None:
    phases = work_from([timing(30.0), timing(30.0)], HD, 900).work
    assert [(phase.name, pytest.approx(phase.seconds)) for phase in phases] == [
        ("fetch", 3),
        ("render", 24),
        ("publish", 3),
    ]


def test_work_from_enough_jobs_measures_their_spread() -> None:
    noise = random.Random(1)
    steady = [timing(30.0) for _ in range(40)]
    shaky = [timing(30.0 * math.exp(noise.gauss(0, 0.3))) for _ in range(40)]
    assert work_from(steady, HD, 900).spread < 0.05
    assert work_from(shaky, HD, 900).spread == pytest.approx(0.3, abs=0.1)
    assert work_from(steady[:1], HD, 900).spread > 0.3


positive = st.floats(1e-6, 1e6)


@given(points=st.lists(st.tuples(positive, positive), min_size=1, max_size=20), units=positive)
def test_fit_line_any_points_gives_positive_time(points: list[tuple[float, float]], units: float) -> None:
    line = fit_line(points)
    assert line.fixed_seconds >= 0
    assert line.seconds_per_unit >= 0
    assert 0 < line.at(units) < math.inf


@given(fixed=st.floats(0, 100), slope=st.floats(0.01, 10), units=st.lists(st.floats(1, 1e4), min_size=4, unique=True))
def test_fit_line_recovers_a_line(fixed: float, slope: float, units: list[float]) -> None:
    units.sort()
    if units[-1] > 1.5 * units[2] and units[-2] > 1.5 * units[0]:
        line = fit_line([(x, fixed + slope * x) for x in units])
        assert line.at(5000.0) == pytest.approx(fixed + slope * 5000, rel=1e-6)


@given(ratios=st.lists(st.floats(0), min_size=1))
def test_spread_of_any_ratios_is_finite(ratios: list[float]) -> None:
    assert 0 <= spread_of(ratios) < math.inf


durations = st.floats(0, 1e4) | st.sampled_from([5e-324, 1e-300, 1e-9])


@example(jobs=[({"fetch": 5e-324}, 11, (387, 470))], frames=1, size=(1, 1))
@given(
    jobs=st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(["fetch", "render", "verify"]), durations, min_size=1).filter(
                lambda phases: sum(phases.values()) > 0
            ),
            st.integers(1, 10**6),
            st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
        ),
        min_size=1,
        max_size=12,
    ),
    frames=st.integers(1, 10**7),
    size=st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
)
def test_work_from_any_history_gives_a_plan(
    jobs: list[tuple[dict[str, float], int, tuple[int, int]]], frames: int, size: tuple[int, int]
) -> None:
    timings = [timing(1.0, count, shape, seconds_by_phase=phases) for phases, count, shape in jobs]
    for estimate in (work_from(timings, size, frames), typical_work(timings)):
        assert {phase.name for phase in estimate.work} <= {"fetch", "render", "verify"}
        assert 0 < sum(phase.seconds for phase in estimate.work) < math.inf
        assert 0 <= estimate.spread < math.inf


def test_timing_of_result_has_its_fields() -> None:
    result = RenderResult(
        job_id="j",
        function="render_overlay",
        output_key="out.mp4",
        frames=90,
        size=(320, 180),
        fps=Fraction(25),
        duration_seconds=Fraction(90, 25),
        bytes=1000,
        engine="opencv-yuv420p",
        encoder="libx264",
        seconds_by_phase={"fetch": 0.5, "render": 2.5},
    )
    result_timing = JobTiming.of(result, gpu="cpu", startup_seconds=1.5)
    assert (result_timing.function, result_timing.gpu, result_timing.size, result_timing.frames) == (
        "render_overlay",
        "cpu",
        (320, 180),
        90,
    )
    assert (result_timing.work_seconds, result_timing.startup_seconds, result_timing.cold) == (3.0, 1.5, None)
    assert result_timing.units == units_of((320, 180), 90) == pytest.approx(5.184)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"function": ""}, "names of its function"),
        ({"gpu": ""}, "names of its function"),
        ({"frames": 0}, "0 frames of 1920 x 1080"),
        ({"size": (0, 5)}, "900 frames of 0 x 5"),
        ({"startup_seconds": -1.0}, "-1.0 is not a valid duration"),
        ({"startup_seconds": math.nan}, "nan is not a valid duration"),
        ({"seconds_by_phase": {"render": math.inf}}, "inf is not a valid duration"),
        ({"seconds_by_phase": {}}, "more than 0 s"),
    ],
)
def test_timing_with_invalid_field_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        timing(30.0, **fields)


@pytest.mark.parametrize(
    ("function", "gpu", "size", "frames", "shortest", "longest"),
    [
        ("render_overlay", "T4", HD, 2700, 47.6, 278),
        ("process_framing", "T4", (810, 1440), 180, 16, 17),
        ("process_framing", "cpu", (810, 1440), 180, 10.5, 11.5),
        ("apply_upscale", "T4", (2560, 1440), 180, 122.7, 192.2),
        ("apply_upscale", "A10G", (2560, 1440), 449, 280, 345),
        ("unknown", "T4", HD, 7, 30, 30),
    ],
)
def test_published_work_is_within_documented_range(
    function: str, gpu: str, size: tuple[int, int], frames: int, shortest: float, longest: float
) -> None:
    declared = all_functions(env={}).get(function)
    estimate = published_work(declared and declared.published, gpu, size, frames)
    assert shortest <= sum(phase.seconds for phase in estimate.work) <= longest + 1e-9
    assert (estimate.jobs, [phase.name for phase in estimate.work][1]) == (0, "render")


def test_published_startup_cold_is_longer_than_warm() -> None:
    cold, warm, local = (
        published_startup("T4", cold=True),
        published_startup("T4", cold=False),
        published_startup(LOCAL, cold=True),
    )
    assert published_startup("cpu", cold=True) == cold  # a container without a GPU needs a cold start too
    assert cold.seconds > warm.seconds > local.seconds
