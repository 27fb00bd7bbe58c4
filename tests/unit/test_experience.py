"""What a host learns of its jobs without being asked: once each, only what it has seen, and never in their way."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from tests.jobs import overlay, rendered

from reel_modal import FunctionRegistry, Job, RemoteFunction, RenderResult, Settings, experience
from reel_modal.backends.base import Finished
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import BlockingCallError, RemoteError
from reel_modal.progress import ManualClock, ProgressEvent, ProgressUpdate
from reel_modal.progress.timing_history import TimingHistory, TimingSummary
from reel_modal.progress.timings import JobTiming
from reel_modal.testing import InMemoryBackend, Script


@pytest.fixture
def history(tmp_path: Path) -> TimingHistory:
    return TimingHistory(tmp_path / "timings")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def host(history: TimingHistory, clock: ManualClock, **script: object) -> FunctionRegistry:
    """A registry whose jobs take 3 s to begin, and 0.4 s by their own count."""
    backend = InMemoryBackend(clock)
    values: dict[str, object] = {"result": rendered, "queue_seconds": 3.0, "seconds": 0.4}
    backend.script("render_overlay", Script(**values | script))  # type: ignore[arg-type]
    return FunctionRegistry(Settings(), backend=backend, history=history, clock=clock)


async def submit(registry: FunctionRegistry) -> Job[RenderResult]:
    return await registry["render_overlay"].submit(overlay())


async def run_on(clock: ManualClock, *waiting: asyncio.Future[object], seconds: float = 5.0) -> None:
    """Let the time pass until all of them are done; threads take their own."""
    await clock.advance(seconds)
    async with asyncio.timeout(30):
        while not all(one.done() for one in waiting):
            await clock.advance(0.0)
            await asyncio.sleep(0.005)


def known(history: TimingHistory) -> TimingSummary:
    (summary,) = history.summary()
    return summary


async def await_result(job: Job[RenderResult]) -> RenderResult:
    return await job.result()


async def listen(job: Job[Any]) -> list[ProgressUpdate]:
    return [update async for update in job.progress()]


@pytest.mark.parametrize("waits", [(await_result,), (listen,), (listen, await_result, await_result)])
async def test_a_finished_job_is_remembered_once(
    history: TimingHistory,
    clock: ManualClock,
    waits: Sequence[Callable[[Job[RenderResult]], Coroutine[object, object, object]]],
) -> None:
    job = await submit(host(history, clock))
    await run_on(clock, *[asyncio.ensure_future(wait(job)) for wait in waits])
    summary = known(history)
    assert (summary.function, summary.gpu, summary.jobs, summary.sizes) == (
        "render_overlay",
        "local",
        1,
        ((320, 180),),
    )
    assert summary.cold_startup is not None
    assert summary.cold_startup.seconds == pytest.approx(3)
    assert summary.seconds_per_frame == pytest.approx(0.4 / 25)


async def test_the_next_job_is_planned_by_it(history: TimingHistory, clock: ManualClock) -> None:
    registry = host(history, clock)
    for _ in range(3):
        history.record(
            JobTiming(
                function="render_overlay",
                gpu="local",
                size=(320, 180),
                frames=25,
                startup_seconds=2.0,
                seconds_by_phase={"render": 8.0},
                cold=True,
            )
        )
    job = await submit(registry)
    async with aclosing(job.progress()) as updates:
        assert (await anext(updates)).eta_seconds == pytest.approx(10)
    async with aclosing(job.progress(plan=registry.history.plan("apply_upscale", gpu="T4", cold=True))) as updates:
        eta = (await anext(updates)).eta_seconds
        assert eta is not None
        assert eta > 100


async def test_without_history_the_published_figures_are_the_plan(history: TimingHistory, clock: ManualClock) -> None:
    async with aclosing((await submit(host(history, clock))).progress()) as updates:
        first = await anext(updates)
    # 1 s for a worker process, and an overlay as long as the published ones.
    assert first.eta_seconds == pytest.approx(1 + 2700 * 2.0736 * 0.0205)
    assert not history.path or not history.path.exists()


async def test_nobody_knows_how_long_a_job_took_that_nobody_watched(
    history: TimingHistory, clock: ManualClock
) -> None:
    registry = host(history, clock)
    late = await submit(registry)
    await clock.advance(60)
    await late.result()
    attached = registry.attach(late.id)
    await attached.result()
    assert history.summary() == []


async def test_whoever_sees_the_end_of_a_job_knows_how_long_it_took(
    history: TimingHistory, clock: ManualClock
) -> None:
    job = await submit(host(history, clock, seconds=30.4))
    await clock.advance(9)
    waiting = asyncio.ensure_future(job.result())
    await run_on(clock, waiting, seconds=40)
    summary = known(history)
    assert summary.cold_startup is not None
    assert summary.cold_startup.seconds == pytest.approx(33)  # all but the 0.4 s that its phases took


async def test_the_wait_for_a_turn_is_no_start(
    history: TimingHistory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = InMemoryBackend.wait

    async def wait(self: InMemoryBackend, call_id: str, timeout_seconds: float) -> Finished | None:
        end = await once(self, call_id, timeout_seconds)
        return end and Finished(end.value, queued_seconds=2.5)

    monkeypatch.setattr(InMemoryBackend, "wait", wait)
    job = await submit(host(history, clock))
    await run_on(clock, asyncio.ensure_future(job.result()))
    summary = known(history)
    assert summary.cold_startup is not None
    assert summary.cold_startup.seconds == pytest.approx(0.5)


async def test_a_job_that_is_awaited_at_once_may_have_ended(history: TimingHistory, clock: ManualClock) -> None:
    job = await submit(host(history, clock, queue_seconds=0.5))
    await clock.advance(0.95)
    await job.result()
    assert known(history).jobs == 1


@pytest.mark.parametrize("error", [ValueError("boom"), None], ids=["fails", "is cancelled"])
async def test_what_did_not_finish_teaches_nothing(
    history: TimingHistory, clock: ManualClock, error: Exception | None
) -> None:
    job = await submit(host(history, clock, error=error))
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(1.0)
    if error is None:
        await job.cancel()
    await run_on(clock, waiting)
    assert isinstance(waiting.exception(), RemoteError)
    assert history.summary() == []


@pytest.mark.parametrize(
    "nonsense", [{"frames": 0}, {"seconds_by_phase": {"render": -3.0}}, {"seconds_by_phase": {}}]
)
async def test_a_result_without_sense_is_a_result_all_the_same(
    history: TimingHistory, clock: ManualClock, nonsense: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    job = await submit(host(history, clock, result=lambda request: {**rendered(request), **nonsense}))
    waiting = asyncio.ensure_future(job.result())
    await run_on(clock, waiting)
    assert waiting.result().job_id == "job"
    assert history.summary() == []
    assert "the timing of job job was not kept" in caplog.text


async def test_copied_frames_are_no_measure(history: TimingHistory, clock: ManualClock) -> None:
    for copied in (25, 15):
        value = {"plan": "smart", "reason": "", "frames_copied": copied}
        registry = host(history, clock, result=lambda request, value=value: {**rendered(request), **value})
        await run_on(clock, asyncio.ensure_future((await submit(registry)).result()))
    summary = known(history)
    assert (summary.jobs, summary.seconds_per_frame) == (1, pytest.approx(0.04))  # 0.4 s for the ten rendered ones


async def test_a_locked_file_keeps_nobody_waiting(
    history: TimingHistory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(experience, "_PATIENCE_SECONDS", 0.05)
    history.record(
        JobTiming(function="f", gpu="T4", size=(1, 1), frames=1, startup_seconds=0.0, seconds_by_phase={"a": 1.0})
    )
    assert history.path is not None
    with closing(sqlite3.connect(history.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        job = await submit(host(history, clock))
        waiting = asyncio.ensure_future(job.result())
        await run_on(clock, waiting)
        assert "did not answer within" in caplog.text
        other.execute("ROLLBACK")
    assert waiting.result().frames == 25


async def test_a_fault_of_the_history_is_no_fault_of_the_job(
    history: TimingHistory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TimingHistory, "record", broken)
    monkeypatch.setattr(TimingHistory, "plan", broken)
    job = await submit(host(history, clock))
    with caplog.at_level(logging.ERROR, "reel_modal"):
        waiting = asyncio.ensure_future(listen(job))
        await run_on(clock, waiting)
    assert waiting.result()[-1].status == "complete"
    assert caplog.text.count("could not be used") == 2


def test_who_learns_and_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FunctionRegistry(Settings()).history.path is None  # the tests' own "off"
    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(tmp_path / "a"))
    assert FunctionRegistry(Settings()).history.path == tmp_path / "a"
    assert FunctionRegistry(Settings(timings=str(tmp_path / "b"))).history.path == tmp_path / "b"
    assert FunctionRegistry(Settings(timings="off")).history.path is None


def test_the_backend_of_a_test_learns_nothing_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(tmp_path / "timings"))
    backend = InMemoryBackend()
    backend.script("render_overlay", Script(result=rendered))
    FunctionRegistry(Settings(), backend=backend)["render_overlay"].call(overlay())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("backend", "env", "gpu"),
    [
        (LocalBackend(Settings()), {}, "local"),
        (ModalBackend("app"), {}, "T4"),
        (ModalBackend("app"), {"REEL_MODAL_RENDER_OVERLAY_GPU": "L4,T4"}, "L4,T4"),
        (ModalBackend("app"), {"REEL_MODAL_RENDER_OVERLAY_GPU": "none"}, "cpu"),
    ],
)
async def test_each_place_has_timings_of_its_own(
    history: TimingHistory,
    backend: LocalBackend | ModalBackend,
    env: dict[str, str],
    gpu: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    registry = FunctionRegistry(Settings(), backend=backend, history=history)
    job = registry["render_overlay"].job("fc-call")
    assert job._experience is not None
    await job._experience.learn(RenderResult.parse(rendered(overlay().to_dict())), 3.0)
    assert known(history).gpu == gpu


async def test_the_container_says_whether_it_was_started_for_the_job(history: TimingHistory) -> None:
    learner = experience.Experience(history, "render_overlay", "T4")
    for seconds, cold in ((20.4, True), (1.4, False), (22.4, True)):
        value = {**rendered(overlay().to_dict()), "cold_start": cold}
        await learner.learn(RenderResult.parse(value), seconds)
    summary = known(history)
    assert summary.cold_startup is not None
    assert summary.warm_startup is not None
    assert summary.cold_startup.seconds == pytest.approx(21)
    assert summary.warm_startup.seconds == pytest.approx(1)


def test_a_blocking_host_watches_in_its_own_thread(history: TimingHistory) -> None:
    registry = FunctionRegistry(Settings(), backend=InMemoryBackend(), history=history)
    registry.backend.script(  # type: ignore[attr-defined]
        "render_overlay",
        Script(result=rendered, seconds=0.7, events=[ProgressEvent("render", 10, 25, 0.1, 1)]),
    )
    seen: list[ProgressUpdate] = []
    result = registry["render_overlay"].call_watched(seen.append, overlay())
    assert result.frames == 25
    assert [update.status for update in seen][-1] == "complete"
    assert {update.source for update in seen} == {"simulated", "measured"}


def test_an_error_of_the_callback_ends_the_job() -> None:
    backend = InMemoryBackend()
    backend.script("render_overlay", Script(result=rendered, seconds=3600))

    def refuse(update: ProgressUpdate) -> None:
        raise LookupError("the window is gone")

    with pytest.raises(LookupError, match="window"):
        FunctionRegistry(Settings(), backend=backend)["render_overlay"].call_watched(refuse, overlay())
    assert len(backend.cancelled) == 1


async def test_a_blocking_watch_in_a_loop_is_refused() -> None:
    registry = FunctionRegistry(Settings(), backend=InMemoryBackend())
    with pytest.raises(BlockingCallError):
        registry["render_overlay"].call_watched(print, overlay())


async def test_a_function_of_somebody_else_goes_by_the_plan(clock: ManualClock) -> None:
    backend = InMemoryBackend(clock)
    backend.script("thumbnail", Script(result=b"", seconds=20))
    remote: RemoteFunction[[str], bytes] = RemoteFunction("thumbnail", backend, reports=False, clock=clock)
    job = await remote.submit("url")
    watching = asyncio.ensure_future(listen(job))
    await run_on(clock, watching, seconds=25)
    seen = watching.result()
    assert [update.phase for update in seen if update.elapsed_seconds in {0, 2, 19}] == [
        "init",
        "startup",
        "processing",
    ]
    assert all("no news" not in update.message for update in seen)
    assert seen[-1].progress == 100
