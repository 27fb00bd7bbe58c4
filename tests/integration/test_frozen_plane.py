"""A frozen control plane: every wait ends at its timeout, and no job is lost."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from grpclib import Status
from tests.integration.sample_app import APP, sample
from tests.jobs import overlay, publish

from reel_modal import FunctionRegistry, JobOptions, RemoteFunction, Settings
from reel_modal._jobs.submission import CallAdapter
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import FunctionTimeoutError, JobCancelledError, UnavailableError, WaitTimeoutError
from reel_modal.schema import StoreOptions

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["sample"]

PROMPT_SECONDS = 2.0
"""What is promised of `asyncio.timeout(1)`."""


@pytest.fixture
def app(sample: None, plane: LoopbackPlane) -> LoopbackPlane:
    """A plane with the deployed sample app."""
    return plane


def function(options: JobOptions | None = None) -> RemoteFunction[[str, float], str]:
    return RemoteFunction.adapted("work", ModalBackend(APP), CallAdapter(reports=False), options=options)


@contextmanager
def within(least: float, most: float) -> Iterator[None]:
    """Assert the duration of the block."""
    started_at = time.monotonic()
    yield
    assert least <= time.monotonic() - started_at <= most


async def drained(listening: object) -> None:
    async for _ in listening:  # type: ignore[attr-defined]
        pass


def await_log(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Wait until a message that contains `words` was logged."""
    deadline = time.monotonic() + 30
    while words not in caplog.text:
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.01)


WAITS: dict[str, Callable[[FunctionRegistry], Awaitable[object]]] = {
    "result": lambda registry: registry.attach(JOB_ID).result(),
    "status": lambda registry: registry.attach(JOB_ID).status(),
    "cancel": lambda registry: registry.attach(JOB_ID).cancel(),
    "events": lambda registry: drained(registry.attach(JOB_ID).events()),
    "progress": lambda registry: drained(registry.attach(JOB_ID).progress()),
    "submit": lambda registry: registry["render_overlay"].submit(overlay()),
    "call": lambda registry: registry["render_overlay"](overlay()),
    "map": lambda registry: drained(registry["render_overlay"].map([overlay()])),
    "hydrate": lambda registry: registry["render_overlay"].hydrate(),
    "verify": lambda registry: registry.verify(),
}
JOB_ID = "modal:render_overlay:fc-1"


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("on_cancel", ["cancel", "detach"])
async def test_every_wait_while_silent_is_cancelled_promptly(
    app: LoopbackPlane, tmp_path: Path, wait: str, on_cancel: str
) -> None:
    settings = Settings(modal_enabled=True, store_url=tmp_path.as_uri())
    options = JobOptions(on_cancel=on_cancel)  # type: ignore[arg-type]
    registry = FunctionRegistry(settings, options=options)
    with app.frozen(), within(1.0, PROMPT_SECONDS), pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await WAITS[wait](registry)


async def test_result_cancelled_while_silent_cancels_job_later(
    app: LoopbackPlane, caplog: pytest.LogCaptureFixture
) -> None:
    job = await function().submit("later", 60.0)
    with app.frozen(), caplog.at_level(logging.WARNING, "reel_modal"), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await job.result()
    assert f"cancelling {job.id} (its waiter was cancelled) takes longer than 0.5 s" in caplog.text
    with pytest.raises(JobCancelledError):
        await job.result(timeout_seconds=30)
    assert app.count("FunctionCallCancel") == 1


