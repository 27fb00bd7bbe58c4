"""The timing database: learning, summaries, concurrent processes, and faults that never stop a job."""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.unit.progress.timings import HD, timing

from reel_modal.errors import ConfigError, ReelModalError
from reel_modal.functions.builtin import render_overlay
from reel_modal.progress import ProgressPlan, TimingHistory


class Wall:
    """A Unix time that the test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall_clock() -> Wall:
    return Wall()


@pytest.fixture
def history(tmp_path: Path, wall_clock: Wall) -> TimingHistory:
    return TimingHistory(tmp_path / "deep" / "timings.sqlite3", wall_clock=wall_clock)


def plan(history: TimingHistory, frames: int | None = 900, **fields: object) -> ProgressPlan:
    options: dict[str, object] = {"gpu": "T4", "size": HD} | fields
    return history.plan("render_overlay", frames=frames, **options)  # type: ignore[arg-type]


def test_history_empty_uses_published_figures_and_creates_no_file(history: TimingHistory) -> None:
    result = plan(history, published=render_overlay.published)
    assert result.source == "published figures: no finished job of render_overlay on T4 is recorded yet"
    assert result.startup_seconds == 26
    assert result.processing_seconds == pytest.approx(900 * 2.0736 * 0.0205)
    assert not history.path.parent.exists()


def test_history_plan_learns_from_finished_jobs(history: TimingHistory) -> None:
    for _ in range(3):
        history.record(timing(30.0, startup_seconds=12.0, cold=True))
    result = plan(history, frames=1800, cold=True)
    assert result.startup_seconds == 12
    assert result.processing_seconds == pytest.approx(60)
    assert [phase.name for phase in result.work] == ["fetch", "render", "publish"]
    assert result.source == (
        "the last 3 jobs of render_overlay on T4, 3 of about this size; a cold start, from 3 of them"
    )
    # The bar moves at one speed through startup and work.
    assert result.phases[1].end == pytest.approx(result.limit * 12 / 72)


def test_history_functions_and_gpus_are_separate(history: TimingHistory) -> None:
    history.record(timing(300.0))
    history.record(timing(7.0, gpu="A10G"))
    assert plan(history).processing_seconds == pytest.approx(300)
    assert plan(history, gpu="A10G").processing_seconds == pytest.approx(7)
    assert plan(history, gpu="L4").source.startswith("published figures")
    assert [history.has_jobs("render_overlay", gpu) for gpu in ("T4", "A10G", "L4")] == [True, True, False]
    assert not history.has_jobs("process_framing", "T4")
    assert history.plan("process_framing", gpu="T4", size=HD, frames=9).source.startswith("published figures")


def test_history_cold_and_warm_starts_are_separate(history: TimingHistory, wall_clock: Wall) -> None:
    for startup, cold in [(24.0, True), (0.4, False), (30.0, True), (0.6, False), (27.0, True)]:
        history.record(timing(30.0, startup_seconds=startup, cold=cold))
    assert plan(history, cold=True).startup_seconds == 27
    assert plan(history, cold=False).startup_seconds == 0.5
    # If `cold` is not given, the pause since the last job decides.
    assert plan(history).startup_seconds == 0.5
    wall_clock.now += 61
    assert plan(history).startup_seconds == 27
    assert "a cold start, from 3 of them" in plan(history).source


def test_history_unseen_kind_of_start_uses_published_figure(history: TimingHistory) -> None:
    history.record(timing(30.0, startup_seconds=3.0, cold=True))
    assert plan(history, cold=False).startup_seconds == 5.5
    assert plan(history, cold=False).source.endswith("a warm start, from published figures")


def test_history_pause_before_a_job_decides_cold_or_warm(history: TimingHistory, wall_clock: Wall) -> None:
    history.record(timing(30.0, startup_seconds=20.0))  # the first job
    wall_clock.now += 20 + 30.5  # submitted 20 s after the end of the previous job
    history.record(timing(30.0, startup_seconds=0.5))
    wall_clock.now += 300
    history.record(timing(30.0, startup_seconds=22.0))
    (known,) = history.summary()
    assert known.cold_startup is not None
    assert known.warm_startup is not None
    assert (known.cold_startup.seconds, known.cold_startup.jobs) == (21, 2)
    assert (known.warm_startup.seconds, known.warm_startup.jobs) == (0.5, 1)


def test_history_plan_has_the_spread_of_the_jobs(history: TimingHistory) -> None:
    for _ in range(20):
        history.record(timing(30.0, startup_seconds=20.0, cold=True))
        history.record(timing(30.0, startup_seconds=0.2, cold=False))
    for _ in range(10):
        history.record(timing(30.0, startup_seconds=10.0, cold=True))
        history.record(timing(30.0, startup_seconds=40.0, cold=True))
    startup, work = plan(history, cold=True).phases[1:]
    assert work.spread == pytest.approx(0.05)
    assert startup.spread > 0.3
    assert plan(history, cold=False).phases[1].spread < 0.1


def test_history_old_jobs_are_dropped(history: TimingHistory) -> None:
    for seconds in [500.0] * 40 + [30.0] * 200:
        history.record(timing(seconds))
    history.record(timing(9.0, gpu="L4"))
    assert plan(history).processing_seconds == pytest.approx(30)
    assert {known.gpu: known.jobs for known in history.summary()} == {"T4": 200, "L4": 1}


def test_history_summary_shows_learned_figures(history: TimingHistory, wall_clock: Wall) -> None:
    for frames in (100, 200, 400, 800):
        history.record(timing(40 + 0.1 * frames, frames, startup_seconds=20.0, cold=True))
    history.record(timing(20.0, 300, (640, 360), startup_seconds=0.5, cold=False))
    (known,) = history.summary()
    assert (known.function, known.gpu, known.jobs) == ("render_overlay", "T4", 5)
    assert known.fixed_seconds == pytest.approx(40, rel=0.5)
    assert known.seconds_per_megapixel == pytest.approx(0.1 / 2.0736, rel=0.2)
    assert known.seconds_per_frame == pytest.approx(0.2)
    assert known.sizes == (HD, (640, 360))
    assert known.last_finished_at == wall_clock.now
    assert known.to_dict()["cold_startup"] == {"seconds": 20.0, "spread": pytest.approx(1 / 6), "jobs": 4}


def test_history_unmeasurably_short_jobs_give_plan_and_summary(history: TimingHistory) -> None:
    for frames in (11, 12):
        history.record(timing(1.0, frames, (387, 470), seconds_by_phase={"fetch": 5e-324, "render": 0.0}))
    assert plan(history).processing_seconds > 0
    assert plan(history, frames=None).processing_seconds > 0
    (summary,) = history.summary()
    assert 0 <= summary.spread < math.inf


def test_history_empty_summary_is_empty(history: TimingHistory) -> None:
    assert history.summary() == []


def test_history_path_argument_then_variable_then_user_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"REEL_MODAL_TIMINGS": str(tmp_path / "b")}
    assert TimingHistory(tmp_path / "a", env=env).path == tmp_path / "a"
    assert TimingHistory(env=env).path == tmp_path / "b"
    assert TimingHistory(env={"REEL_MODAL_TIMINGS": ""}).path.parts[-2:] == ("reel_modal", "timings.sqlite3")
    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(tmp_path / "c"))
    assert TimingHistory().path == tmp_path / "c"


def test_history_plan_for_zero_frames_is_refused(history: TimingHistory) -> None:
    with pytest.raises(ConfigError, match="0 frames"):
        plan(history, frames=0)


def garbage(path: Path) -> None:
    path.write_bytes(b"this was never a database, however long one reads in it" * 100)


def from_the_future(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def damaged(path: Path) -> None:
    TimingHistory(path).record(timing(30.0))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE jobs SET seconds_by_phase = '{'")
        connection.commit()


def nonsense(path: Path) -> None:
    TimingHistory(path).record(timing(30.0))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE jobs SET frames = -4")
        connection.commit()


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [garbage, from_the_future, damaged, nonsense, a_folder])
def test_history_unusable_file_does_not_stop_a_job(
    spoil: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "timings"
    spoil(path)  # type: ignore[operator]
    history = TimingHistory(path)
    with caplog.at_level(logging.WARNING, "reel_modal"):
        assert plan(history).source.startswith("published figures")
        assert str(path) in caplog.text
        assert not history.has_jobs("render_overlay", "T4")
        history.record(timing(30.0))
    with pytest.raises(ReelModalError, match="REEL_MODAL_TIMINGS"):
        history.summary()


def test_history_unwritable_path_does_not_stop_a_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "reel_modal"):
        TimingHistory(tmp_path / "file" / "timings").record(timing(30.0))
    assert "the timing of a job was not stored" in caplog.text


def test_history_future_timestamps_count_as_cold_start(history: TimingHistory, wall_clock: Wall) -> None:
    wall_clock.now += 400 * 86400
    history.record(timing(30.0, startup_seconds=20.0, cold=True))
    history.record(timing(30.0, startup_seconds=0.5, cold=False))
    wall_clock.now -= 400 * 86400
    assert plan(history).startup_seconds == 20
    history.record(timing(30.0, startup_seconds=22.0))
    (known,) = history.summary()
    assert known.cold_startup is not None
    assert known.cold_startup.jobs == 2


FULL = """
import logging, resource, sys
from reel_modal._progress.history import JobTiming, TimingHistory
logging.basicConfig(level=logging.WARNING)
history = TimingHistory(sys.argv[1])
timing = JobTiming(function="f" * 2000, gpu="T4", size=(64, 36), frames=10, startup_seconds=1.0,
                   seconds_by_phase={"render": 2.0})
