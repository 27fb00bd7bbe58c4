"""The manual clock, on which the other progress tests depend, and the system clock."""

from __future__ import annotations

import asyncio
import time

import pytest

from reel_modal.progress import ManualClock, SystemClock


async def test_manual_clock_advance_wakes_sleepers_in_order() -> None:
    clock, woken = ManualClock(10.0), list[tuple[str, float]]()

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("c", 3.0), ("a", 1.0), ("b", 1.0), ("at once", 0.0)):
            group.create_task(sleeper(name, seconds))
        await clock.advance(2.0)
        assert woken == [("at once", 10.0), ("a", 11.0), ("b", 11.0)]
        await clock.advance(1.0)
    assert woken[-1] == ("c", 13.0)
    assert clock.monotonic() == 13.0


async def test_manual_clock_cancelled_sleeper_is_skipped() -> None:
    clock = ManualClock()
    sleeping = asyncio.ensure_future(clock.sleep(1.0))
    await clock.advance(0.5)
    sleeping.cancel()
    await asyncio.wait({sleeping})
    await clock.advance(5.0)
    assert sleeping.cancelled()


async def test_manual_clock_jump_wakes_no_sleeper() -> None:
    clock = ManualClock(5.0)

    async def sleep() -> float:
        await clock.sleep(1.0)
        return clock.monotonic()

    sleeping = asyncio.ensure_future(sleep())
    await clock.advance(0.0)
    clock.jump(-3.0)
    assert clock.monotonic() == 2.0
    clock.jump(100.0)
    await asyncio.sleep(0)
    assert not sleeping.done()
    await clock.advance(0.0)
    assert await sleeping == clock.monotonic() == 102.0


async def test_system_clock_sleep_takes_real_time() -> None:
    clock = SystemClock()
    before = time.monotonic()
    await clock.sleep(0.01)
    # Event loops round a sleep by the resolution of their clock.
    assert clock.monotonic() - before == pytest.approx(0.01, abs=0.009) or clock.monotonic() - before > 0.01
