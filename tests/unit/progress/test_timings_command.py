"""Output of `reel-modal timings` for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.progress.timings import timing

from reel_modal.cli import main
from reel_modal.progress import TimingHistory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "timings.sqlite3"
    history = TimingHistory(path, wall_clock=lambda: 1_795_000_000.0)
    for frames in (100, 200, 400, 800, 1600):
        history.record(timing(40 + 0.1 * frames, frames, startup_seconds=20.0, cold=True))
    history.record(timing(100.0, 600, startup_seconds=0.5, cold=False))
    return path


def test_timings_command_prints_sentences(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timings", "--file", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "render_overlay on T4: 6 jobs, the last one on 2026-11-18 at 11:06 UTC",
        "  cold start: 20.0 s, plus or minus 14%, from 5 jobs",
        "  warm start: 0.5 s, plus or minus 33%, from 1 job",
        "  work: 40.0 s, and 48.23 ms per megapixel of each frame, plus or minus 12%",
        "  example: 900 frames of 1920 x 1080 take 130.0 s (6.9 fps)",
    ]
    assert shown.err == f"in {path}\n"


def test_timings_command_json_prints_fields(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(path))
    assert main(["timings", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["path"] == str(path)
    (known,) = shown["timings"]
    assert (known["function"], known["gpu"], known["jobs"]) == ("render_overlay", "T4", 6)
    assert known["fixed_seconds"] == pytest.approx(40)
    assert known["sizes"] == [[1920, 1080]]


def test_timings_command_without_history_succeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["timings", "--file", str(tmp_path / "none")]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no job has finished yet" in shown.err


def test_timings_command_invalid_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("Buy milk. " * 200)
    assert main(["timings", "--file", str(tmp_path / "notes.txt")]) == 1
    assert "notes.txt' cannot be read" in capsys.readouterr().err
