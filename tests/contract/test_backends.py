"""What every backend promises, tested in one way: a host sees no difference between them."""

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

POINTS = 20


async def until(job: Job[R], phase: str) -> None:
    """Return when the job reports `phase`."""
    async for event in job.events():
        if event.phase == phase:
            return
    raise AssertionError(f"the job has ended without {phase}")


async def ended(job: Job[R]) -> JobStatus:
    """Return how the job has ended, once it has; whoever cancels a job on Modal has asked for that, no more."""
    with suppress(RemoteError):
        await job.result(timeout=30)
    return await job.status()


async def all_events(job: Job[R]) -> list[ProgressEvent]:
    return [event async for event in job.events()]


# Results and errors.


async def test_a_job_gives_its_result(place: Place) -> None:
    request = place.request()
    job = await place.registry()["render_overlay"].submit(request)
    result = await job.result()
    assert set(result.seconds_by_phase) == set(PHASES)
    assert result.bytes > 0
    expected = RenderResult.parse(rendered(request.to_dict()))
    told = {name: getattr(expected, name) for name in ("bytes", "seconds_by_phase", "cold_start", "reason", "usage")}
    assert replace(result, **told) == expected
    assert await job.result(timeout=0) == result
    assert await job.status() == "succeeded"
    assert place.has_output(request)
    assert await place.left() == []


