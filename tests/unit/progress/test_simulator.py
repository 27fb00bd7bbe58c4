"""The simulator follows the plan: one update at once, then two per second, only forward."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.progress.jumpy_clock import JumpyClock

from reel_modal.errors import ConfigError
from reel_modal.progress import (
    Curve,
    ManualClock,
    ProgressPlan,
    ProgressSimulator,
    ProgressUpdate,
    asymptotic,
    linear_with_cap,
)
from reel_modal.testing.strategies import check_updates, clock_readings, curves, plans


@given(plan=plans(), curve=curves(), readings=st.lists(clock_readings(), min_size=1, max_size=30))
def test_simulator_any_clock_never_goes_back(plan: ProgressPlan, curve: Curve, readings: list[float]) -> None:
    async def run() -> list[ProgressUpdate]:
        simulator = ProgressSimulator(plan, curve=curve, clock=JumpyClock(readings))
        return [await anext(simulator) for _ in readings]

    updates = asyncio.run(run())
    check_updates(updates, plan, ended=False)
    first = plan.phases[0]
    assert (updates[0].phase, updates[0].progress) == (first.name, first.start)
    assert {update.source for update in updates} == {"simulated"}


async def simulated_updates(seconds: float, **options: object) -> list[ProgressUpdate]:
    clock, seen = ManualClock(start=1000.0), list[ProgressUpdate]()

    async def watch() -> None:
        async for update in ProgressSimulator(clock=clock, **options):  # type: ignore[arg-type]
            seen.append(update)

    watching = asyncio.ensure_future(watch())
    await clock.advance(seconds)
    watching.cancel()
    await asyncio.wait({watching})
    return seen


async def test_simulator_linear_curve_equals_first_apps() -> None:
    seen = await simulated_updates(60, curve=linear_with_cap)
    assert len(seen) == 121  # at once, then every half second
    shown = {update.elapsed_seconds: (update.percent, update.phase) for update in seen}
    assert shown[0] == (5, "init")
    assert shown[0.5] == (7, "startup")
    assert shown[5] == (30, "processing")
    assert shown[20] == (60, "processing")
    assert shown[33.5] == shown[60] == (87, "processing")


async def test_simulator_default_curve_moves_long_after_expected_end() -> None:
    seen = await simulated_updates(600)
    exact = [update.progress for update in seen]
    assert all(later > earlier for earlier, later in pairwise(exact))
    assert 85 < exact[-1] < 90
    # The page's value changes at least every three seconds, up to ten times the planned duration.
    page = [update.to_dict()["progress_exact"] for update in seen if update.elapsed_seconds <= 350]
    assert all(later != earlier for earlier, later in zip(page, page[6:], strict=False))


async def test_simulator_eta_follows_the_plan_then_is_none() -> None:
    left = {update.elapsed_seconds: update.eta_seconds for update in await simulated_updates(36)}
    assert (left[0], left[5], left[34.5], left[35], left[36]) == (35, 30, 0.5, None, None)


async def test_simulator_interval_sets_update_rate() -> None:
    assert len(await simulated_updates(10, interval_seconds=2.0)) == 6


async def test_simulator_cancelled_wait_does_not_end_the_stream() -> None:
    clock = ManualClock()
    simulator = ProgressSimulator(clock=clock, curve=asymptotic)
    await anext(simulator)
    waiting = asyncio.ensure_future(anext(simulator))
    await clock.advance(0.2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    waiting = asyncio.ensure_future(anext(simulator))
    await clock.advance(0.5)
    assert (await waiting).sequence == 2


async def test_simulator_without_listener_runs_no_task() -> None:
    simulator = ProgressSimulator()
    async for _ in simulator:
        break
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("interval", [0, -1, math.nan, math.inf])
def test_simulator_invalid_interval_is_refused(interval: float) -> None:
    with pytest.raises(ConfigError, match="interval_seconds"):
        ProgressSimulator(interval_seconds=interval)


async def test_simulator_aclose_ends_the_stream() -> None:
    simulator = ProgressSimulator()
    async with aclosing(simulator):
        assert (await anext(simulator)).percent == 5
    assert [update async for update in simulator] == []
