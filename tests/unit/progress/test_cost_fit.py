"""Expected phases by a cost model: transfers by store, and corrections by finished jobs."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.progress.timings import HD, timing

from reel_modal._progress.cost_fit import modelled_work
from reel_modal.progress import JobModel, JobTiming, TimingHistory

STORE = "s3://media"
MODEL = JobModel(render_seconds=100.0, spread=0.6, store=STORE, bytes_in=100_000_000, bytes_out=50_000_000)


def job(
    factor: float,
    *,
    function: str = "render_overlay",
    gpu: str = "T4",
    expected: float = 100.0,
    store: str = STORE,
    megabytes: float = 100.0,
    fetch_seconds: float = 3.0,
) -> JobTiming:
    """Return a job that took `factor` times what its model had expected."""
    size = int(1e6 * megabytes)
    model = replace(MODEL, render_seconds=expected, store=store, bytes_in=size, bytes_out=size)
    phases = {"fetch": fetch_seconds, "render": 0.95 * factor * expected, "verify": 0.05 * factor * expected}
    return timing(0, function=function, gpu=gpu, seconds_by_phase=phases | {"publish": fetch_seconds}, model=model)


def phases(*jobs: JobTiming, gpu: str = "T4", model: JobModel = MODEL, frames: int = 900) -> dict[str, float]:
    work, _ = modelled_work(model, "render_overlay", gpu, frames, jobs)
    return {phase.name: phase.seconds for phase in work.work}


def rendering(*jobs: JobTiming, gpu: str = "T4", model: JobModel = MODEL) -> float:
    found = phases(*jobs, gpu=gpu, model=model)
    return found["render"] + found["verify"]


def test_no_jobs_give_the_model() -> None:
    found = phases()
    assert found["render"] + found["verify"] == 100
    assert found["fetch"] == pytest.approx(1 + 100 / 50)
    assert found["publish"] == pytest.approx(1 + 50 / 50)
    assert 0 < found["verify"] < 0.1


def test_measured_jobs_win_over_the_model() -> None:
    jobs = [job(2.0, expected=expected) for expected in (25, 50, 75)]
    assert rendering(*jobs) == pytest.approx(200)
    found = phases(*jobs)
    assert found["verify"] == pytest.approx(10)
    other = [job(9.0, gpu="L4"), job(9.0, function="apply_upscale")]
    assert rendering(*jobs, *other) == pytest.approx(200)


def test_measured_jobs_of_other_work_scale_with_their_model() -> None:
    """A job on a small clip tells what one on a large clip with a slow preset takes."""
    assert rendering(job(1.5, expected=1.0), model=replace(MODEL, render_seconds=400.0)) == pytest.approx(600)


def test_many_jobs_separate_fixed_from_proportional_time() -> None:
    jobs = [job((20 + 0.5 * expected) / expected, expected=expected) for expected in (10, 20, 40, 80, 160, 320)]
    assert rendering(*jobs, model=replace(MODEL, render_seconds=1000.0)) == pytest.approx(520, rel=0.01)


def test_job_on_another_gpu_corrects_the_model() -> None:
    work, basis = modelled_work(MODEL, "render_overlay", "L4", 900, [job(2.0), job(2.0)])
    assert sum(phase.seconds for phase in work.work[1:3]) == pytest.approx(200, rel=0.01)
    assert (work.jobs, basis) == (0, "2 jobs of render_overlay on T4")
    assert work.spread > 0.5


def test_measured_ratio_of_gpus_wins_over_the_assumed_one() -> None:
    """Upscales were 3 times as fast on an L4 as the model says, and this function is right on a T4."""
    upscales = [job(1.5, function="apply_upscale"), job(0.5, function="apply_upscale", gpu="L4")]
    assert rendering(job(1.2), *upscales, gpu="L4") == pytest.approx(1.2 / 3 * 100, rel=0.01)
    assert rendering(job(1.2), gpu="L4") == pytest.approx(120, rel=0.01)


def test_other_functions_and_this_machine_correct_in_part() -> None:
    by_function = rendering(job(4.0, function="apply_upscale"))
    by_machine = rendering(job(4.0, gpu="local"))
    assert by_function == by_machine == pytest.approx(200, rel=0.01)
    assert rendering(job(4.0, gpu="local"), job(1.0, gpu="L4")) == pytest.approx(100, rel=0.01)
    assert rendering(job(4.0, function="apply_upscale", gpu="L4")) == pytest.approx(100, rel=0.01)


def test_bandwidth_is_learned_by_store() -> None:
    slow = [job(1.0, megabytes=size, fetch_seconds=2 + size / 10) for size in (10, 40, 160)]
    assert phases(*slow)["fetch"] == pytest.approx(12)
    assert phases(*slow)["publish"] == pytest.approx(7)
    assert phases(*slow, gpu="L4")["fetch"] == pytest.approx(12)
    assert phases(*slow, model=replace(MODEL, store="s3://other"))["fetch"] == pytest.approx(3)
    assert phases(*slow, gpu="local")["fetch"] == pytest.approx(3)  # another place of the network
    assert phases(*slow, model=replace(MODEL, bytes_in=1000))["fetch"] == pytest.approx(3)
    tiny = [job(1.0, megabytes=0.001, fetch_seconds=0.2)]
    assert phases(*tiny)["fetch"] == pytest.approx(0.2 + 2)
    of_others = [replace(each, function="apply_upscale") for each in slow]
    assert phases(*of_others)["fetch"] == pytest.approx(12)


def test_file_in_place_takes_the_time_of_its_probe() -> None:
    in_place = replace(MODEL, store="")
    assert phases(gpu="local", model=in_place)["fetch"] == 0
    local = [job(1.0, gpu="local", store="", megabytes=size, fetch_seconds=0.06) for size in (10, 1000)]
    assert phases(*local, gpu="local", model=in_place)["fetch"] == pytest.approx(0.06)


times = st.floats(1e-6, 1e6)
factors = st.floats(1e-3, 1e3)


@given(
    jobs=st.lists(
        st.builds(
            job,
            factors,
            function=st.sampled_from(["render_overlay", "apply_upscale"]),
            gpu=st.sampled_from(["T4", "L4", "local"]),
            store=st.sampled_from(["", STORE]),
            megabytes=st.floats(0, 1e5),
            fetch_seconds=times,
        ),
        max_size=12,
    ),
    seconds=times,
    store=st.sampled_from(["", STORE]),
)
def test_any_jobs_give_a_finite_plan(jobs: list[JobTiming], seconds: float, store: str) -> None:
    model = replace(MODEL, render_seconds=seconds, store=store)
    work, _ = modelled_work(model, "render_overlay", "T4", 10, jobs)
    assert all(0 <= phase.seconds < 1e8 for phase in work.work)
    assert sum(phase.seconds for phase in work.work) > 0
    assert 0 <= work.spread < 100


def test_history_keeps_the_model_of_a_job(tmp_path: Path) -> None:
    history = TimingHistory(tmp_path / "timings.sqlite3")
    history.record(job(2.0))
    plan = history.plan("render_overlay", gpu="T4", size=HD, frames=900, model=MODEL)
    assert {phase.name: phase.seconds for phase in plan.work}["render"] == pytest.approx(190)
    assert plan.source.startswith("the last 1 job of render_overlay on T4")
    corrected = history.plan("render_overlay", gpu="L4", size=HD, frames=900, model=MODEL)
    assert corrected.source == (
        "a cost model, corrected by 1 job of render_overlay on T4: no finished job of render_overlay on L4 is"
        " recorded yet"
    )


OLD_TABLE = """
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY, finished_at REAL NOT NULL, function TEXT NOT NULL, gpu TEXT NOT NULL,
        width_px INTEGER NOT NULL, height_px INTEGER NOT NULL, frames INTEGER NOT NULL, cold INTEGER NOT NULL,
        startup_seconds REAL NOT NULL, seconds_by_phase TEXT NOT NULL
    );
    PRAGMA user_version = 1;
"""
OLD_INSERT = (
    "INSERT INTO jobs (finished_at, function, gpu, width_px, height_px, frames, cold, startup_seconds,"
    " seconds_by_phase) VALUES (0, 'render_overlay', 'T4', 1920, 1080, 900, 1, 5, '{\"render\": 60}')"
)


def test_history_of_an_older_version_is_used_by_both(tmp_path: Path) -> None:
    """A job without a model counts by its size, until one with a model is recorded; the older version still writes."""
    path = tmp_path / "timings.sqlite3"
    with sqlite3.connect(path) as old:
        old.executescript(OLD_TABLE)
        old.execute(OLD_INSERT)
    history = TimingHistory(path)

    def seconds() -> float:
        return history.plan("render_overlay", gpu="T4", size=HD, frames=900, model=MODEL).processing_seconds

    assert seconds() == pytest.approx(60)
    history.record(job(2.0))
    assert seconds() == pytest.approx(200 + 6)
    with sqlite3.connect(path) as old:
        old.execute(OLD_INSERT)
    assert seconds() == pytest.approx(200 + 6)
    assert history.summary()[0].jobs == 3
