"""`ProgressPlan.seed()` is the progress bar of the first apps on Modal, sample by sample."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reel_modal.progress import ManualClock, ProgressPlan, ProgressSimulator, ProgressUpdate, track


def seed_sample(elapsed: float) -> tuple[int, str]:
    """Return what those apps sent `elapsed` seconds after the call; their code, with their constants."""
    if elapsed < 5.0:
        return 5 + int((elapsed / 5.0) * 25), "Starting cloud GPU..."
    fraction = min((elapsed - 5.0) / 30.0, 0.95)
    return min(30 + int(fraction * 60), 90), "Processing video on GPU..."


async def shown_until(seconds: float) -> list[ProgressUpdate]:
    """Return the updates of a job that ends after `seconds`, and is saved in 0.7 s."""
    clock, seen = ManualClock(), list[ProgressUpdate]()
    done, saved = asyncio.Event(), asyncio.Event()

    async def watch() -> None:
        async for update in track(done.wait(), save=lambda _: saved.wait(), plan=ProgressPlan.seed(), clock=clock):
            seen.append(update)

    watching = asyncio.ensure_future(watch())
    await clock.advance(seconds)
    done.set()
    await clock.advance(0.7)
    saved.set()
    await clock.advance(0.5)
    await asyncio.wait_for(watching, 10)
    return seen


@pytest.mark.parametrize("seconds", [0.2, 4.9, 20.2, 33.2, 90.2])
async def test_seed_plan_equals_first_apps_in_each_sample(seconds: float) -> None:
    first, *rest = await shown_until(seconds)
    assert (first.to_dict()["progress"], first.message) == (5, "Sending to cloud GPU...")
    working = [update for update in rest if update.phase in {"startup", "processing"}]
    assert [update.elapsed_seconds for update in working] == [0.5 * tick for tick in range(1, int(2 * seconds) + 1)]
    for update in working:
        assert (update.progress, update.message) == seed_sample(update.elapsed_seconds)
        assert (update.percent, update.status) == (update.progress, "processing")
    *saving, complete = rest[len(working) :]
    assert {(update.percent, update.message, update.status) for update in saving} == {
        (95, "Saving to library...", "processing")
    }
    assert (complete.percent, complete.message, complete.status) == (100, "Export complete!", "complete")


@given(seconds=st.floats(0, 1e6) | st.integers(0, 40_000).map(lambda milliseconds: milliseconds / 1000))
def test_seed_plan_equals_first_apps_at_any_time(seconds: float) -> None:
    row, percent = ProgressPlan.seed().at(seconds)
    assert (percent, row.message) == seed_sample(seconds)


def test_seed_plan_rounds_down_before_it_adds() -> None:
    # 1.4 / 5 * 25 is slightly below 7, and 5 more is 12.
    assert ProgressPlan.seed().at(1.4)[1] == seed_sample(1.4)[0] == 11


async def test_seed_plan_in_simulator_needs_no_curve() -> None:
    clock = ManualClock()
    simulator = ProgressSimulator(ProgressPlan.seed(), clock=clock)
    assert (await anext(simulator)).progress == 5
    following = asyncio.ensure_future(anext(simulator))
    await clock.advance(400)
    assert (await following).progress == seed_sample(0.5)[0]
    following = asyncio.ensure_future(anext(simulator))
    await clock.advance(0.5)
    assert (await following).progress == seed_sample(400.5)[0] == 87
