"""Accuracy of the progress bars, measured with the traces of the table in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.job_traces import made, published
from benchmarks.progress_accuracy import MADE_JOBS, bars, short_table, table

DOCUMENTED = Path(__file__).parents[3] / "docs" / "progress.md"


@pytest.fixture(scope="module")
def rows() -> list[str]:
    with bars() as contestants:
        return table(contestants, published(), made(MADE_JOBS, seed=2))


def figures(row: str) -> list[float]:
    """Parse a row: error, ratios to the first row's error (all, published and generated jobs), stand-still, that of
    a whole percent, jobs with more than 5 s of it, cap, steps back."""
    return [float(cell) for cell in row.split("|")[2:-1]]


def test_documentation_table_equals_measured_accuracy(rows: list[str]) -> None:
    assert "\n".join(rows) in DOCUMENTED.read_text(encoding="utf-8")


def test_bars_never_go_back_or_stand_still(rows: list[str]) -> None:
    first, *ours = map(figures, rows[2:])
    assert first[4] > 60
    assert all(row[4] <= 3 for row in ours)
    assert all(row[8] == 0 for row in (first, *ours))


def test_bars_with_history_halve_error_with_events_quarter_it(rows: list[str]) -> None:
    by_name = {row.split(" |")[0].removeprefix("| "): figures(row) for row in rows[2:]}
    assert by_name["ours, simulated by history"][1] <= 0.5
    for name in ("ours, measured, no history", "ours, measured, with history"):
        assert all(ratio <= 0.25 for ratio in by_name[name][1:4])


def test_short_jobs_bar_errs_by_eight_points_at_most() -> None:
    lines = short_table()
    assert "\n".join(lines) in DOCUMENTED.read_text(encoding="utf-8")
    before, after = (float(line.split("|")[4]) for line in lines[2:])
    assert after <= 8 < before
