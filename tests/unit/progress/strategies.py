"""Strategies for plans, curves, clocks and event sequences, and the invariants of every stream of updates."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from reel_modal.progress import (
    Curve,
    PlannedPhase,
    ProgressEvent,
    ProgressPlan,
    ProgressUpdate,
    WorkPhase,
    asymptotic,
    linear_with_cap,
)

PHASES = ("fetch", "render", "verify", "publish")

durations = st.floats(0, 1e4) | st.sampled_from([0.0, 5e-324, 1e-9, 0.5, 5.0, 30.0, 1e6])
spreads = st.floats(-1, 5) | st.just(math.inf)
percents = st.floats(0, 99.9) | st.integers(0, 99).map(float)
readings = st.floats(-1e6, 1e6) | st.integers(0, 100).map(float)
"""Readings of a clock that may jump in both directions."""

curves: st.SearchStrategy[Curve] = st.sampled_from(
    [
        asymptotic,
        linear_with_cap,
        lambda elapsed, _expected, _spread: 1 / (1 + elapsed),
    ]
) | st.builds(lambda share: lambda _elapsed, _expected, _spread: share, st.floats())
"""The library's curves, and invalid ones that a caller may write."""


@st.composite
def plans(draw: st.DrawFn) -> ProgressPlan:
    kind = draw(st.sampled_from(["default", "benchmarks", "weighted", "free"]))
    if kind == "default":
        return ProgressPlan.default()
    startup, work = draw(durations), draw(durations.filter(bool))
    if kind == "benchmarks":
        return ProgressPlan.from_benchmarks(startup_seconds=startup, processing_seconds=work)
    if kind == "weighted":
        rest = [WorkPhase(name, draw(durations)) for name in draw(st.permutations(PHASES))]
        return ProgressPlan.weighted(
            startup_seconds=startup,
            work=[WorkPhase("first", work), *rest],
            startup_spread=draw(spreads),
            work_spread=draw(spreads),
        )
    borders = sorted(draw(st.lists(percents, min_size=4, max_size=10)))
    borders = borders[: len(borders) // 2 * 2]
    rows = [
        PlannedPhase(f"row {index // 2}", borders[index], borders[index + 1], draw(durations), "...", draw(spreads))
        for index in range(0, len(borders) - 2, 2)
    ]
    last = PlannedPhase("last", rows[-1].start, rows[-1].end, work, "...", draw(spreads))
    return ProgressPlan(
        phases=(*rows[:-1], last),
        saving=PlannedPhase("saving", borders[-2], borders[-1], draw(durations), "..."),
        work=tuple(WorkPhase(name, draw(durations)) for name in draw(st.lists(st.sampled_from(PHASES), unique=True))),
    )


any_event = st.builds(
    ProgressEvent,
    phase=st.sampled_from([*PHASES, "unheard of", ""]),
    done=st.integers(-2, 2000) | st.integers(),
    total=st.none() | st.integers(-2, 2000) | st.integers(),
    elapsed_seconds=st.floats(0, 1000) | st.floats(),
    sequence=st.integers(-2, 200),
    attempt=st.integers(0, 4),
)
"""Including events that no correct function sends."""


@st.composite
def courses(draw: st.DrawFn) -> list[ProgressEvent]:
    """Draw the events of a job with one or several attempts, in the order sent."""
    events = []
    for attempt in range(1, draw(st.integers(1, 3)) + 1):
        elapsed, sequence = 0.0, 0
        for phase in PHASES[: draw(st.integers(1, 4))]:
            total = draw(st.none() | st.integers(0, 300))
            counts = sorted({0, total or 1, *draw(st.lists(st.integers(0, total or 1), max_size=4))})
            for done in counts:
                elapsed += draw(st.floats(0, 60))
                sequence += 1
                events.append(ProgressEvent(phase, done, total, elapsed, sequence, attempt))
    return events


@st.composite
def deliveries(draw: st.DrawFn) -> list[ProgressEvent]:
    """Draw the events as they arrive: some lost, duplicated, late or invalid."""
    delivered = [event for event in draw(courses()) for _ in range(draw(st.sampled_from([1, 1, 1, 0, 2])))]
    for _ in range(draw(st.integers(0, 4)) if delivered else 0):
        delivered.insert(
            draw(st.integers(0, len(delivered) - 1)), delivered.pop(draw(st.integers(0, len(delivered) - 1)))
        )
    for event in draw(st.lists(any_event, max_size=4)):
        delivered.insert(draw(st.integers(0, len(delivered))), event)
    return delivered


class JumpyClock:
    """A clock with given readings, one per call; its sleeps last one iteration of the event loop."""

    def __init__(self, readings: Sequence[float]) -> None:
        self._readings = list(readings)
        self._last = self._readings[0]

    def monotonic(self) -> float:
        if self._readings:
            self._last = self._readings.pop(0)
        return self._last

    async def sleep(self, seconds: float) -> None:
        del seconds
        await asyncio.sleep(0)


def check(updates: Sequence[ProgressUpdate], plan: ProgressPlan, *, ended: bool) -> None:
    """Assert the invariants of every stream, from its first update on."""
    assert updates[0].sequence == 1
    for before, after in pairwise(updates):
        assert after.progress >= before.progress
        assert after.sequence > before.sequence
        assert after.elapsed_seconds >= before.elapsed_seconds
        assert (before.source, after.source) != ("measured", "simulated")
    for update in updates:
        check_one(update, plan)
    assert [update.ended for update in updates] == [False] * (len(updates) - 1) + [ended]


def check_one(update: ProgressUpdate, plan: ProgressPlan) -> None:
    assert 0 <= update.progress <= 100
    assert (update.progress == 100) == (update.status == "complete")
    if update.status == "processing" and update.phase != "saving":
        assert update.progress <= plan.limit
    assert update.eta_seconds is None or (update.eta_seconds >= 0 and math.isfinite(update.eta_seconds))
    assert 0 <= update.elapsed_seconds < math.inf
    if update.work is not None and update.work.units_per_second is not None:
        assert 0 < update.work.units_per_second < math.inf
    payload = json.loads(json.dumps(update.to_dict(), allow_nan=False))
    assert type(payload["progress"]) is int
    assert type(payload["sequence"]) is int
    assert (payload["progress"] == 100) == (update.status == "complete")
    assert payload["progress"] <= payload["progress_exact"] <= update.progress + 1e-9
    assert payload["status"] in {"processing", "complete", "error"}
    assert payload["message"] == update.message
