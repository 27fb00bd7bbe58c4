"""The contract of every backend: a host sees no difference between them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import pytest
from tests.contract.places import Place
from tests.jobs import PHASES, rendered

from reel_modal import Job, JobOptions, ProgressEvent, RemoteFunction, RenderResult, run_sync
from reel_modal.backends.base import JobStatus
from reel_modal.errors import (
    BadInputError,
    InvalidMediaError,
    JobCancelledError,
    JobConflictError,
    JobNotFoundError,
    NotDeployedError,
    ObjectNotFoundError,
    RemoteError,
    WaitTimeoutError,
)

R = TypeVar("R")

POINTS = 8


async def until(job: Job[R], phase: str) -> None:
    """Wait until the job reports `phase`."""
    async for event in job.events():
        if event.phase == phase:
            return
    raise AssertionError(f"the job has ended without {phase}")


async def end_status(job: Job[R]) -> JobStatus:
    """Wait until the job has ended; return its status. On Modal `cancel` only requests the cancellation."""
    with suppress(RemoteError):
        await job.result(timeout_seconds=30)
    return await job.status()


async def all_events(job: Job[R]) -> list[ProgressEvent]:
    return [event async for event in job.events()]


# Results and errors.


async def test_job_succeeds_returns_result(place: Place) -> None:
    request = place.request()
    job = await place.registry()["render_overlay"].submit(request)
    result = await job.result()
    assert set(result.seconds_by_phase) == set(PHASES)
    assert result.bytes > 0
    expected = RenderResult.parse(rendered(request.to_dict()))
    measured = {
        name: getattr(expected, name) for name in ("bytes", "seconds_by_phase", "cold_start", "reason", "usage")
    }
    assert replace(result, **measured) == expected
    assert await job.result(timeout_seconds=0) == result
    assert await job.status() == "succeeded"
    assert place.has_output(request)
    assert await place.leftovers() == []


async def test_submit_on_several_workers_makes_the_output(place: Place) -> None:
    request = place.request()
    call_id = await place.backend.submit("render_overlay", (request.to_dict(),), {}, workers=3)
    outcome = await place.backend.wait(call_id, 60)
    assert outcome is not None
    assert RenderResult.parse(outcome.value).output_key == request.output_key  # type: ignore[arg-type]
    assert place.has_output(request)


@pytest.mark.parametrize(
    ("source", "cause", "said"),
    [
        ("garbage.mp4", InvalidMediaError, "cannot be read as a video"),
        ("missing.mp4", ObjectNotFoundError, "object 'missing.mp4' not found"),
    ],
)
async def test_job_refused_input_raises_error_of_body(
    place: Place, source: str, cause: type[Exception], said: str
) -> None:
    request = place.request(source=source)
    job = await place.registry()["render_overlay"].submit(request)
    for _ in range(2):
        with pytest.raises(BadInputError, match=said) as caught:
            await job.result()
        assert type(caught.value.__cause__) is cause
        assert str(caught.value.__cause__) in caught.value.message
        assert (caught.value.function, caught.value.retryable) == ("render_overlay", False)
        assert job.id.endswith(str(caught.value.call_id))
    assert await job.status() == "failed"
    assert not place.has_output(request)
    assert await place.leftovers() == []


async def test_submit_unknown_function_is_named(place: Place) -> None:
    function: RemoteFunction[[dict[str, object]], object] = RemoteFunction("thumbnail", place.backend)
    with pytest.raises(NotDeployedError, match="thumbnail"):
        await function.submit({})
    with pytest.raises(NotDeployedError, match="thumbnail"):
        await function.hydrate()
    assert place.submissions() == 0


async def test_verify_every_function_of_registry_passes(place: Place) -> None:
    checks = await place.registry().verify()
    assert checks
    assert [check.error for check in checks] == [None] * len(checks)


def test_run_sync_without_event_loop_returns_result(place: Place) -> None:
    assert place.registry()["render_overlay"].call(place.request()).frames == 25


async def test_map_many_requests_keeps_order(place: Place) -> None:
    requests = [place.request(f"map-{index}") for index in range(3)]
    results = [result.job_id async for result in place.registry()["render_overlay"].map(requests, concurrency=2)]
    assert results == [request.job_id for request in requests]
    assert place.submissions() == 3


def test_job_awaited_in_other_event_loop_returns_result(place: Place) -> None:
    job = run_sync(place.registry()["render_overlay"].submit(place.request()))

    async def elsewhere() -> tuple[int, list[str]]:
        waiting = asyncio.ensure_future(job.result())
        events = await all_events(job)
        return (await waiting).frames, list(dict.fromkeys(event.phase for event in events))

    assert asyncio.run(elsewhere()) == (25, list(PHASES))


# Events.


async def test_events_phases_in_order_with_rising_numbers(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request())
    events = await all_events(job)
    assert list(dict.fromkeys(event.phase for event in events)) == list(PHASES)
    numbers = [(event.attempt, event.sequence) for event in events]
    assert all(before < after for before, after in pairwise(numbers))
    assert all(before.elapsed_seconds <= after.elapsed_seconds for before, after in pairwise(events))
    assert [event.phase for event in events].count("render") >= 2


async def test_events_late_listener_gets_all(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request())
    at_once = asyncio.ensure_future(all_events(job))
    await until(job, "render")
    in_between = asyncio.ensure_future(all_events(job))
    await job.result()
    afterwards = await all_events(job)
    assert await at_once == await in_between == afterwards
    assert afterwards


async def test_progress_never_decreases_and_ends_at_100(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request())
    updates = [update async for update in job.progress(interval_seconds=0.05)]
    percents = [update.percent for update in updates]
    assert percents == sorted(percents)
    assert (updates[-1].phase, percents[-1]) == ("complete", 100)
    assert await job.status() == "succeeded"


# Cancellation.


async def test_cancel_running_job_ends_it_and_leaves_nothing(place: Place) -> None:
    request = place.request(source="long.mp4")
    job = await place.registry()["render_overlay"].submit(request)
    await until(job, "render")
    assert await job.status() == "running"
    await job.cancel()
    for _ in range(2):
        with pytest.raises(JobCancelledError):
            await job.result(timeout_seconds=30)
    assert await job.status() == "cancelled"
    assert "publish" not in {event.phase for event in await all_events(job)}
    assert await place.leftovers() == []
    assert not place.has_output(request)
    await job.cancel()
    assert await job.status() == "cancelled"


async def test_cancel_immediately_leaves_no_trace(place: Place) -> None:
    request = place.request(source="long.mp4")
    job = await place.registry()["render_overlay"].submit(request)
    await job.cancel()
    with pytest.raises(JobCancelledError):
        await job.result(timeout_seconds=30)
    assert await job.status() == "cancelled"
    assert await place.leftovers() == []
    assert not place.has_output(request)


async def test_cancel_at_any_time_leaves_nothing(place: Place) -> None:
    render = place.registry()["render_overlay"]
    whole = place.request("whole", source="medium.mp4")
    started_at = time.monotonic()
    frames = (await render(whole)).frames
    seconds = time.monotonic() - started_at
    statuses: list[str] = []
    for point in range(POINTS):
        # Several jobs may end before they learn of it: on Modal, a container takes one cancellation a second.
        source = "long.mp4" if point == PHASES.index("render") else "medium.mp4"
        request = place.request(f"point-{point}", source=source)
        job = await render.submit(request)
        if point < len(PHASES):
            await until(job, PHASES[point])
        else:
            # Spread over the duration of a job, from the submission on.
            await asyncio.sleep(seconds * (point - len(PHASES)) / (POINTS - len(PHASES)))
        await job.cancel()
        if (status := await end_status(job)) == "succeeded":
            assert (await job.result()).frames == frames
            assert place.has_output(request)
        else:
            with pytest.raises(JobCancelledError):
                await job.result()
        statuses.append(status)
        assert await place.leftovers() == []
        # A job that is cancelled during publishing has either published or not.
        assert place.output_frames(request) in {None, frames}
    assert set(statuses) <= {"cancelled", "succeeded"}
    assert "cancelled" in statuses


async def test_cancel_ended_job_changes_nothing(place: Place) -> None:
    request = place.request()
    job = await place.registry()["render_overlay"].submit(request)
    result = await job.result()
    await job.cancel()
    assert await job.status() == "succeeded"
    assert await job.result() == result
    assert place.has_output(request)


async def test_result_timeout_does_not_cancel_job(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request(source="medium.mp4"))
    with pytest.raises(WaitTimeoutError, match="the job continues"):
        await job.result(timeout_seconds=0.01)
    assert (await job.result()).frames == 200


async def test_waiting_task_cancelled_cancels_job(place: Place) -> None:
    request = place.request(source="long.mp4")
    job = await place.registry()["render_overlay"].submit(request)
    waiting = asyncio.ensure_future(job.result())
    await asyncio.sleep(0)  # a task that is cancelled before it starts has not waited
    await until(job, "render")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(JobCancelledError):
        await job.result(timeout_seconds=30)
    assert await place.leftovers() == []
    assert not place.has_output(request)


async def test_waiting_task_cancelled_keeps_job_if_configured(place: Place) -> None:
    registry = place.registry(JobOptions(on_cancel="detach"))
    job = await registry["render_overlay"].submit(place.request(source="long.mp4"))
    waiting = asyncio.ensure_future(job.result())
    await asyncio.sleep(0)  # a task that is cancelled before it starts has not waited
    await until(job, "render")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await job.status() == "running"
    with pytest.raises(WaitTimeoutError):
        await job.result(timeout_seconds=0.1)
    await job.cancel()
    assert await place.leftovers() == []


# One job with several handles.


async def test_submit_same_request_twice_is_one_job(place: Place) -> None:
    request, render = place.request(), place.registry()["render_overlay"]
    first, second = await asyncio.gather(render.submit(request), render.submit(request))
    await first.result()
    third = await render.submit(request)
    assert first.id == second.id == third.id
    assert place.submissions() == 1


async def test_submit_other_request_with_same_id_conflicts(place: Place) -> None:
    request, render = place.request(), place.registry()["render_overlay"]
    await (await render.submit(request)).result()
    with pytest.raises(JobConflictError, match=request.job_id):
        await render.submit(replace(request, effect="brightness_boost"))
    assert place.submissions() == 1


async def test_submit_failed_job_again_is_allowed(place: Place) -> None:
    request, render = place.request(source="garbage.mp4"), place.registry()["render_overlay"]
    ids = set()
    for _ in range(2):
        job = await render.submit(request)
        ids.add(job.id)
        with pytest.raises(BadInputError):
            await job.result()
    assert len(ids) == place.submissions() == 2


async def test_attach_job_id_finds_job(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request())
    attached = place.registry().attach(job.id)
    assert await attached.result() == await job.result()
    assert await all_events(attached) == await all_events(job)
    assert await attached.status() == "succeeded"


async def test_attach_unknown_job_is_unknown_not_failed(place: Place) -> None:
    job = place.registry().attach(f"{place.backend.name}:render_overlay:fc-unknown")
    assert await job.status() == "unknown"
    for waiting in (job.result(), job.cancel()):
        with pytest.raises(JobNotFoundError, match="fc-unknown"):
            await asyncio.wait_for(waiting, 10)
