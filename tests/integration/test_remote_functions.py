"""Functions of any app through the real client: number of requests, blocking, and Modal outages."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable
from dataclasses import asdict
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, TypeVar

import pytest
from tests.integration.sample_app import APP, sample

from reel_modal import Job, ProgressPlan, RemoteFunction
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import FunctionError, JobCancelledError, UnavailableError, WaitTimeoutError
from reel_modal.functions.specs import EVENTS_QUEUE
from reel_modal.progress import ProgressEvent

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["sample"]

T = TypeVar("T")

MANY = 100


def work(partition: str, seconds: float = 0.0) -> str:
    """A local stand-in for the function of the sample app."""
    raise NotImplementedError


def double(x: int) -> int:
    """A local stand-in for the function of the sample app."""
    raise NotImplementedError


@pytest.fixture
def app(sample: None, plane: LoopbackPlane) -> LoopbackPlane:
    """A plane with the deployed sample app."""
    return plane


async def started(partition: str) -> None:
    """Wait until the body of `work` runs."""
    import modal

    queue = modal.Queue.from_name("sample-events", create_if_missing=True)
    assert await queue.get.aio(partition=partition, timeout=30) is not None


# Number of requests of a call.


def test_hundred_first_calls_in_threads_look_up_once(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "double", double)
    assert app.requests == []
    results: list[int] = []
    gate = threading.Barrier(4)

    async def burst() -> None:
        results.extend(await asyncio.gather(*(function(number) for number in range(25))))

    def in_own_loop() -> None:
        gate.wait()
        asyncio.run(burst())

    def in_shared_loop() -> None:
        gate.wait()
        # One after the other: a host without an event loop makes one call per thread.
        results.extend(function.call(number) for number in range(25))

    threads = [threading.Thread(target=target) for target in (in_own_loop, in_shared_loop) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted([2 * number for number in range(25)] * 4)
    assert app.count("FunctionGet") == 1
    assert app.count("FunctionMap") == MANY


async def test_call_sends_no_more_requests_than_modal_client(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "double", double)
    await function.hydrate()
    before = len(app.requests)
    assert await function(21) == 42
    assert [rpc for rpc, _ in app.requests[before:]] == ["FunctionMap", "FunctionGetOutputs"]


async def test_hundred_calls_in_one_loop_run_concurrently(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "double", double)
    app.faults.hang("FunctionGetOutputs")
    calls = [asyncio.ensure_future(function(number)) for number in range(MANY)]

    def waited_for() -> set[str]:
        return {request.function_call_id for rpc, request in app.requests if rpc == "FunctionGetOutputs"}

    await asyncio.to_thread(app.wait_for, lambda: len(waited_for()) == MANY)
    assert not any(call.done() for call in calls)
    app.faults.clear()
    assert await asyncio.gather(*calls) == [2 * number for number in range(MANY)]


async def test_calls_slow_control_plane_does_not_block_loop(app: LoopbackPlane) -> None:
    loop, ticked = asyncio.get_running_loop(), list[str]()

    def tick(rpc: str, before: int) -> None:
        """After Modal has the request, check that the loop still runs, and only then let Modal answer."""
        try:
            app.wait_for(lambda: app.count(rpc) > before)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result(20)
            ticked.append(rpc)
        finally:
            app.faults.clear()

    async def while_slow(rpc: str, call: Awaitable[T]) -> T:
        app.faults.hang(rpc, side="client")
        ticking = asyncio.ensure_future(asyncio.to_thread(tick, rpc, app.count(rpc)))
        await asyncio.sleep(0)
        answer = await call
        await ticking
        return answer

    function = RemoteFunction.from_modal(APP, "work", work)
    await while_slow("FunctionGet", function.hydrate())
    job = await while_slow("FunctionMap", function.submit("slow", 60.0))
    assert await while_slow("FunctionGetOutputs", job.status()) == "queued"
    assert await while_slow("QueueLen", job.status()) == "queued"
    waiting = asyncio.ensure_future(job.result())
    await while_slow("FunctionCallCancel", job.cancel())
    with pytest.raises(JobCancelledError):
        await while_slow("FunctionGetOutputs", job.result())
    with pytest.raises(JobCancelledError):
        await waiting
    assert len(ticked) == 6


# Progress.


async def test_progress_function_without_events_follows_plan(app: LoopbackPlane) -> None:
    job = await RemoteFunction.from_modal(APP, "work", work).submit("shown", 2.0)
    plan = ProgressPlan.from_benchmarks(startup_seconds=0.2, processing_seconds=2.0)
    updates = [update async for update in job.progress(plan, interval_seconds=0.1)]
    assert [phase for phase, _ in groupby(update.phase for update in updates)][-2:] == ["processing", "complete"]
    assert all(later.progress >= earlier.progress for earlier, later in pairwise(updates))
    assert (await job.result()).startswith("ta-")


# Abnormal ends of a function.


@pytest.mark.parametrize(
    ("how", "said"), [("a bare time-out", "TimeoutError"), ("with a word", "SystemExit: with a word")]
)
async def test_function_exit_is_reported_and_host_continues(app: LoopbackPlane, how: str, said: str) -> None:
    function: RemoteFunction[[str], None] = RemoteFunction("leave", ModalBackend(APP))
    job = await function.submit(how)
    for _ in range(2):
        with pytest.raises(FunctionError, match=said):
            await job.result(timeout_seconds=30)
        assert await job.status() == "failed"


# Outages of Modal.


async def test_control_plane_restart_loses_no_job(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "work", work)
    job = await function.submit("restart", 3.0)
    await started("restart")
    waiting = asyncio.ensure_future(job.result())
    # Longer than the retries of the client.
    await asyncio.to_thread(app.restart, 2.0)
    assert (await waiting).startswith("ta-")
    assert await job.status() == "succeeded"
    assert app.count("FunctionMap") == 1


async def test_modal_unreachable_is_unknown_and_waiters_return(app: LoopbackPlane) -> None:
    backend = ModalBackend(APP, answer_seconds=0.5)
    function: RemoteFunction[[str, float], str] = RemoteFunction("work", backend)
    job = await function.submit("silence", 60.0)
    await started("silence")
    listening = asyncio.ensure_future(all_events(job))
    app.faults.hang("*", side="client")
    assert await job.status() == "unknown"
    with pytest.raises(WaitTimeoutError, match="the job continues"):
        await job.result(timeout_seconds=0.1)
    with pytest.raises(UnavailableError, match=r"no response within 0\.5 s"):
        await job.cancel()
    with pytest.raises(UnavailableError, match=r"no response within 0\.5 s"):
        await function.with_options(unavailable_seconds=0.5).submit("silence", 60.0)
    with pytest.raises(UnavailableError):
        await listening
    app.faults.clear()
    await job.cancel()
    with pytest.raises(JobCancelledError):
        await job.result(timeout_seconds=30)


async def all_events(job: Job[str]) -> int:
    return len([event async for event in job.events()])


async def test_wait_while_modal_silent_ends_at_timeout(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "work", work)
    job = await function.submit("owed", 60.0)
    app.faults.hang("FunctionGetOutputs")
    started_at = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=r"within 0\.1 s; the job continues"):
        await job.result(timeout_seconds=0.1)
    # The client of modal would retry for 20 s, and the timeout of one answer is a minute.
    assert time.monotonic() - started_at < 15
    app.faults.clear()
    await job.cancel()


async def test_events_of_next_attempt_follow_and_repeated_ones_are_left_out(app: LoopbackPlane) -> None:
    import modal

    backend = ModalBackend(APP)
    call_id = await backend.submit("work", ("next-attempt", 60.0), {})
    order = [(1, 1), (1, 2), (1, 3), (2, 1), (1, 3), (2, 1), (2, 2)]
    reports = [asdict(ProgressEvent("render", 0, None, 0.0, sequence, attempt)) for attempt, sequence in order]
    queue = modal.Queue.from_name(EVENTS_QUEUE, create_if_missing=True)
    await queue.put_many.aio([*reports, "end"], partition=call_id)
    async with asyncio.timeout(30):
        events = [event async for event in backend.events(call_id)]
    assert [(event.attempt, event.sequence) for event in events] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    await backend.cancel(call_id)
