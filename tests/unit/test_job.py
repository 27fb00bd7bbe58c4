"""Waiting for a job, and its limits, with a manual clock."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import pytest
from tests.jobs import event, overlay, rendered

from reel_modal import FunctionRegistry, Job, JobOptions, RemoteFunction, RenderResult, Settings
from reel_modal._support.clock import SYSTEM_CLOCK, Clock
from reel_modal.backends.base import CallResult
from reel_modal.errors import (
    AuthError,
    BadInputError,
    ConfigError,
    FunctionError,
    FunctionTimeoutError,
    InvalidMediaError,
    JobCancelledError,
    JobNotFoundError,
    JobStalledError,
    NotDeployedError,
    RemoteError,
    UnavailableError,
    WaitTimeoutError,
)
from reel_modal.progress import ProgressEvent
from reel_modal.testing import InMemoryBackend, ManualClock, Script

NEVER = 1e9


def host(
    backend: InMemoryBackend, clock: Clock = SYSTEM_CLOCK, options: JobOptions | None = None
) -> FunctionRegistry:
    return FunctionRegistry(Settings(), backend=backend, clock=clock, options=options)


async def start(
    backend: InMemoryBackend, clock: Clock, options: JobOptions | None = None, **script: object
) -> Job[RenderResult]:
    backend.script("render_overlay", Script(**{"result": rendered} | script))  # type: ignore[arg-type]
    return await host(backend, clock, options)["render_overlay"].submit(overlay())


def reports(*moments: float) -> Sequence[ProgressEvent]:
    return [event(number, at=moment) for number, moment in enumerate(moments, start=1)]


async def test_status_is_queued_then_running_then_succeeded() -> None:
    clock = ManualClock()
    job = await start(InMemoryBackend(clock), clock, queue_seconds=5, seconds=5, events=reports(0))
    seen = []
    for _ in range(3):
        seen.append(await job.status())
        await clock.advance(5.1)
    assert seen == ["queued", "running", "succeeded"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidMediaError("no video"), "failed"),
        (RuntimeError(), "failed"),
        (JobCancelledError("by somebody", function="f"), "cancelled"),
        (UnavailableError("down", function="f"), "unknown"),
        (JobNotFoundError("gone", function="f"), "unknown"),
        # Without permission, or without a deployment, the job's state is unknown.
        (AuthError("the token has expired", function="f"), "unknown"),
        (NotDeployedError("the app was stopped", function="f"), "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_status_is_failed_only_if_the_job_failed(error: Exception, status: str) -> None:
    clock = ManualClock()
    job = await start(InMemoryBackend(clock), clock, error=error)
    await clock.advance(0)
    assert await job.status() == status


async def test_awaited_job_is_freed_without_garbage_collector() -> None:
    backend = InMemoryBackend()
    backend.script("double", Script(result=2))
    double: RemoteFunction[[int], int] = RemoteFunction("double", backend)  # calls without a job_id are not kept
    gc.disable()
    try:
        job = await double.submit(1)
        assert await job.result() == 2
        alive = ref(job)
        del job
        assert alive() is None
    finally:
        gc.enable()


async def test_result_available_ignores_timeout_and_deadline() -> None:
    for clock in (ManualClock(), SYSTEM_CLOCK):
        backend = InMemoryBackend(clock)
        job = await start(backend, clock, JobOptions(deadline_seconds=1e-9))
        assert await backend.wait("call-1", 10) is not None
        if isinstance(clock, ManualClock):
            clock.jump(1)
        assert (await job.result(timeout_seconds=0)).frames == 25


@pytest.mark.parametrize("clock", [ManualClock(), SYSTEM_CLOCK], ids=["manual", "system"])
async def test_result_timeout_zero_does_not_wait(clock: Clock) -> None:
    job = await start(InMemoryBackend(clock), clock, seconds=NEVER)
    with pytest.raises(WaitTimeoutError, match="within 0 s; the job continues"):
        await asyncio.wait_for(job.result(timeout_seconds=0), 10)
    assert await job.status() == "queued"


@pytest.mark.parametrize("seconds", [3, 25])
async def test_result_timeout_leaves_the_job_running(seconds: float) -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    job = await start(backend, clock, seconds=40)
    waiting = asyncio.ensure_future(job.result(timeout_seconds=seconds))
    await clock.advance(seconds - 0.1)
    assert not waiting.done()
    await clock.advance(0.2)
    with pytest.raises(WaitTimeoutError) as caught:
        await waiting
    assert (caught.value.function, caught.value.call_id) == ("render_overlay", "call-1")
    assert backend.cancelled == []
    again = asyncio.ensure_future(job.result())
    await clock.advance(40)
    assert (await again).job_id == "job"


async def test_result_stalled_job_is_cancelled() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    options = JobOptions(stall_seconds=60)
    job = await start(backend, clock, options, queue_seconds=500, seconds=NEVER, events=reports(0, 40, 80))
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(500 + 80 + 59)
    assert not waiting.done()
    await clock.advance(60 / 4 + 2)
    with pytest.raises(JobStalledError, match="no new event for 60 s"):
        await waiting
    assert backend.cancelled == ["call-1"]
    assert await job.status() == "cancelled"


async def test_result_queued_job_is_not_stalled() -> None:
    clock = ManualClock()
    job = await start(InMemoryBackend(clock), clock, JobOptions(stall_seconds=60), seconds=10_000)
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(10_001)
    assert (await waiting).job_id == "job"


async def test_result_without_stall_limit_waits_for_silent_job() -> None:
    clock = ManualClock()
    options = JobOptions(stall_seconds=math.inf)
    job = await start(InMemoryBackend(clock), clock, options, seconds=10_000, events=reports(0))
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(10_001)
    assert (await waiting).job_id == "job"


async def test_result_api_outage_is_not_a_stall() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    options = JobOptions(stall_seconds=60, unavailable_seconds=1000)
    events = reports(*range(0, 500, 20))
    job = await start(backend, clock, options, seconds=500, events=events)
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(30)
    backend.fail_next_requests(200)
    await clock.advance(471)
    assert (await waiting).job_id == "job"
    assert backend.cancelled == []


async def test_result_deadline_counts_from_submission() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    job = await start(backend, clock, JobOptions(deadline_seconds=100), seconds=NEVER)
    await clock.advance(70)
    waiting = asyncio.ensure_future(job.result(timeout_seconds=1000))
    await clock.advance(29)
    assert not waiting.done()
    await clock.advance(2)
    with pytest.raises(FunctionTimeoutError, match="deadline of 100 s"):
        await waiting
    assert backend.cancelled == ["call-1"]


async def test_result_deadline_of_attached_job_counts_from_attach() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    job = await start(backend, clock, seconds=NEVER)
    await clock.advance(1000)
    attached = host(backend, clock, JobOptions(deadline_seconds=100)).attach(job.id)
    waiting = asyncio.ensure_future(attached.result())
    await clock.advance(99)
    assert not waiting.done()
    await clock.advance(2)
    with pytest.raises(FunctionTimeoutError):
        await waiting


async def test_result_short_outage_is_retried() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    job = await start(backend, clock, seconds=30)
    backend.fail_next_requests(20)
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(31)
    assert (await waiting).job_id == "job"


async def test_result_long_outage_raises_and_leaves_the_job_running() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    job = await start(backend, clock, JobOptions(unavailable_seconds=120), seconds=300)
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(15)
    backend.fail_next_requests(10_000)
    await clock.advance(119)
    assert not waiting.done()
    await clock.advance(12)
    with pytest.raises(UnavailableError):
        await waiting
    backend.fail_next_requests(0)
    assert backend.cancelled == []
    again = asyncio.ensure_future(job.result())
    await clock.advance(300)
    assert (await again).job_id == "job"


async def test_result_outage_does_not_extend_the_timeout() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    job = await start(backend, clock, seconds=300)
    backend.fail_next_requests(10_000)
    waiting = asyncio.ensure_future(job.result(timeout_seconds=2.5))
    await clock.advance(2.5)
    with pytest.raises(WaitTimeoutError):
        await waiting


async def test_result_unknown_job_raises_immediately() -> None:
    clock = ManualClock()
    job = host(InMemoryBackend(clock), clock).attach("memory:render_overlay:call-99")
    with pytest.raises(JobNotFoundError, match="call-99"):
        await asyncio.wait_for(job.result(), 10)
    assert clock.monotonic() == 0


async def test_result_error_names_the_function_and_call() -> None:
    job = await start(InMemoryBackend(), SYSTEM_CLOCK, error=InvalidMediaError("it is no video"))
    with pytest.raises(BadInputError, match=r"^render_overlay \(call call-1\): it is no video$") as caught:
        await job.result()
    assert isinstance(caught.value.__cause__, InvalidMediaError)


async def test_result_cancelled_waiter_cancels_the_job() -> None:
    backend = InMemoryBackend()
    job = await start(backend, SYSTEM_CLOCK, seconds=NEVER)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await job.result()
    assert await job.status() == "cancelled"


async def test_result_cancelled_waiter_detaches_if_requested() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    job = await start(backend, clock, JobOptions(on_cancel="detach"), seconds=10)
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    again = asyncio.ensure_future(job.result())
    await clock.advance(6)
    assert (await again).job_id == "job"
    assert backend.cancelled == []


async def test_result_cancelled_while_backend_is_down_stays_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    asked = asyncio.Event()

    class Silent(InMemoryBackend):
        async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:
            asked.set()
            return await super().wait(call_id, timeout_seconds)

    backend = Silent()
    job = await start(backend, SYSTEM_CLOCK, seconds=NEVER)
    waiting = asyncio.ensure_future(job.result())
    await asked.wait()
    await asyncio.sleep(0)  # the question has now reached the backend
    backend.fail_next_requests(1)
    waiting.cancel()
    with caplog.at_level(logging.WARNING, "reel_modal"), pytest.raises(asyncio.CancelledError):
        await waiting
    assert "(its waiter was cancelled) failed" in caplog.text


async def test_result_cancelled_twice_ends_and_still_cancels_the_job() -> None:
    released, cancel_started = asyncio.Event(), asyncio.Event()

    class Slow(InMemoryBackend):
        async def cancel(self, call_id: str) -> None:
            cancel_started.set()
            await released.wait()
            await super().cancel(call_id)

    backend = Slow()
    job = await start(backend, SYSTEM_CLOCK, seconds=NEVER)
    waiting = asyncio.ensure_future(job.result())
    await asyncio.sleep(0)
    waiting.cancel()
    await cancel_started.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    released.set()
    with pytest.raises(JobCancelledError):
        await job.result()


async def test_result_of_another_version_is_a_remote_error() -> None:
    job = await start(InMemoryBackend(), SYSTEM_CLOCK, result={"status": "success"})
    with pytest.raises(RemoteError, match="its result cannot be read") as caught:
        await job.result()
    assert not isinstance(caught.value, BadInputError | FunctionError)


async def test_result_many_waiters_get_the_same_error() -> None:
    backend = InMemoryBackend()
    job = await start(backend, SYSTEM_CLOCK, error=InvalidMediaError("no video"), seconds=0.01)
    errors = await asyncio.gather(*(job.result() for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in errors] == [BadInputError] * 3


@pytest.mark.parametrize(
    ("script", "last"), [({"result": rendered}, "complete"), ({"error": RuntimeError("no")}, "error")]
)
async def test_progress_ends_with_the_job_and_never_raises(script: dict[str, object], last: str) -> None:
    clock = ManualClock()
    job = await start(InMemoryBackend(clock), clock, seconds=10, events=reports(1, 2), **script)
    percents: list[float] = []
    phases: list[str] = []

    async def listen() -> None:
        async for update in job.progress():
            percents.append(update.percent)
            phases.append(update.phase)

    listening = asyncio.ensure_future(listen())
    await clock.advance(11)
    await listening
    assert phases[-1] == last
    assert percents == sorted(percents)


async def test_progress_closed_early_leaves_job_and_no_task() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    job = await start(backend, clock, seconds=10)
    before = asyncio.all_tasks()
    updates = job.progress()
    await anext(updates)
    await updates.aclose()
    assert asyncio.all_tasks() == before
    assert backend.cancelled == []


@pytest.mark.parametrize("make", [lambda job: job.events(), lambda job: job.progress()], ids=["events", "progress"])
async def test_listener_cancelled_leaves_the_job_running(
    make: Callable[[Job[RenderResult]], object],
) -> None:
    backend = InMemoryBackend()
    job = await start(backend, SYSTEM_CLOCK, seconds=NEVER)

    async def listen() -> None:
        async for _ in make(job):  # type: ignore[attr-defined]
            pass

    listening = asyncio.ensure_future(listen())
    for _ in range(5):
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.wait({listening})
    assert await job.status() == "queued"
    await job.cancel()


@pytest.mark.parametrize("name", ["stall_seconds", "deadline_seconds", "unavailable_seconds"])
@pytest.mark.parametrize("value", [0, -1, math.nan, "60", True, [], 10**400])
def test_options_wrong_limit_is_named(name: str, value: Any) -> None:
    function = host(InMemoryBackend(), ManualClock())["render_overlay"]
    for change in (JobOptions, function.with_options):
        with pytest.raises(ConfigError) as caught:
            change(**{name: value})
        assert str(caught.value).startswith(f"{name}={value!r} must be a number of seconds above 0")


@pytest.mark.parametrize("value", ["", "Cancel", True, []])
def test_options_wrong_on_cancel_is_named(value: Any) -> None:
    function = host(InMemoryBackend(), ManualClock())["render_overlay"]
    for change in (JobOptions, function.with_options):
        with pytest.raises(ConfigError, match=r"on_cancel=.* use one of cancel, detach"):
            change(on_cancel=value)


def test_options_none_keeps_the_default() -> None:
    names = ("on_cancel", "stall_seconds", "deadline_seconds", "unavailable_seconds")
    assert JobOptions(**dict.fromkeys(names)) == JobOptions()
    assert [getattr(JobOptions(), name) for name in names] == ["cancel", 180.0, math.inf, 120.0]


async def test_options_infinity_disables_each_limit() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    never = JobOptions(stall_seconds=math.inf, deadline_seconds=math.inf, unavailable_seconds=math.inf)
    job = await start(backend, clock, never, seconds=10_000, events=reports(0))
    waiting = asyncio.ensure_future(job.result())
    await clock.advance(10_001)
    assert (await waiting).job_id == "job"


async def test_with_options_none_keeps_the_current_value() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    backend.script("f", Script("done", seconds=100, events=[event(1)]))
    options = JobOptions(stall_seconds=math.inf, deadline_seconds=50)
    function: RemoteFunction[[], str] = RemoteFunction("f", backend, clock=clock, options=options)
    waiting = asyncio.ensure_future(function.with_options(stall_seconds=None, unavailable_seconds=10)())
    await clock.advance(101)
    with pytest.raises(FunctionTimeoutError, match="deadline of 50 s"):
        await waiting


async def test_failed_job_error_has_end_of_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_SECRET", "swordfish-123")
    log = [f"line {number}" for number in range(30)] + ["key swordfish-123", "s3://id:password@host"]
    job = await start(InMemoryBackend(), SYSTEM_CLOCK, error=ValueError("broken"), log=log)
    with pytest.raises(FunctionError) as caught:
        await job.result()
    assert len(caught.value.log) == 20
    assert caught.value.log[-3:] == ("line 29", "key [hidden]", "s3://[hidden]@host")
    assert "last lines of its log:\n    line 12\n" in str(caught.value)
    assert await job.logs(2) == caught.value.log[-2:]
    with pytest.raises(ConfigError, match="lines=0 must be 1 to 1000"):
        await job.logs(0)


async def test_refused_input_needs_no_log() -> None:
    job = await start(InMemoryBackend(), SYSTEM_CLOCK, error=InvalidMediaError("no video"), log=["line"])
    with pytest.raises(BadInputError) as caught:
        await job.result()
    assert caught.value.log == ()
