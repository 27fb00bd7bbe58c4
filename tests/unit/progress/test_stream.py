"""Any number of listeners on one job: each sees the true progress and an end, and no task is left running."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.progress.events import Events
from tests.unit.progress.jumpy_clock import JumpyClock

from reel_modal.errors import ConfigError, JobCancelledError, WorkerCrashedError
from reel_modal.progress import ManualClock, ProgressEvent, ProgressPlan, ProgressUpdate, WorkPhase, progress_of
from reel_modal.testing.strategies import check_updates, clock_readings, events, plans

PLAN = ProgressPlan.weighted(startup_seconds=5, work=[WorkPhase("fetch", 2), WorkPhase("render", 30)])


def end_of(job: asyncio.Future[str], outcome: str) -> None:
    if outcome == "succeeds":
        job.set_result("reel.mp4")
    elif outcome == "fails":
        job.set_exception(ValueError("secret words of a log"))
        job.exception()  # retrieve the exception, as the owner of the job does
    else:
        job.cancel()


def new_job() -> asyncio.Future[str]:
    return asyncio.get_running_loop().create_future()


def nothing_else_runs() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


@given(
    plan=plans(),
    started_at=st.none() | clock_readings(),
    readings=st.lists(clock_readings(), min_size=1, max_size=30),
    events=events(),
    lost=st.none() | st.booleans(),
    outcome=st.sampled_from(["succeeds", "fails", "is cancelled"]),
    end_after=st.integers(0, 12),
)
def test_listener_any_course_gets_one_terminal_update(
    plan: ProgressPlan,
    started_at: float | None,
    readings: list[float],
    events: list[ProgressEvent],
    lost: bool | None,
    outcome: str,
    end_after: int,
) -> None:
    async def listen(source: Events, job: asyncio.Future[str]) -> list[ProgressUpdate]:
        listener = progress_of(source, job, started_at=started_at, plan=plan, clock=JumpyClock(readings))
        seen = []
        async for update in listener:
            seen.append(update)
            if len(seen) == end_after and not job.done():
                end_of(job, outcome)
            elif events:
                source.send(events.pop())
            elif lost is not None:  # the events end, or the connection breaks
                source.send(ConnectionError("gone") if lost else None)
        with pytest.raises(StopAsyncIteration):
            await anext(listener)
        return seen

    async def run() -> list[list[ProgressUpdate]]:
        source, job = Events(events[: len(events) // 2]), new_job()
        if end_after == 0:
            end_of(job, outcome)
        both = await asyncio.gather(listen(source, job), listen(source, job))
        assert source.listening == 0
        assert nothing_else_runs()
        return both

    for seen in asyncio.run(run()):
        check_updates(seen, plan, ended=True)
        assert seen[-1].status == ("complete" if outcome == "succeeds" else "error")
        assert "secret" not in seen[-1].message
        if outcome == "is cancelled":
            assert seen[-1].message == JobCancelledError.user_message


class Watch:
    """A listener in a task, with the updates received so far."""

    def __init__(self, source: Events, job: asyncio.Future[str], clock: ManualClock, **options: float | None) -> None:
        self.seen: list[ProgressUpdate] = []
        started_at = options.pop("started_at", 0.0)
        self.listener = progress_of(
            source, job, started_at=started_at, plan=PLAN, clock=clock, **{k: v for k, v in options.items() if v}
        )
        self.task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        async for update in self.listener:
            self.seen.append(update)


def render(done: int, elapsed: float, sequence: int) -> ProgressEvent:
    return ProgressEvent("render", done, 900, elapsed, sequence)


async def test_listener_sees_simulated_then_measured_then_complete() -> None:
    clock, source, job = ManualClock(), Events(), new_job()
    watch = Watch(source, job, clock)
    await clock.advance(6)
    assert [update.sequence for update in watch.seen] == list(range(1, 14))
    assert {update.source for update in watch.seen} == {"simulated"}
    source.send(render(0, 0.0, 1))
    await clock.advance(10)
    source.send(render(300, 10.0, 2))
    await clock.advance(0.5)
    assert watch.seen[-1].source == "measured"
    assert watch.seen[-1].work is not None
    assert watch.seen[-1].work.done == 300
    await clock.advance(0.2)
    job.set_result("reel.mp4")
    await watch.task
    assert (watch.seen[-1].progress, watch.seen[-1].elapsed_seconds) == (100, pytest.approx(16.7))
    assert nothing_else_runs()


async def test_late_listener_starts_where_the_others_are() -> None:
    clock, source, job = ManualClock(), Events(), new_job()
    first = Watch(source, job, clock)
    await clock.advance(5)
    source.send(render(0, 0.0, 1))
    await clock.advance(10)
    source.send(render(300, 10.0, 2))
    await clock.advance(1)
    late = Watch(source, job, clock)
    ignorant = Watch(source, job, clock, started_at=None)
    await clock.advance(0.6)
    expected = first.seen[-1].progress
    assert expected > 30
    assert late.seen[0].progress == pytest.approx(expected, abs=3)
    assert ignorant.seen[0].progress == pytest.approx(expected, abs=5)  # the moment of delivery is unknown
    assert {late.seen[0].source, ignorant.seen[0].source} == {"measured"}
    job.cancel()
    await asyncio.gather(first.task, late.task, ignorant.task)


async def test_listener_without_start_time_waits_briefly_for_an_event() -> None:
    clock, source, job = ManualClock(), Events(), new_job()
    watch = Watch(source, job, clock, started_at=None)
    await clock.advance(0.3)
    assert watch.seen == []
    source.send(render(300, 10.0, 2))
    await clock.advance(0.2)
    assert [update.source for update in watch.seen] == ["measured"]
    job.cancel()
    await watch.task


async def test_listeners_do_not_wait_for_one_another() -> None:
    clock, source, job = ManualClock(), Events(), new_job()
    quick, slow = (Watch(source, job, clock, interval_seconds=seconds) for seconds in (0.5, 5.0))
    await clock.advance(20)
    assert (len(quick.seen), len(slow.seen)) == (41, 5)
    quick.task.cancel()
    await asyncio.wait({quick.task})
    assert source.listening == 1
    assert not job.done()
    job.set_result("reel.mp4")
    await slow.task
    assert slow.seen[-1].progress == 100


async def test_listener_lost_events_connection_continues_simulated(caplog: pytest.LogCaptureFixture) -> None:
    clock, source, job = ManualClock(), Events(), new_job()
    watch = Watch(source, job, clock)
    await clock.advance(5)
    source.send(render(100, 3.0, 1))
    source.send(ConnectionResetError("the queue is gone"))
    with caplog.at_level(logging.ERROR, "reel_modal"):
        await clock.advance(40)
    assert "the events of a job cannot be read" in caplog.text
    assert watch.seen[-1].status == "processing"
    assert "(no update for 40 s)" in watch.seen[-1].message
    job.set_result("reel.mp4")
    await watch.task
    assert watch.seen[-1].status == "complete"


async def test_listener_failed_job_shows_user_message_without_raising() -> None:
    job = new_job()
    job.set_exception(WorkerCrashedError("signal 9", function="render_overlay"))
    seen = [update async for update in progress_of(Events(), job, started_at=None, clock=ManualClock())]
    assert [(update.status, update.message) for update in seen] == [("error", WorkerCrashedError.user_message)]
    assert isinstance(job.exception(), WorkerCrashedError)


@pytest.mark.parametrize("how", ["break", "close", "cancel"])
async def test_listener_leaving_stops_only_itself(how: str) -> None:
    clock, source, job = ManualClock(), Events(), new_job()
    listener = progress_of(source, job, started_at=0.0, clock=clock)
    await anext(listener)
    waiting = asyncio.ensure_future(anext(listener))
    await clock.advance(0.5)
    assert (await waiting).sequence == 2
    assert source.listening == 1
    if how == "cancel":
        waiting = asyncio.ensure_future(anext(listener))
        await clock.advance(0.1)
        waiting.cancel()
        await asyncio.wait({waiting})
    elif how == "close":
        await listener.aclose()
    del listener, waiting
    gc.collect()
    await source.deserted.wait()
    assert not job.done()
    assert nothing_else_runs()


async def test_listener_invalid_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="interval_seconds"):
        progress_of(Events(), new_job(), started_at=0.0, interval_seconds=-1)
