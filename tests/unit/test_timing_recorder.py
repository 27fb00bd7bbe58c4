"""Timings recorded from finished jobs: once per job, only if the host saw the whole run, without delaying it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.clips import Clips
from tests.jobs import overlay, rendered

from reel_modal import FunctionRegistry, Job, RemoteFunction, RenderResult, Settings, probe
from reel_modal._jobs import timing_recorder
from reel_modal._jobs.estimates import estimate
from reel_modal._jobs.submission import CallAdapter
from reel_modal._jobs.timing_recorder import TimingRecorder, measured_model
from reel_modal._progress.timing_model import JobTiming
from reel_modal.backends.base import CallResult
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import BlockingCallError, RemoteError
from reel_modal.functions.builtin import apply_upscale, render_overlay
from reel_modal.progress import ManualClock, ProgressEvent, ProgressUpdate, TimingHistory, TimingSummary
from reel_modal.schema.results import Usage
from reel_modal.testing import InMemoryBackend, Script


@pytest.fixture
def history(tmp_path: Path) -> TimingHistory:
    return TimingHistory(tmp_path / "timings")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def host(history: TimingHistory, clock: ManualClock, **script: object) -> FunctionRegistry:
    """Return a registry whose jobs start after 3 s and run for 0.4 s."""
    backend = InMemoryBackend(clock)
    values: dict[str, object] = {"result": rendered, "queue_seconds": 3.0, "seconds": 0.4}
    backend.script("render_overlay", Script(**values | script))  # type: ignore[arg-type]
    return FunctionRegistry(Settings(), backend=backend, history=history, clock=clock)


async def submit(registry: FunctionRegistry) -> Job[RenderResult]:
    return await registry["render_overlay"].submit(overlay())


async def advance_until_done(clock: ManualClock, *waiting: asyncio.Future[object], seconds: float = 5.0) -> None:
    """Advance the clock until all futures are done; threads need real time."""
    await clock.advance(seconds)
    async with asyncio.timeout(30):
        while not all(one.done() for one in waiting):
            await clock.advance(0.0)
            await asyncio.sleep(0.005)


def only_summary(history: TimingHistory) -> TimingSummary:
    (summary,) = history.summary()
    return summary


async def await_result(job: Job[RenderResult]) -> RenderResult:
    return await job.result()


async def listen(job: Job[Any]) -> list[ProgressUpdate]:
    return [update async for update in job.progress()]


@pytest.mark.parametrize("waits", [(await_result,), (listen,), (listen, await_result, await_result)])
async def test_recorder_finished_job_is_recorded_once(
    history: TimingHistory,
    clock: ManualClock,
    waits: Sequence[Callable[[Job[RenderResult]], Coroutine[object, object, object]]],
) -> None:
    job = await submit(host(history, clock))
    await advance_until_done(clock, *[asyncio.ensure_future(wait(job)) for wait in waits])
    summary = only_summary(history)
    assert (summary.function, summary.gpu, summary.jobs, summary.sizes) == (
        "render_overlay",
        "local",
        1,
        ((320, 180),),
    )
    assert summary.cold_startup is not None
    assert summary.cold_startup.seconds == pytest.approx(3)
    assert summary.seconds_per_frame == pytest.approx(0.4 / 25)


async def test_recorder_plans_the_next_job_from_history(history: TimingHistory, clock: ManualClock) -> None:
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
    upscale = registry.history.plan("apply_upscale", gpu="T4", cold=True, published=apply_upscale.published)
    async with aclosing(job.progress(plan=upscale)) as updates:
        eta = (await anext(updates)).eta_seconds
        assert eta is not None
        assert eta > 100


async def test_recorder_without_history_plans_by_published_figures(
    history: TimingHistory, clock: ManualClock
) -> None:
    async with aclosing((await submit(host(history, clock))).progress()) as updates:
        first = await anext(updates)
    # Half a second for a worker process, plus an overlay as long as the published ones.
    assert first.eta_seconds == pytest.approx(0.5 + 2700 * 2.0736 * 0.0205)
    assert not history.path or not history.path.exists()


async def test_recorder_unwatched_job_is_not_recorded(history: TimingHistory, clock: ManualClock) -> None:
    registry = host(history, clock)
    late = await submit(registry)
    await clock.advance(60)
    await late.result()
    attached = registry.attach(late.id)
    await attached.result()
    assert history.summary() == []


async def test_recorder_late_waiter_records_the_whole_time(history: TimingHistory, clock: ManualClock) -> None:
    job = await submit(host(history, clock, seconds=30.4))
    await clock.advance(9)
    waiting = asyncio.ensure_future(job.result())
    await advance_until_done(clock, waiting, seconds=40)
    summary = only_summary(history)
    assert summary.cold_startup is not None
    assert summary.cold_startup.seconds == pytest.approx(33)  # all but the 0.4 s of its phases


async def test_recorder_time_in_queue_is_not_startup(
    history: TimingHistory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = InMemoryBackend.wait

    async def wait(self: InMemoryBackend, call_id: str, timeout_seconds: float) -> CallResult | None:
        end = await once(self, call_id, timeout_seconds)
        return end and CallResult(end.value, queued_seconds=2.5)

    monkeypatch.setattr(InMemoryBackend, "wait", wait)
    job = await submit(host(history, clock))
    await advance_until_done(clock, asyncio.ensure_future(job.result()))
    summary = only_summary(history)
    assert summary.cold_startup is not None
    assert summary.cold_startup.seconds == pytest.approx(0.5)


async def test_recorder_job_ended_before_first_wait_is_recorded(history: TimingHistory, clock: ManualClock) -> None:
    job = await submit(host(history, clock, queue_seconds=0.5))
    await clock.advance(0.95)
    await job.result()
    assert only_summary(history).jobs == 1


async def test_recorder_job_ended_while_backend_was_down_is_not_recorded(
    history: TimingHistory, clock: ManualClock
) -> None:
    registry = host(history, clock, queue_seconds=12)
    job = await submit(registry)
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(9)
    assert isinstance(registry.backend, InMemoryBackend)
    registry.backend.fail_next_requests(4)  # one a second, from the end of the first ten seconds
    await advance_until_done(clock, waiting, seconds=20)
    assert waiting.result().frames == 25
    assert history.summary() == []


@pytest.mark.parametrize("error", [ValueError("boom"), None], ids=["fails", "is cancelled"])
async def test_recorder_unfinished_job_is_not_recorded(
    history: TimingHistory, clock: ManualClock, error: Exception | None
) -> None:
    job = await submit(host(history, clock, error=error))
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(1.0)
    if error is None:
        await job.cancel()
    await advance_until_done(clock, waiting)
    assert isinstance(waiting.exception(), RemoteError)
    assert history.summary() == []


@pytest.mark.parametrize(
    "nonsense", [{"frames": 0}, {"seconds_by_phase": {"render": -3.0}}, {"seconds_by_phase": {}}]
)
async def test_recorder_invalid_timing_does_not_fail_the_result(
    history: TimingHistory, clock: ManualClock, nonsense: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    job = await submit(host(history, clock, result=lambda request: {**rendered(request), **nonsense}))
    waiting = asyncio.ensure_future(job.result())
    await advance_until_done(clock, waiting)
    assert waiting.result().job_id == "job"
    assert history.summary() == []
    assert "the timing of job job was not stored" in caplog.text


async def test_recorder_copied_frames_are_not_counted(history: TimingHistory, clock: ManualClock) -> None:
    for copied in (25, 15):
        value = {"plan": "smart", "reason": "", "frames_copied": copied}
        registry = host(history, clock, result=lambda request, value=value: {**rendered(request), **value})
        await advance_until_done(clock, asyncio.ensure_future((await submit(registry)).result()))
    summary = only_summary(history)
    assert (summary.jobs, summary.seconds_per_frame) == (1, pytest.approx(0.04))  # 0.4 s for the ten rendered frames


@pytest.mark.slow
async def test_recorder_locked_database_does_not_block_the_result(
    history: TimingHistory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(timing_recorder, "_PATIENCE_SECONDS", 0.05)
    history.record(
        JobTiming(function="f", gpu="T4", size=(1, 1), frames=1, startup_seconds=0.0, seconds_by_phase={"a": 1.0})
    )
    assert history.path is not None
    with closing(sqlite3.connect(history.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        job = await submit(host(history, clock))
        waiting = asyncio.ensure_future(job.result())
        await advance_until_done(clock, waiting)
        assert "took more than" in caplog.text
        other.execute("ROLLBACK")
    assert waiting.result().frames == 25


async def test_recorder_failing_history_does_not_fail_the_job(
    history: TimingHistory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TimingHistory, "record", broken)
    monkeypatch.setattr(TimingHistory, "plan", broken)
    job = await submit(host(history, clock))
    with caplog.at_level(logging.ERROR, "reel_modal"):
        waiting = asyncio.ensure_future(listen(job))
        await advance_until_done(clock, waiting)
    assert waiting.result()[-1].status == "complete"
    assert caplog.text.count("could not be used") == 2


def test_registry_history_path_follows_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FunctionRegistry(Settings()).history.path is None  # the test suite sets "off"
    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(tmp_path / "a"))
    assert FunctionRegistry(Settings()).history.path == tmp_path / "a"
    assert FunctionRegistry(Settings(timings=str(tmp_path / "b"))).history.path == tmp_path / "b"
    assert FunctionRegistry(Settings(timings="off")).history.path is None


def test_in_memory_backend_records_no_timings_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
async def test_recorder_each_gpu_has_separate_timings(
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
    assert job._recorder is not None
    await job._recorder.record(RenderResult.parse(rendered(overlay().to_dict())), 3.0, None)
    assert only_summary(history).gpu == gpu


async def test_recorder_uses_cold_start_flag_of_the_result(history: TimingHistory) -> None:
    recorder = timing_recorder.TimingRecorder(history, render_overlay, "T4")
    for seconds, cold in ((20.4, True), (1.4, False), (22.4, True)):
        value = {**rendered(overlay().to_dict()), "cold_start": cold}
        await recorder.record(RenderResult.parse(value), seconds, None)
    summary = only_summary(history)
    assert summary.cold_startup is not None
    assert summary.warm_startup is not None
    assert summary.cold_startup.seconds == pytest.approx(21)
    assert summary.warm_startup.seconds == pytest.approx(1)


def test_call_with_progress_shows_simulated_and_measured(history: TimingHistory) -> None:
    registry = FunctionRegistry(Settings(), backend=InMemoryBackend(), history=history)
    registry.backend.script(  # type: ignore[attr-defined]
        "render_overlay",
        Script(result=rendered, seconds=1.0, events=[ProgressEvent("render", 10, 25, 0.6, 1)]),
    )
    seen: list[ProgressUpdate] = []
    result = registry["render_overlay"].call_with_progress(seen.append, overlay())
    assert result.frames == 25
    assert [update.status for update in seen][-1] == "complete"
    assert {update.source for update in seen} == {"simulated", "measured"}


def test_call_with_progress_callback_error_cancels_the_job() -> None:
    backend = InMemoryBackend()
    backend.script("render_overlay", Script(result=rendered, seconds=3600))

    def refuse(update: ProgressUpdate) -> None:
        raise LookupError("the window is gone")

    with pytest.raises(LookupError, match="window"):
        FunctionRegistry(Settings(), backend=backend)["render_overlay"].call_with_progress(refuse, overlay())
    assert len(backend.cancelled) == 1


async def test_call_with_progress_in_event_loop_is_refused() -> None:
    registry = FunctionRegistry(Settings(), backend=InMemoryBackend())
    with pytest.raises(BlockingCallError):
        registry["render_overlay"].call_with_progress(print, overlay())


async def test_function_without_events_progresses_by_the_plan(clock: ManualClock) -> None:
    backend = InMemoryBackend(clock)
    backend.script("thumbnail", Script(result=b"", seconds=20))
    remote: RemoteFunction[[str], bytes] = RemoteFunction.adapted(
        "thumbnail", backend, CallAdapter(reports=False), clock=clock
    )
    job = await remote.submit("url")
    watching = asyncio.ensure_future(listen(job))
    await advance_until_done(clock, watching, seconds=25)
    seen = watching.result()
    assert [update.phase for update in seen if update.elapsed_seconds in {0, 2, 19}] == [
        "init",
        "startup",
        "processing",
    ]
    assert all("no update" not in update.message for update in seen)
    assert seen[-1].progress == 100


async def test_recorder_keeps_the_model_of_the_job(clips: Clips, history: TimingHistory) -> None:
    """Half of the frames were rendered in twice the expected time: the next job is expected to take twice its model."""
    media = replace(probe(clips.get("25.mp4")), size=(1920, 1080), duration_seconds=Fraction(2))
    settings = Settings(store_url="s3://media")
    first = estimate(overlay(), media, settings=settings, history=history)
    assert first.model is not None
    seconds = first.model.render_seconds
    result = RenderResult.parse(rendered(overlay().to_dict()))
    phases = {"fetch": 3.0, "render": seconds, "publish": 2.0}
    usage = Usage(bytes_in=50_000_000, bytes_out=9_000_000)
    finished = replace(result, seconds_by_phase=phases, usage=usage, bytes=5_000_000)
    await TimingRecorder(history, render_overlay, "local").record(finished, 6.0 + seconds, first)
    second = estimate(overlay(), media, settings=settings, history=history)
    parts = {part.name: part.seconds for part in second.contributors}
    assert parts["render"] == pytest.approx(2 * seconds)
    again = measured_model(finished, second)
    assert again is not None
    assert (again.bytes_in, again.bytes_out, again.store) == (50_000_000, 5_000_000, "s3://media")
    assert again.render_seconds == pytest.approx(seconds / 2)
    assert measured_model(finished, None) is None