history.record(timing)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
for _ in range(50):
    history.record(timing)
print(history.plan("f" * 2000, gpu="T4", size=(64, 36), frames=10).processing_seconds)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX stand in for a full disk")
def test_history_full_disk_keeps_stored_jobs(tmp_path: Path) -> None:
    path = tmp_path / "timings"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL, str(path)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the timing of a job was not stored" in done.stderr
    assert float(done.stdout) == pytest.approx(2.0)
    assert TimingHistory(path).summary()[0].jobs >= 1
    TimingHistory(path).record(timing(1.0, function="g"))  # recording works again after space is available
    assert [known.function for known in TimingHistory(path).summary()] == ["f" * 2000, "g"]


def test_history_killed_writer_leaves_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "timings"
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDS, "T4", "100000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "REEL_MODAL_TIMINGS": str(path)},
    )
    with process:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        history = TimingHistory(path)
        while not history.summary() or history.summary()[0].jobs < 20:
            assert process.poll() is None
        process.kill()
    before = history.summary()[0].jobs
    history.record(timing(1.0, function="f"))
    assert history.summary()[0].jobs == before + 1


RECORDS = """
import logging, sys
from reel_modal._progress.history import JobTiming, TimingHistory
logging.basicConfig(level=logging.WARNING)
history = TimingHistory()
timing = JobTiming(function="f", gpu=sys.argv[1], size=(64, 36), frames=10, startup_seconds=1.0,
                   seconds_by_phase={"render": 2.0})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[2])):
    history.record(timing)
    assert history.plan("f", gpu=sys.argv[1], size=(64, 36), frames=10).processing_seconds
"""


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Start eight processes that each record 25 jobs into a new file after reading a line."""
    command = [sys.executable, "-W", "error", "-c", RECORDS]
    env = {**os.environ, "REEL_MODAL_TIMINGS": str(tmp_path / "timings")}
    running = [
        subprocess.Popen(
            [*command, f"gpu {number % 2}", "25"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        for number in range(8)
    ]
    yield running
    for process in running:
        process.kill()
        process.communicate()


def test_history_concurrent_processes_lose_no_jobs(writers: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    for process in writers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in writers:
        _, stderr = process.communicate(timeout=90)
        assert (process.returncode, stderr) == (0, "")
    assert [known.jobs for known in TimingHistory(tmp_path / "timings").summary()] == [100, 100]
