"""Track one awaitable: progress until done, then saving, then complete, without a leftover task."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.progress.jumpy_clock import JumpyClock

from reel_modal.errors import ConfigError, JobStalledError, ReelModalError
from reel_modal.progress import (
    Curve,
    ManualClock,
    ProgressPlan,
    ProgressUpdate,
    Tracking,
    linear_with_cap,
    track,
    track_call,
)
from reel_modal.testing.strategies import check_updates, clock_readings, curves, plans

DEFAULT = ProgressPlan.default()
Outcome = Literal["returns", "raises", "is cancelled"]
outcomes = st.sampled_from(["returns", "raises", "is cancelled"])
ticks = st.integers(1, 8)


class BoomError(Exception):
    """Raised by the tracked work."""


class Work:
    """An awaitable that the test ends."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.cancelled = asyncio.Event()

    async def run(self) -> str:
        self.began.set()
        try:
            return await self.gate
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def end(self, outcome: Outcome) -> None:
        if outcome == "returns":
            self.gate.set_result("reel.mp4")
        elif outcome == "raises":
            self.gate.set_exception(BoomError("secret words of a log"))
        else:
            self.gate.cancel()


def nothing_else_runs() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


@given(
    plan=plans(),
    curve=curves(),
    readings=st.lists(clock_readings(), min_size=1, max_size=30),
    work_outcome=outcomes,
    work_ticks=ticks,
    saves=st.booleans(),
    save_outcome=outcomes,
    save_ticks=ticks,
)
def test_track_any_course_ends_with_one_terminal_update(
    plan: ProgressPlan,
    curve: Curve,
    readings: list[float],
    work_outcome: Outcome,
    work_ticks: int,
    saves: bool,
    save_outcome: Outcome,
    save_ticks: int,
) -> None:
    async def run() -> tuple[list[ProgressUpdate], BaseException | None, Tracking[str]]:
        work, saving, seen = Work(), Work(), list[ProgressUpdate]()
        tracking = track(
            work.run(),
            save=(lambda _: saving.run()) if saves else None,
            plan=plan,
            curve=curve,
            clock=JumpyClock(readings),
        )
        error: BaseException | None = None
        try:
            async for update in tracking:
                seen.append(update)
                if len(seen) == work_ticks:
                    work.end(work_outcome)
                elif len(seen) == work_ticks + save_ticks and saves:
                    saving.end(save_outcome)
        except (BoomError, asyncio.CancelledError) as caught:
            error = caught
        assert nothing_else_runs()
        with pytest.raises(StopAsyncIteration):
            await anext(tracking)
        return seen, error, tracking

    seen, error, tracking = asyncio.run(run())
    check_updates(seen, plan, ended=True)
    assert (seen[0].phase, seen[0].progress) == (plan.phases[0].name, plan.phases[0].start)
    last = save_outcome if work_outcome == "returns" and saves else work_outcome
    if last == "returns":
        assert (seen[-1].status, seen[-2].phase, tracking.result, error) == ("complete", "saving", "reel.mp4", None)
    else:
        assert seen[-1].status == "error"
        assert "secret" not in seen[-1].message
        assert isinstance(error, BoomError if last == "raises" else asyncio.CancelledError)
        with pytest.raises(ReelModalError, match="no result"):
            _ = tracking.result


@given(stop_at=st.integers(1, 6), work_ticks=ticks, how=st.sampled_from(["cancel", "break", "close"]))
def test_track_stopped_listener_cancels_the_work(stop_at: int, work_ticks: int, how: str) -> None:
    async def run() -> None:
        clock, work, saving = ManualClock(), Work(), Work()
        tracking = track(work.run(), save=lambda _: saving.run(), clock=clock)
        for seen in range(1, stop_at + 1):
            waiting = asyncio.ensure_future(anext(tracking))
            await clock.advance(0.5)
            await waiting
            if seen == work_ticks:
                work.end("returns")
                await run_loop()
        if how == "cancel":
            while waiting.done():
                waiting = asyncio.ensure_future(anext(tracking))
                await run_loop()
            waiting.cancel()
            await asyncio.wait({waiting})
        elif how == "close":
            await tracking.aclose()
        else:
            del tracking, waiting
            gc.collect()
            await run_loop()
        assert work.cancelled.is_set() == (stop_at < work_ticks)
        assert saving.cancelled.is_set() == saving.began.is_set()
        assert nothing_else_runs()

    asyncio.run(run())