async def test_submit_cancelled_while_silent_leaves_no_job(app: LoopbackPlane) -> None:
    work = function()
    await work.hydrate()
    with app.frozen(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await work.submit("withdrawn", 60.0)
    await asyncio.to_thread(app.wait_for, lambda: app.count("FunctionCallCancel"))
    assert app.count("FunctionMap") == 1


async def test_submit_abandoned_in_background_is_logged(
    app: LoopbackPlane, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reel_modal._jobs.remote_function._WITHDRAW_SECONDS", 0.7)
    work = function()
    with app.frozen(), caplog.at_level(logging.WARNING, "reel_modal"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await work.submit("given up", 60.0)
        abandoned = "an unfinished submission of work may have started was not finished after 0.7 s"
        await asyncio.to_thread(await_log, caplog, abandoned)


@pytest.mark.parametrize("unavailable_seconds", [1.0, 6.0])
async def test_unavailable_seconds_limits_wait_while_silent(app: LoopbackPlane, unavailable_seconds: float) -> None:
    job = await function().submit("unavailable", 60.0)
    waiting = function(JobOptions(unavailable_seconds=unavailable_seconds)).job(job.id.rpartition(":")[2])
    with app.frozen(), within(unavailable_seconds, unavailable_seconds + 5), pytest.raises(UnavailableError):
        await waiting.result()
    await job.cancel()


async def test_status_while_silent_is_unknown_in_bounded_time(
    app: LoopbackPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reel_modal._jobs.job._STATUS_SECONDS", 0.5)
    job = await function().submit("status", 60.0)
    with app.frozen(), within(0.5, PROMPT_SECONDS):
        assert await job.status() == "unknown"
    await job.cancel()


async def test_deadline_while_silent_ends_the_wait(app: LoopbackPlane) -> None:
    job = await function(JobOptions(deadline_seconds=1)).submit("deadline", 60.0)
    # The answer may be five seconds late, and the cancellation may take five more.
    with app.frozen(), within(0.5, 1 + 5 + 5 + 1), pytest.raises(FunctionTimeoutError, match="deadline of 1 s"):
        await job.result()
    with pytest.raises(JobCancelledError):
        await function().job(job.id.rpartition(":")[2]).result(timeout_seconds=30)


@pytest.mark.parametrize("longest", [0, 3, None])
async def test_result_while_silent_is_read_from_store(
    app: LoopbackPlane, tmp_path: Path, longest: float | None
) -> None:
    request = replace(overlay("frozen"), store=StoreOptions())
    result = publish(request, tmp_path)
    options = JobOptions(unavailable_seconds=20)
    registry = FunctionRegistry(Settings(modal_enabled=True, store_url=tmp_path.as_uri()), options=options)
    with app.frozen(), within(0, 3 + PROMPT_SECONDS):
        assert await registry.attach(JOB_ID, request).result(timeout_seconds=longest) == result


async def test_wait_while_silent_ends_at_most_five_seconds_late(app: LoopbackPlane) -> None:
    job = await function().submit("late", 60.0)
    with app.frozen(), within(1, 1 + 5 + 1), pytest.raises(WaitTimeoutError, match="the job continues"):
        await job.result(timeout_seconds=1)
    await job.cancel()


async def test_token_refused_mid_job_is_unknown_and_job_continues(app: LoopbackPlane) -> None:
    job = await function().submit("refused", 1.0)
    app.faults.fail("FunctionGetOutputs", Status.UNAUTHENTICATED, times=3)
    assert await job.status() == "unknown"
    progress = [update async for update in job.progress(interval_seconds=0.1)]
    assert progress[-1].phase == "complete"
    app.faults.fail("FunctionGetOutputs", Status.UNAUTHENTICATED, times=2)
    assert (await job.result()).startswith("ta-")
    assert app.count("FunctionCallCancel") == 0


async def test_token_refused_for_long_is_unavailable_with_cure(app: LoopbackPlane) -> None:
    job = await function(JobOptions(unavailable_seconds=1)).submit("refused for long", 60.0)
    app.faults.fail("FunctionGetOutputs", Status.UNAUTHENTICATED, times=1000)
    with pytest.raises(UnavailableError, match=r"MODAL_TOKEN_ID.*the state of the job is unknown") as caught:
        await job.result()
    assert caught.value.retryable
    assert app.count("FunctionCallCancel") == 0
    app.faults.clear()
    await job.cancel()


def test_event_loop_closes_although_store_is_silent(tmp_path: Path) -> None:
    from threading import Event

    released = Event()

    async def host() -> None:
        remote: RemoteFunction[[], object] = RemoteFunction("work", ModalBackend(APP))
        async with asyncio.timeout(0.2):
            await remote.job("fc-1", published=lambda: released.wait(60)).status()

    with within(0, PROMPT_SECONDS), pytest.raises(TimeoutError):
        asyncio.run(host())
    released.set()
