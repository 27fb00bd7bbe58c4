"""Many listeners, one look at the backend: asked once, through outages, in several loops, and let go of at the end."""

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
from tests.jobs import overlay, rendered

from reel_modal import FunctionRegistry, Job, JobOptions, ProgressUpdate, RenderResult, Settings, run_sync
from reel_modal.backends.base import Finished
from reel_modal.errors import JobNotFoundError, UnavailableError
from reel_modal.progress import ManualClock, ProgressEvent
from reel_modal.progress.clocks import SYSTEM_CLOCK, Clock
from reel_modal.testing import InMemoryBackend, Script, make_clip


class Counting(InMemoryBackend):
    """Counts what it is asked, and is down when a test says so."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(clock)
        self.waits = self.listens = self.listening = 0
        self.down: type[UnavailableError] | None = None
        self.cut = asyncio.Event()

    def _check(self) -> None:
        if self.down is not None:
            raise self.down("nobody answers", function="render_overlay")

    async def wait(self, call_id: str, timeout_seconds: float) -> Finished | None:
        self.waits += 1
        self._check()
        return await super().wait(call_id, timeout_seconds)

    async def events_so_far(self, call_id: str) -> int:
        self._check()
        return await super().events_so_far(call_id)

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


async def test_hundreds_of_listeners_ask_as_much_as_one() -> None:
    clock = ManualClock()
    backend = Counting(clock)
    job = await start(backend, clock, seconds=25.0, events=frames(1, 11, 21))
    listening = [asyncio.ensure_future(listen(job)) for _ in range(300)]
    await clock.advance(26)
    seen = await asyncio.gather(*listening)
    assert all(updates[-1].status == "complete" for updates in seen)
    assert {len(updates) for updates in seen} == {len(seen[0])}
    assert (backend.listens, backend.waits) == (1, 10)  # in slices of 2.5 seconds, an eighth of the silence allowed
    assert backend.listening == 0
    assert nothing_else_runs()


async def test_an_outage_is_no_end_and_the_news_come_back(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    backend = Counting(clock)
    job = await start(backend, clock, seconds=200.0, events=frames(1, 5, 9, 120, 130))
    seen: list[ProgressUpdate] = []

    async def watch() -> None:
        async for update in job.progress():
            seen.append(update)  # noqa: PERF401 - it is looked at meanwhile

    watching = asyncio.ensure_future(watch())
    await clock.advance(8)
    backend.down = UnavailableError
    with caplog.at_level(logging.WARNING, "reel_modal"):
        await clock.advance(92)  # far longer than a waiter of the result would bear it
    assert "cannot be read for now" in caplog.text
    assert (seen[-1].status, seen[-1].source) == ("processing", "measured")
    assert "no news for" in seen[-1].message
    backend.down = None
    await clock.advance(31)
    assert seen[-1].work is not None
    assert seen[-1].work.done == 40
    assert "no news" not in seen[-1].message
    await clock.advance(70)
    await watching
    assert [update.ended for update in seen].count(True) == 1
    assert seen[-1].progress == 100


async def test_a_job_that_nobody_will_ever_know_ends() -> None:
    clock = ManualClock()
    backend = Counting(clock)
    job = await start(backend, clock, seconds=200.0)
    backend.down = JobNotFoundError
    seen = await listen(job)
    assert seen[-1].status == "error"
    assert [update.ended for update in seen].count(True) == 1
    assert backend.listening == 0


async def test_whoever_drops_a_listener_in_the_middle_leaves_nothing() -> None:
    clock = ManualClock()
    backend = Counting(clock)
    job = await start(backend, clock, seconds=200.0, events=frames(1, 2, 3))

    async def glance() -> None:
        async for _ in job.progress():
            break  # and the generator is never closed

    await glance()
    gc.collect()
    for _ in range(20):
        await asyncio.sleep(0)
    assert backend.listening == 0
    await backend.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert nothing_else_runs()


def test_listeners_of_several_event_loops_each_get_the_end(tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", seconds=1)
    registry = FunctionRegistry(Settings(store_url=tmp_path.as_uri()))
    job = run_sync(registry["render_overlay"].submit(overlay()))
    seen: list[list[ProgressUpdate]] = []
    threads = [threading.Thread(target=lambda: seen.append(asyncio.run(listen(job)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [updates[-1].progress for updates in seen] == [100] * 4


# Python itself complains of a generator in a loop that is no more.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_loop_that_was_closed_with_its_listeners_is_forgotten() -> None:
    backend = Counting()
    job = await start(backend, SYSTEM_CLOCK, seconds=0.2)
    other = asyncio.new_event_loop()
    updates = job.progress()

    def step() -> ProgressUpdate:
        return other.run_until_complete(anext(updates))

    assert (await asyncio.to_thread(step)).sequence == 1
    other.close()  # without a word to those who listen in it
    assert (await listen(job))[-1].status == "complete"
    assert list(job._watch._watches) == []


@given(leave=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), max_size=4), data=st.data())
def test_listeners_may_come_and_go_at_any_moment(leave: list[tuple[int, int]], data: st.DataObject) -> None:
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