async def run_loop(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def run_and_collect(
    *steps: tuple[float, Callable[[Work, Work], object]], save: bool = False, **options: object
) -> list[tuple[float, int, str]]:
    """Advance the clock and act; return (seconds, percent, phase) of all updates."""
    clock, work, saving, seen = ManualClock(), Work(), Work(), list[tuple[float, int, str]]()

    async def watch() -> None:
        keep: Callable[[str], Awaitable[object]] | None = (lambda _: saving.run()) if save else None
        async for update in track(work.run(), save=keep, clock=clock, **options):  # type: ignore[arg-type]
            seen.append((update.elapsed_seconds, update.percent, update.phase))

    watching = asyncio.ensure_future(watch())
    for seconds, act in steps:
        await clock.advance(seconds)
        act(work, saving)
    await asyncio.wait({watching}, timeout=10)
    watching.result()
    return seen


async def test_track_work_and_save_shows_all_phases() -> None:
    seen = await run_and_collect(
        (21.2, lambda work, _: work.end("returns")),
        (1.4, lambda _, saving: saving.end("returns")),
        curve=linear_with_cap,
        save=True,
    )
    assert seen[:2] == [(0, 5, "init"), (0.5, 7, "startup")]
    assert (5.0, 30, "processing") in seen
    assert (20.0, 60, "processing") in seen
    # The end is shown immediately, also between two ticks.
    assert seen[-5:] == [
        (21.0, 62, "processing"),
        (21.2, 95, "saving"),
        (21.7, 95, "saving"),
        (22.2, 95, "saving"),
        (pytest.approx(22.6), 100, "complete"),
    ]


async def test_track_without_save_shows_saving_once() -> None:
    seen = await run_and_collect((1.0, lambda work, _: work.end("returns")))
    assert [(percent, phase) for _, percent, phase in seen[-2:]] == [(95, "saving"), (100, "complete")]


async def test_track_completes_only_after_save() -> None:
    saved: list[str] = []

    async def save(value: str) -> None:
        await run_loop()
        saved.append(value)

    updates = track(asyncio.sleep(0, result="reel.mp4"), save=save)
    assert [(update.status, list(saved)) async for update in updates] == [
        ("processing", []),
        ("processing", []),
        ("complete", ["reel.mp4"]),
    ]


async def test_track_known_error_shows_its_user_message() -> None:
    async def stall() -> None:
        raise JobStalledError("queue 7 is silent", function="render_overlay")

    updates = track(stall())
    assert (await anext(updates)).status == "processing"
    failed = await anext(updates)
    assert (failed.status, failed.message) == ("error", "The renderer stopped responding. Please try again.")
    with pytest.raises(JobStalledError, match="queue 7"):
        await anext(updates)


async def test_track_closed_before_start_runs_nothing() -> None:
    work = Work()
    tracking = track(work.run())  # a coroutine: without an await, it would warn
    await tracking.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(tracking)
    assert not work.began.is_set()


async def test_track_starts_work_with_first_update() -> None:
    work = Work()
    tracking = track(work.run())
    await run_loop()
    assert not work.began.is_set()
    await anext(tracking)
    await run_loop()
    assert work.began.is_set()
    await tracking.aclose()
    assert work.cancelled.is_set()


async def test_track_result_before_completion_raises() -> None:
    tracking = track(asyncio.sleep(0, result=3))
    while True:
        with pytest.raises(ReelModalError, match="no result"):
            _ = tracking.result
        if (await anext(tracking)).ended:
            break
    assert tracking.result == 3


async def test_track_work_failing_on_cancel_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise BoomError

    tracking = track(stubborn())
    await anext(tracking)
    await run_loop()
    await tracking.aclose()
    del tracking
    gc.collect()
    assert caplog.records == []  # asyncio logs exceptions that are never retrieved


async def test_track_dropped_in_another_thread_cancels_the_work() -> None:
    asyncio.get_running_loop().set_debug(True)  # in debug mode the loop refuses calls from other threads
    work = Work()
    box = [track(work.run())]
    await anext(box[0])
    await work.began.wait()
    thread = threading.Thread(target=box.clear)
    thread.start()
    await asyncio.wait_for(work.cancelled.wait(), 30)
    thread.join(30)
    assert not thread.is_alive()


async def test_track_invalid_interval_is_refused() -> None:
    running = asyncio.ensure_future(asyncio.sleep(0))
    with pytest.raises(ConfigError, match="interval_seconds"):
        track(running, interval_seconds=0)
    await running


def test_track_call_shows_updates_in_calling_thread() -> None:
    seen, go = list[tuple[int, str]](), threading.Event()

    def show(update: ProgressUpdate) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append((update.percent, update.phase))
        if len(seen) == 4:
            go.set()

    def work() -> str:
        assert threading.current_thread() is not threading.main_thread()
        assert go.wait(60)
        return "reel.mp4"

    assert track_call(work, show, interval_seconds=0.01) == "reel.mp4"
    assert seen[0] == (5, "init")
    assert [phase for _, phase in seen[-2:]] == ["saving", "complete"]
    assert len(seen) >= 6


def test_track_call_shows_failure_before_raising() -> None:
    seen: list[str] = []

    def work() -> None:
        raise BoomError

    with pytest.raises(BoomError):
        track_call(work, lambda update: seen.append(update.status))
    assert seen == ["processing", "error"]


def test_track_call_callback_error_propagates_and_ends_thread(caplog: pytest.LogCaptureFixture) -> None:
    before, ended = threading.active_count(), threading.Event()

    def show(update: ProgressUpdate) -> None:
        raise BoomError

    with caplog.at_level(logging.WARNING), pytest.raises(BoomError):
        track_call(ended.set, show)
    assert ended.is_set()
    assert threading.active_count() == before
    assert caplog.records == []
