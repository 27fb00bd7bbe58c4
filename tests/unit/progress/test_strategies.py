"""The strategies of `reel_modal.testing` make valid jobs, and the check finds a bar that breaks a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reel_modal.progress import ProgressPlan, ProgressUpdate
from reel_modal.testing.strategies import check_updates, job_updates, plans

DEFAULT = ProgressPlan.default()


@given(data=st.data(), plan=plans())
def test_updates_of_any_plan_keep_the_rules(data: st.DataObject, plan: ProgressPlan) -> None:
    check_updates(data.draw(job_updates(plan)), plan)


def test_job_updates_reach_each_kind_of_job() -> None:
    reached = set[str]()

    @settings(max_examples=300, derandomize=True, database=None, phases=[Phase.generate])
    @given(updates=job_updates(DEFAULT))
    def collect(updates: list[ProgressUpdate]) -> None:
        for update in updates:
            reached.update({update.source, update.status, update.phase})
            reached.update({"stalled"} if update.stalled_seconds is not None else ())
            reached.update({"second attempt"} if update.work is not None and update.work.attempt > 1 else ())
            reached.update({"overdue"} if update.elapsed_seconds > 100 else ())

    collect()
    assert {"measured", "simulated", "render", "saving", "error", "stalled", "second attempt", "overdue"} <= reached


def shown(*progress: float, **changes: object) -> list[ProgressUpdate]:
    rows = [
        ProgressUpdate(percent, "...", "processing", "render", "simulated", float(number), None, number + 1)
        for number, percent in enumerate(progress)
    ]
    end = ProgressUpdate(100.0, "Done.", "complete", "complete", "simulated", 9.0, 0.0, len(rows) + 1)
    return [*rows[:-1], replace(rows[-1], **changes), end]  # type: ignore[arg-type]


def test_check_accepts_a_correct_bar() -> None:
    check_updates(shown(5.0, 20.0, 80.5), DEFAULT)


@pytest.mark.parametrize(
    ("updates", "problem"),
    [
        (shown(5.0, 20.0, 19.9), "goes back"),
        (shown(5.0, 95.0), "limit of 90"),
        (shown(5.0, 20.0, progress=100.0), "100 % and complete differ"),
        (shown(5.0, 20.0, sequence=1), "sequence"),
        (shown(5.0, 20.0, elapsed_seconds=-1.0), "negative"),
        (shown(5.0, 20.0, eta_seconds=float("inf")), "not finite"),
        (shown(5.0, 20.0, eta_seconds=0.0), "no time is left"),
        (shown(5.0, 20.0, status="error"), "final updates"),
        (shown(5.0, 20.0)[:-1], "final updates"),
    ],
)
def test_check_names_the_broken_rule(updates: list[ProgressUpdate], problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        check_updates(updates, DEFAULT)
