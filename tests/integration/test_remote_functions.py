"""Functions of any app through the real client: what they cost in requests, what blocks, and a Modal that is away."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, TypeVar

import pytest
from tests.integration.sample_app import APP, sample

from reel_modal import Job, ProgressPlan, RemoteFunction
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import FunctionError, JobCancelledError, UnavailableError, WaitTimeoutError

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["sample"]

T = TypeVar("T")

MANY = 100


def work(partition: str, seconds: float = 0.0) -> str:
    """Stand for the function of the sample app."""
    raise NotImplementedError


def double(x: int) -> int:
    """Stand for the function of the sample app."""
    raise NotImplementedError


@pytest.fixture
def app(sample: None, plane: LoopbackPlane) -> LoopbackPlane:
    """A plane on which the sample app is deployed."""
    return plane


async def started(partition: str) -> None:
    """Return when the body of `work` runs."""
    import modal

    queue = modal.Queue.from_name("sample-events", create_if_missing=True)
    assert await queue.get.aio(partition=partition, timeout=30) is not None


# What a call costs.


def test_a_hundred_first_calls_of_four_threads_look_the_function_up_once(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "double", double)
    assert app.requests == []
    results: list[int] = []
    gate = threading.Barrier(4)

    async def burst() -> None:
        results.extend(await asyncio.gather(*(function(number) for number in range(25))))

    def in_a_loop_of_its_own() -> None:
        gate.wait()
        asyncio.run(burst())

    def in_the_loop_of_all() -> None:
        gate.wait()
        # One after the other: a host without a loop has one call a thread.
        results.extend(function.call(number) for number in range(25))

    threads = [threading.Thread(target=target) for target in (in_a_loop_of_its_own, in_the_loop_of_all) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted([2 * number for number in range(25)] * 4)
    assert app.count("FunctionGet") == 1
    assert app.count("FunctionMap") == MANY


async def test_a_call_asks_for_no_more_than_the_client_of_modal_does(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "double", double)
    await function.hydrate()
    before = len(app.requests)
    assert await function(21) == 42
    assert [rpc for rpc, _ in app.requests[before:]] == ["FunctionMap", "FunctionGetOutputs"]


async def test_a_hundred_calls_of_one_loop_are_all_in_flight(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "double", double)
    app.faults.hang("FunctionGetOutputs")
    calls = [asyncio.ensure_future(function(number)) for number in range(MANY)]

    def waited_for() -> set[str]:
        return {request.function_call_id for rpc, request in app.requests if rpc == "FunctionGetOutputs"}

    await asyncio.to_thread(app.wait_for, lambda: len(waited_for()) == MANY)
    assert not any(call.done() for call in calls)
    app.faults.clear()
    assert await asyncio.gather(*calls) == [2 * number for number in range(MANY)]


async def test_no_call_blocks_the_loop_while_the_control_plane_is_slow(app: LoopbackPlane) -> None:
    loop, ticked = asyncio.get_running_loop(), list[str]()

    def tick(rpc: str, before: int) -> None:
        """Once Modal has the request, see whether the loop still does something else, and only then let Modal answer."""
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


# What is shown of it.


async def test_a_function_that_reports_nothing_is_shown_by_the_plan(app: LoopbackPlane) -> None:
    job = await RemoteFunction.from_modal(APP, "work", work).submit("shown", 2.0)
    plan = ProgressPlan.from_benchmarks(startup_seconds=0.2, processing_seconds=2.0)
    seen = [update async for update in job.progress(plan, interval_seconds=0.1)]
    assert [phase for phase, _ in groupby(update.phase for update in seen)][-2:] == ["processing", "complete"]
    assert all(later.progress >= earlier.progress for earlier, later in pairwise(seen))
    assert (await job.result()).startswith("ta-")


# A function that ends as none should.


@pytest.mark.parametrize(
    ("how", "said"), [("a bare time-out", "TimeoutError"), ("with a word", "SystemExit: with a word")]
)
async def test_how_a_function_left_is_told_and_is_no_end_of_the_host(app: LoopbackPlane, how: str, said: str) -> None:
    function: RemoteFunction[[str], None] = RemoteFunction("leave", ModalBackend(APP))
    job = await function.submit(how)
    for _ in range(2):
        with pytest.raises(FunctionError, match=said):
            await job.result(timeout=30)
        assert await job.status() == "failed"


# Modal is away.


async def test_a_control_plane_that_restarts_loses_no_job(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "work", work)
    job = await function.submit("restart", 3.0)
    await started("restart")
    waiting = asyncio.ensure_future(job.result())
    # Longer than the client itself tries again.
    await asyncio.to_thread(app.restart, 2.0)
    assert (await waiting).startswith("ta-")
    assert await job.status() == "succeeded"
    assert app.count("FunctionMap") == 1


async def test_while_nobody_answers_a_job_is_unknown_and_its_waiters_return(app: LoopbackPlane) -> None:
    backend = ModalBackend(APP, answer_seconds=0.5)
    function: RemoteFunction[[str, float], str] = RemoteFunction("work", backend)
    job = await function.submit("silence", 60.0)
    await started("silence")
    listening = asyncio.ensure_future(all_events(job))
    app.faults.hang("*", side="client")
    assert await job.status() == "unknown"
    with pytest.raises(WaitTimeoutError, match="the job goes on"):
        await job.result(timeout=0.1)
    with pytest.raises(UnavailableError, match=r"nothing came within 0\.5 s"):
        await job.cancel()
    with pytest.raises(UnavailableError):
        await function.submit("silence", 60.0)
    with pytest.raises(UnavailableError):
        await listening
    app.faults.clear()
    await job.cancel()
    with pytest.raises(JobCancelledError):
        await job.result(timeout=30)


async def all_events(job: Job[str]) -> int:
    return len([event async for event in job.events()])


async def test_a_wait_ends_in_its_time_though_modal_owes_an_answer(app: LoopbackPlane) -> None:
    function = RemoteFunction.from_modal(APP, "work", work)
    job = await function.submit("owed", 60.0)
    app.faults.hang("FunctionGetOutputs")
    begun = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=r"within 0\.1 s; the job goes on"):
        await job.result(timeout=0.1)
    # The client of modal would try for 20 s, and the bound of one answer is a minute.
    assert time.monotonic() - begun < 15
    app.faults.clear()
    await job.cancel()
