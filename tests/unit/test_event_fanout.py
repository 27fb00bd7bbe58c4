"""Many listeners share one watcher: few requests, outages, several event loops, and cleanup."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import made_clip
from tests.jobs import overlay, rendered

from reel_modal import FunctionRegistry, Job, JobOptions, ProgressUpdate, RenderResult, Settings, run_sync
from reel_modal._support.clock import SYSTEM_CLOCK, Clock
from reel_modal.backends.base import CallResult
from reel_modal.errors import JobNotFoundError, UnavailableError
from reel_modal.progress import ManualClock, ProgressEvent
from reel_modal.testing import InMemoryBackend, Script


class Counting(InMemoryBackend):
    """Counts requests, and is unavailable while `down` is set."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock)
        self.waits = self.listens = self.listening = 0
        self.down: type[UnavailableError] | None = None
        self.cut = asyncio.Event()

    def _check(self) -> None:
        if self.down is not None:
            raise self.down("nobody answers", function="render_overlay")

    async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:
        self.waits += 1
        self._check()
        return await super().wait(call_id, timeout_seconds)

    async def event_count(self, call_id: str) -> int:
        self._check()
        return await super().event_count(call_id)

    async def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        self._check()
        self.listens += 1
        self.listening += 1
        try:
            async with aclosing(super().events(call_id)) as events:
                async for one in events:
                    self._check()
                    yield one
        finally:
            self.listening -= 1


def frames(*moments: float) -> list[ProgressEvent]:
    return [ProgressEvent("render", 10 * number, 1000, at, number + 1) for number, at in enumerate(moments)]


async def start(backend: InMemoryBackend, clock: Clock, **script: object) -> Job[RenderResult]:
    backend.script("render_overlay", Script(**{"result": rendered} | script))  # type: ignore[arg-type]
    options = JobOptions(unavailable_seconds=20)
    registry = FunctionRegistry(Settings(), backend=backend, clock=clock, options=options)
    return await registry["render_overlay"].submit(overlay())


async def listen(job: Job[RenderResult]) -> list[ProgressUpdate]:
    return [update async for update in job.progress()]


def nothing_else_runs() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_watch_300_listeners_send_one_listeners_requests() -> None:
    clock = ManualClock()
    backend = Counting(clock)
    job = await start(backend, clock, seconds=25.0, events=frames(1, 11, 21))
    listening = [asyncio.ensure_future(listen(job)) for _ in range(300)]
    await clock.advance(26)
    seen = await asyncio.gather(*listening)
    assert all(updates[-1].status == "complete" for updates in seen)
    assert {len(updates) for updates in seen} == {len(seen[0])}
    assert (backend.listens, backend.waits) == (1, 10)  # in slices of 2.5 s, an eighth of `unavailable_seconds`
    assert backend.listening == 0
    assert nothing_else_runs()


async def test_watch_long_outage_continues_when_events_return(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    backend = Counting(clock)
    job = await start(backend, clock, seconds=200.0, events=frames(1, 5, 9, 120, 130))
    seen: list[ProgressUpdate] = []

    async def watch() -> None:
        async for update in job.progress():
            seen.append(update)  # noqa: PERF401 - it is read meanwhile

    watching = asyncio.ensure_future(watch())
    await clock.advance(8)
    backend.down = UnavailableError
    with caplog.at_level(logging.WARNING, "reel_modal"):
        await clock.advance(92)  # far longer than `unavailable_seconds`
    assert "cannot be read at the moment" in caplog.text
    assert (seen[-1].status, seen[-1].source) == ("processing", "measured")
    assert "no update for" in seen[-1].message
    backend.down = None
    await clock.advance(31)
    assert seen[-1].work is not None
    assert seen[-1].work.done == 40
    assert "no update" not in seen[-1].message
    await clock.advance(70)
    await watching
    assert [update.ended for update in seen].count(True) == 1
    assert seen[-1].progress == 100


async def test_watch_unknown_job_ends_with_an_error() -> None:
    clock = ManualClock()
    backend = Counting(clock)
    job = await start(backend, clock, seconds=200.0)
    backend.down = JobNotFoundError
    seen = await listen(job)
    assert seen[-1].status == "error"
    assert [update.ended for update in seen].count(True) == 1
    assert backend.listening == 0


async def test_watch_dropped_listener_leaves_no_task() -> None:
    clock = ManualClock()
    backend = Counting(clock)
    job = await start(backend, clock, seconds=200.0, events=frames(1, 2, 3))

    async def glance() -> None:
        async for _ in job.progress():
            break  # without closing the generator

    await glance()
    gc.collect()
    for _ in range(20):
        await asyncio.sleep(0)
    assert backend.listening == 0
    await backend.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert nothing_else_runs()


def test_watch_listeners_in_several_event_loops_get_the_end(tmp_path: Path) -> None:
    made_clip(tmp_path / "in.mp4", seconds=1)
    registry = FunctionRegistry(Settings(store_url=tmp_path.as_uri()))
    job = run_sync(registry["render_overlay"].submit(overlay()))
    seen: list[list[ProgressUpdate]] = []
    threads = [threading.Thread(target=lambda: seen.append(asyncio.run(listen(job)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [updates[-1].progress for updates in seen] == [100] * 4


# Python warns about a generator whose event loop is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_watch_closed_event_loop_is_forgotten() -> None:
    backend = Counting()
    job = await start(backend, SYSTEM_CLOCK, seconds=0.2)
    other = asyncio.new_event_loop()
    updates = job.progress()

    def step() -> ProgressUpdate:
        return other.run_until_complete(anext(updates))

    assert (await asyncio.to_thread(step)).sequence == 1
    other.close()  # without ending its listeners
    assert (await listen(job))[-1].status == "complete"
    assert list(job._watch._watches) == []


@given(leave=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=4), data=st.data())
def test_watch_listeners_may_join_and_leave_at_any_time(leave: list[tuple[int, int]], data: st.DataObject) -> None:
    async def run() -> None:
        clock = ManualClock()
        backend = Counting(clock)
        job = await start(backend, clock, queue_seconds=2.0, seconds=8.0, events=frames(0, 2, 4, 6))
        going = {}
        for tick in range(24):
            if data.draw(st.booleans()) and len(going) < 4:
                going[len(going)] = asyncio.ensure_future(listen(job))
            for number, when in leave:
                if when == tick and number in going:
                    going[number].cancel()
            await clock.advance(0.5)
        await asyncio.wait(going.values()) if going else None
        for task in going.values():
            if not task.cancelled():
                seen = task.result()
                assert seen[-1].status == "complete"
                assert [update.ended for update in seen].count(True) == 1
        assert backend.listening == 0
        assert nothing_else_runs()

    asyncio.run(run())
