"""Hypothesis strategies: plans, curves, events and whole jobs, and the rules that every progress bar keeps.

With them a host tests a plan or a curve of its own against thousands of jobs. Needs the package hypothesis.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from itertools import pairwise

from reel_modal._progress.simulation import SimulatedProgress
from reel_modal.progress import (
    Curve,
    PlannedPhase,
    ProgressBlender,
    ProgressEvent,
    ProgressPlan,
    ProgressUpdate,
    WorkPhase,
    asymptotic,
    linear_with_cap,
)

try:
    from hypothesis import strategies as st
except ImportError as _error:
    raise ImportError(
        "reel_modal.testing.strategies makes hypothesis strategies; install hypothesis to use it"
    ) from (_error)

__all__ = [
    "any_event",
    "check_updates",
    "clock_readings",
    "curves",
    "durations",
    "events",
    "job_updates",
    "plans",
    "spreads",
]

_PHASES = ("fetch", "render", "verify", "publish")


def durations() -> st.SearchStrategy[float]:
    """Return a strategy of durations in seconds that a plan accepts, 0 included."""
    return st.floats(0, 1e4) | st.sampled_from([0.0, 5e-324, 1e-9, 0.5, 5.0, 30.0, 1e6])


def spreads() -> st.SearchStrategy[float]:
    """Return a strategy of relative spreads; a plan limits those that are too small or too large."""
    return st.floats(-1, 5) | st.just(math.inf)


def clock_readings() -> st.SearchStrategy[float]:
    """Return a strategy of readings of a clock that may jump in both directions."""
    return st.floats(-1e6, 1e6) | st.integers(0, 100).map(float)


def curves() -> st.SearchStrategy[Curve]:
    """Return a strategy of the library's curves, and of invalid ones that a caller may write."""
    return st.sampled_from(
        [asymptotic, linear_with_cap, lambda elapsed, _expected, _spread: 1 / (1 + elapsed)]
    ) | st.builds(lambda share: lambda _elapsed, _expected, _spread: share, st.floats())