@pytest.mark.parametrize(
    ("source", "cause", "said"),
    [
        ("garbage.mp4", InvalidMediaError, "cannot be read as a video"),
        ("missing.mp4", ObjectNotFoundError, "there is no object under 'missing.mp4'"),
    ],
)
async def test_a_refused_input_comes_back_as_what_the_body_raised(
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
    assert await place.left() == []


async def test_a_function_that_is_not_there_is_named(place: Place) -> None:
    function: RemoteFunction[[dict[str, object]], object] = RemoteFunction("thumbnail", place.backend)
    with pytest.raises(NotDeployedError, match="thumbnail"):
        await function.submit({})
    with pytest.raises(NotDeployedError, match="thumbnail"):
        await function.hydrate()
    assert place.submissions() == 0


async def test_every_function_of_the_registry_is_there(place: Place) -> None:
    checks = await place.registry().verify()
    assert checks
    assert [check.error for check in checks] == [None] * len(checks)


def test_a_host_without_an_event_loop_calls_it(place: Place) -> None:
    assert place.registry()["render_overlay"].call(place.request()).frames == 25


async def test_many_at_once_keep_their_order(place: Place) -> None:
    requests = [place.request(f"map-{index}") for index in range(3)]
    results = [result.job_id async for result in place.registry()["render_overlay"].map(requests, concurrency=2)]
    assert results == [request.job_id for request in requests]
    assert place.submissions() == 3


def test_a_job_of_one_loop_is_awaited_in_another(place: Place) -> None:
    job = run_sync(place.registry()["render_overlay"].submit(place.request()))

    async def elsewhere() -> tuple[int, list[str]]:
        waiting = asyncio.ensure_future(job.result())
        events = await all_events(job)
        return (await waiting).frames, list(dict.fromkeys(event.phase for event in events))

    assert asyncio.run(elsewhere()) == (25, list(PHASES))


# Events.


async def test_events_tell_the_phases_in_order_and_are_numbered_upwards(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request())
    events = await all_events(job)
    assert list(dict.fromkeys(event.phase for event in events)) == list(PHASES)
    numbers = [(event.attempt, event.sequence) for event in events]
    assert all(before < after for before, after in pairwise(numbers))
    assert all(before.elapsed_seconds <= after.elapsed_seconds for before, after in pairwise(events))
    assert [event.phase for event in events].count("render") >= 2


async def test_who_listens_late_hears_everything(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request())
    at_once = asyncio.ensure_future(all_events(job))
    await until(job, "render")
    in_between = asyncio.ensure_future(all_events(job))
    await job.result()
    afterwards = await all_events(job)
    assert await at_once == await in_between == afterwards
    assert afterwards


async def test_progress_never_goes_back_and_ends_at_a_hundred(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request())
    updates = [update async for update in job.progress(interval_seconds=0.05)]
    percents = [update.percent for update in updates]
    assert percents == sorted(percents)
    assert (updates[-1].phase, percents[-1]) == ("complete", 100)
    assert await job.status() == "succeeded"


# The end before the end.


async def test_a_cancelled_job_ends_and_leaves_nothing(place: Place) -> None:
    request = place.request(source="long.mp4")
    job = await place.registry()["render_overlay"].submit(request)
    await until(job, "render")
    assert await job.status() == "running"
    await job.cancel()
    for _ in range(2):
        with pytest.raises(JobCancelledError):
            await job.result(timeout=30)
    assert await job.status() == "cancelled"
    assert "publish" not in {event.phase for event in await all_events(job)}
    assert await place.left() == []
    assert not place.has_output(request)
    await job.cancel()
    assert await job.status() == "cancelled"


async def test_a_job_that_is_cancelled_at_once_never_shows(place: Place) -> None:
    request = place.request(source="long.mp4")
    job = await place.registry()["render_overlay"].submit(request)
    await job.cancel()
    with pytest.raises(JobCancelledError):
        await job.result(timeout=30)
    assert await job.status() == "cancelled"
    assert await place.left() == []
    assert not place.has_output(request)


async def test_cancelling_at_any_point_of_its_life_leaves_nothing(place: Place) -> None:
    render = place.registry()["render_overlay"]
    whole = place.request("whole", source="medium.mp4")
    begun = time.monotonic()
    frames = (await render(whole)).frames
    seconds = time.monotonic() - begun
    found: list[str] = []
    for point in range(POINTS):
        # Others may end before they are heard of: on Modal, a container hears of one cancellation a second.
        source = "long.mp4" if point == PHASES.index("render") else "medium.mp4"
        request = place.request(f"point-{point}", source=source)
        job = await render.submit(request)
        if point < len(PHASES):
            await until(job, PHASES[point])
        else:
            # Spread over the life of a job, from its very first moment on.
            await asyncio.sleep(seconds * (point - len(PHASES)) / (POINTS - len(PHASES)))
        await job.cancel()
        if (status := await ended(job)) == "succeeded":
            assert (await job.result()).frames == frames
            assert place.has_output(request)
        else:
            with pytest.raises(JobCancelledError):
                await job.result()
        found.append(status)
        assert await place.left() == []
        # Who is cancelled while he publishes has published, or not.
        assert place.output_frames(request) in {None, frames}
    assert set(found) <= {"cancelled", "succeeded"}
    assert "cancelled" in found


async def test_cancelling_a_job_that_has_ended_changes_nothing(place: Place) -> None:
    request = place.request()
    job = await place.registry()["render_overlay"].submit(request)
    result = await job.result()
    await job.cancel()
    assert await job.status() == "succeeded"
    assert await job.result() == result
    assert place.has_output(request)


async def test_a_wait_that_ends_leaves_the_job_alone(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request())
    with pytest.raises(WaitTimeoutError, match="the job goes on"):
        await job.result(timeout=0.01)
    assert (await job.result()).frames == 25


async def test_cancelling_the_task_that_waits_cancels_the_job(place: Place) -> None:
    request = place.request(source="long.mp4")
    job = await place.registry()["render_overlay"].submit(request)
    waiting = asyncio.ensure_future(job.result())
    await asyncio.sleep(0)  # a task that is cancelled before it began has not waited
    await until(job, "render")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(JobCancelledError):
        await job.result(timeout=30)
    assert await place.left() == []
    assert not place.has_output(request)


async def test_cancelling_the_task_that_waits_may_leave_the_job_alone(place: Place) -> None:
    registry = place.registry(JobOptions(on_cancel="detach"))
    job = await registry["render_overlay"].submit(place.request(source="long.mp4"))
    waiting = asyncio.ensure_future(job.result())
    await asyncio.sleep(0)  # a task that is cancelled before it began has not waited
    await until(job, "render")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await job.status() == "running"
    with pytest.raises(WaitTimeoutError):
        await job.result(timeout=0.1)
    await job.cancel()
    assert await place.left() == []


# One job, found from several sides.


async def test_the_same_request_twice_is_one_job(place: Place) -> None:
    request, render = place.request(), place.registry()["render_overlay"]
    first, second = await asyncio.gather(render.submit(request), render.submit(request))
    await first.result()
    third = await render.submit(request)
    assert first.id == second.id == third.id
    assert place.submissions() == 1


async def test_another_request_under_the_same_id_is_a_conflict(place: Place) -> None:
    request, render = place.request(), place.registry()["render_overlay"]
    await (await render.submit(request)).result()
    with pytest.raises(JobConflictError, match=request.job_id):
        await render.submit(replace(request, effect="brightness_boost"))
    assert place.submissions() == 1


async def test_a_job_that_failed_may_be_submitted_again(place: Place) -> None:
    request, render = place.request(source="garbage.mp4"), place.registry()["render_overlay"]
    ids = set()
    for _ in range(2):
        job = await render.submit(request)
        ids.add(job.id)
        with pytest.raises(BadInputError):
            await job.result()
    assert len(ids) == place.submissions() == 2


async def test_a_job_is_found_again_by_its_id(place: Place) -> None:
    job = await place.registry()["render_overlay"].submit(place.request())
    found = place.registry().attach(job.id)
    assert await found.result() == await job.result()
    assert await all_events(found) == await all_events(job)
    assert await found.status() == "succeeded"


async def test_a_job_that_nobody_knows_is_unknown_and_no_failure(place: Place) -> None:
    job = place.registry().attach(f"{place.backend.name}:render_overlay:fc-unknown")
    assert await job.status() == "unknown"
    for asked in (job.result(), job.cancel()):
        with pytest.raises(JobNotFoundError, match="fc-unknown"):
            await asyncio.wait_for(asked, 10)
