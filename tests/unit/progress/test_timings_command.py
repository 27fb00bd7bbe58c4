"""`reel-modal timings` as a person and a machine read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.progress.test_timings import timing

from reel_modal.cli import main
from reel_modal.progress.timing_history import TimingHistory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "timings.sqlite3"
    history = TimingHistory(path, wall_clock=lambda: 1_795_000_000.0)
    for frames in (100, 200, 400, 800, 1600):
        history.record(timing(40 + 0.1 * frames, frames, startup_seconds=20.0, cold=True))
    history.record(timing(100.0, 600, startup_seconds=0.5, cold=False))
    return path


def test_people_read_sentences(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timings", "--file", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "render_overlay on T4: 6 jobs, the last one on 2026-11-18 at 11:06 UTC",
        "  cold start: 20.0 s, give or take 14%, by 5 jobs",
        "  warm start: 0.5 s, give or take 33%, by 1 job",
        "  work: 40.0 s, and 48.23 ms for each megapixel of each frame, give or take 12%",
        "  so 900 frames of 1920 x 1080 take 130.0 s (6.9 fps)",
    ]
    assert shown.err == f"in {path}\n"


def test_machines_read_json(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(path))
    assert main(["timings", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["path"] == str(path)
    (known,) = shown["timings"]
    assert (known["function"], known["gpu"], known["jobs"]) == ("render_overlay", "T4", 6)
    assert known["fixed_seconds"] == pytest.approx(40)
    assert known["sizes"] == [[1920, 1080]]


def test_no_history_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timings", "--file", str(tmp_path / "none")]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no job has finished yet" in shown.err


def test_a_file_that_is_none_of_ours_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("Buy milk. " * 200)
    assert main(["timings", "--file", str(tmp_path / "notes.txt")]) == 1
    assert "notes.txt' cannot be read" in capsys.readouterr().err