@st.composite
def plans(draw: st.DrawFn) -> ProgressPlan:
    """Return a strategy of all plans: those that the library makes, and any that a caller may write."""
    kind = draw(st.sampled_from(["default", "seed", "benchmarks", "weighted", "free"]))
    if kind in {"default", "seed"}:
        return ProgressPlan.default() if kind == "default" else ProgressPlan.seed()
    startup, work = draw(durations()), draw(durations().filter(bool))
    if kind == "benchmarks":
        return ProgressPlan.from_benchmarks(startup_seconds=startup, processing_seconds=work)
    if kind == "weighted":
        rest = [WorkPhase(name, draw(durations())) for name in draw(st.permutations(_PHASES))]
        return ProgressPlan.weighted(
            startup_seconds=startup,
            work=[WorkPhase("first", work), *rest],
            startup_spread=draw(spreads()),
            work_spread=draw(spreads()),
        )
    percents = st.floats(0, 99.9) | st.integers(0, 99).map(float)
    borders = sorted(draw(st.lists(percents, min_size=4, max_size=10)))
    borders = borders[: len(borders) // 2 * 2]
    rows = [
        PlannedPhase(
            f"row {index // 2}", borders[index], borders[index + 1], draw(durations()), "...", draw(spreads())
        )
        for index in range(0, len(borders) - 2, 2)
    ]
    last = PlannedPhase("last", rows[-1].start, rows[-1].end, work, "...", draw(spreads()))
    return ProgressPlan(
        phases=(*rows[:-1], last),
        saving=PlannedPhase("saving", borders[-2], borders[-1], draw(durations()), "..."),
        work=tuple(
            WorkPhase(name, draw(durations())) for name in draw(st.lists(st.sampled_from(_PHASES), unique=True))
        ),
        curve=draw(curves()),
        whole_percents=draw(st.booleans()),
    )


@st.composite
def events(draw: st.DrawFn) -> list[ProgressEvent]:
    """Return a strategy of the events of a job, as they arrive: some lost, repeated, late, out of order or invalid.

    The job has one to three attempts.
    """
    arriving = [event for event in draw(_sent_events()) for _ in range(draw(st.sampled_from([1, 1, 1, 0, 2])))]
    places = st.integers(0, max(len(arriving) - 1, 0))
    for _ in range(draw(st.integers(0, 4)) if arriving else 0):
        event = arriving.pop(draw(places))
        arriving.insert(draw(places), event)
    for event in draw(st.lists(any_event(), max_size=4)):
        arriving.insert(draw(st.integers(0, len(arriving))), event)
    return arriving


@st.composite
def _sent_events(draw: st.DrawFn) -> list[ProgressEvent]:
    """Draw the events of a job in the order in which they are sent."""
    sent = []
    for attempt in range(1, draw(st.integers(1, 3)) + 1):
        elapsed, sequence = 0.0, 0
        for phase in _PHASES[: draw(st.integers(1, 4))]:
            total = draw(st.none() | st.integers(0, 300))
            for done in sorted({0, total or 1, *draw(st.lists(st.integers(0, total or 1), max_size=4))}):
                elapsed += draw(st.floats(0, 60))
                sequence += 1
                sent.append(ProgressEvent(phase, done, total, elapsed, sequence, attempt))
    return sent


def any_event() -> st.SearchStrategy[ProgressEvent]:
    """Return a strategy of single events, including those that no correct function sends."""
    return st.builds(
        ProgressEvent,
        phase=st.sampled_from([*_PHASES, "unheard of", ""]),
        done=st.integers(-2, 2000) | st.integers(),
        total=st.none() | st.integers(-2, 2000) | st.integers(),
        elapsed_seconds=st.floats(0, 1000) | st.floats(),
        sequence=st.integers(-2, 200),
        attempt=st.integers(0, 4),
    )


def job_updates(plan: ProgressPlan) -> st.SearchStrategy[list[ProgressUpdate]]:
    """Return a strategy of all updates of one job that is shown by `plan`, to its end.

    The job reports its progress or not, succeeds or fails, and is watched from its submission or from later on; the
    clock may jump.

    Args:
        plan: The plan to test, with its own curve.

    Example:
        >>> from hypothesis import given
        >>> @given(updates=job_updates(MY_PLAN))
        ... def test_my_plan(updates):
        ...     check_updates(updates, MY_PLAN)
    """
    return _updates_of(plan)


@st.composite
def _updates_of(draw: st.DrawFn, plan: ProgressPlan) -> list[ProgressUpdate]:
    readings = draw(_job_readings())
    if draw(st.booleans()):
        simulated = SimulatedProgress(plan, None, started_at=readings[0])
        shown = [simulated.next(now) for now in readings]
        end: SimulatedProgress | ProgressBlender = simulated
    else:
        arriving = draw(events())
        blender = ProgressBlender(plan, started_at=draw(st.sampled_from([readings[0], None])))
        shown = []
        for now in readings:
            for event in arriving[: draw(st.integers(0, 2))]:
                blender.feed(event, now)
                arriving.remove(event)
            if not arriving:
                blender.no_more_events()
            shown.append(blender.update(now))
        end = blender
    if draw(st.booleans()):
        shown.append(end.saving(readings[-1]))
    return [
        *shown,
        end.finish(readings[-1]) if draw(st.booleans()) else end.fail(asyncio.CancelledError(), readings[-1]),
    ]


@st.composite
def _job_readings(draw: st.DrawFn) -> list[float]:
    """Draw the readings of a clock during a job: it goes on, and in some jobs it jumps."""
    jumps = draw(st.booleans())
    readings = [draw(clock_readings())]
    for step in draw(st.lists(st.floats(0, 60) | st.just(0.5), max_size=30)):
        jump = draw(clock_readings()) if jumps and draw(st.integers(0, 9)) == 9 else None
        readings.append(readings[-1] + step if jump is None else jump)
    return readings


def check_updates(updates: Sequence[ProgressUpdate], plan: ProgressPlan, *, ended: bool = True) -> None:
    """Check the rules of every progress bar; fail with an AssertionError that names the update.

    The bar never moves backward; it is at 100 only when the job is complete, and above the plan's limit only then or
    while the result is saved; only the last update is final; each number is finite and fits in JSON.

    Args:
        updates: All updates of one listener, from its first one.
        plan: Their plan.
        ended: Whether the last update must be the end of the job.

    Raises:
        AssertionError: A rule is broken.
    """
    for update in updates:
        _check_update(update, plan)
    for before, after in pairwise(updates):
        assert after.progress >= before.progress, f"the bar goes back: {before} {after}"
        assert after.sequence > before.sequence, f"the sequence does not increase: {before} {after}"
        assert after.elapsed_seconds >= before.elapsed_seconds, f"the time goes back: {before} {after}"
        assert (before.source, after.source) != ("measured", "simulated"), f"measured before: {after}"
    final = [update.ended for update in updates]
    assert final == [False] * (len(updates) - 1) + [ended], f"the final updates are at {final}"


def _check_update(update: ProgressUpdate, plan: ProgressPlan) -> None:
    complete = update.status == "complete"
    assert 0 <= update.progress <= 100, f"not a percentage: {update}"
    assert (update.progress == 100) == complete, f"100 % and complete differ: {update}"
    if update.status == "processing" and update.phase != plan.saving.name:
        assert update.progress <= plan.limit, f"above the plan's limit of {plan.limit} %: {update}"
    if not update.ended:
        assert update.eta_seconds != 0, f"no time is left before the end: {update}"
    numbers = [update.elapsed_seconds, update.eta_seconds or 0.0]
    if update.work is not None and update.work.units_per_second is not None:
        numbers.append(update.work.units_per_second)
    assert all(0 <= number < math.inf for number in numbers), f"a number is negative or not finite: {update}"
    sent = json.loads(json.dumps(update.to_dict(), allow_nan=False))
    assert (type(sent["progress"]), type(sent["sequence"])) == (int, int), f"not whole numbers: {sent}"
    assert (sent["progress"] == 100) == complete, f"100 % and complete differ: {sent}"
    assert sent["progress"] <= sent["progress_exact"] <= update.progress + 1e-9, f"rounded up: {sent}"
    assert (sent["message"], sent["status"]) == (update.message, update.status), f"not what was sent: {sent}"
