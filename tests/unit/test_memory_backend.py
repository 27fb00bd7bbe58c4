"""The in-memory backend for host tests: it follows its scripts and the contract of every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.jobs import event, overlay, rendered

from reel_modal import FunctionRegistry, Settings
from reel_modal.errors import (
    BadInputError,
    FunctionError,
    InvalidMediaError,
    JobCancelledError,
    JobNotFoundError,
    JobPreemptedError,
    NotDeployedError,
    UnavailableError,
    WaitTimeoutError,
)
from reel_modal.functions.catalog import all_functions
from reel_modal.progress import TimingHistory
from reel_modal.testing import InMemoryBackend, ManualClock, Script


async def run(backend: InMemoryBackend, function: str = "f") -> object:
    outcome = await backend.wait(await backend.submit(function, (), {}), 10)
    assert outcome is not None
    return outcome.value


async def test_in_memory_scripts_run_in_order_and_the_last_repeats() -> None:
    backend = InMemoryBackend()
    backend.script("f", Script("one"), Script("two"))
    assert [await run(backend) for _ in range(3)] == ["one", "two", "two"]


async def test_in_memory_result_may_depend_on_arguments() -> None:
    backend = InMemoryBackend()
    backend.script("f", Script(lambda x, *, y: x + y))
    outcome = await backend.wait(await backend.submit("f", (1,), {"y": 2}), 10)
    assert outcome is not None
    assert outcome.value == 3
    (submitted,) = backend.submitted
    assert (submitted.function, submitted.args, submitted.kwargs) == ("f", (1,), {"y": 2})


async def test_in_memory_submitted_has_number_of_workers() -> None:
    backend = InMemoryBackend()
    backend.script("f", Script())
    for workers in (1, 4):
        await backend.submit("f", (), {}, workers=workers)
    await backend.submit("f", (), {})
    assert [submitted.workers for submitted in backend.submitted] == [1, 4, 1]


@pytest.mark.parametrize(
    ("raised", "ours"),
    [
        (InvalidMediaError("it is no video"), BadInputError),
        (ZeroDivisionError(), FunctionError),
        (JobPreemptedError("taken", function="f"), JobPreemptedError),
    ],
)
async def test_in_memory_errors_are_mapped_as_by_real_backends(raised: Exception, ours: type[Exception]) -> None:
    def refuse() -> object:
        raise raised

    backend = InMemoryBackend()
    for script in (Script(error=raised), Script(refuse)):
        backend.script("f", script)
        with pytest.raises(ours) as caught:
            await run(backend)
        assert caught.value.__cause__ is raised


async def test_in_memory_script_follows_its_times() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    backend.script("f", Script("done", queue_seconds=5, seconds=10, events=[event(1), event(2, at=4)]))
    call_id = await backend.submit("f", (), {})
    counted: list[tuple[int, bool]] = []
    for _ in range(5):
        counted.append((await backend.event_count(call_id), await backend.wait(call_id, 0) is not None))
        await clock.advance(4)
    assert counted == [(0, False), (0, False), (1, False), (2, False), (2, True)]


async def test_in_memory_wait_timeout_uses_the_backends_clock() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    backend.script("f", Script(seconds=10))
    waiting = asyncio.ensure_future(backend.wait(await backend.submit("f", (), {}), 3))
    await clock.advance(2.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert await waiting is None


async def test_in_memory_late_listener_gets_all_events() -> None:
    backend = InMemoryBackend()
    events = [event(1, "fetch"), event(2, "render")]
    backend.script("f", Script(events=events))
    call_id = await backend.submit("f", (), {})
    assert [received async for received in backend.events(call_id)] == events
    assert [received async for received in backend.events(call_id)] == events


async def test_in_memory_cancelled_script_ends_immediately() -> None:
    backend = InMemoryBackend()
    backend.script("f", Script(seconds=600))
    call_id = await backend.submit("f", (), {})
    await backend.cancel(call_id)
    with pytest.raises(JobCancelledError):
        await backend.wait(call_id, 10)
    await backend.cancel(call_id)
    assert backend.cancelled == [call_id]
    assert [received async for received in backend.events(call_id)] == []


async def test_in_memory_cancel_after_end_changes_nothing() -> None:
    backend = InMemoryBackend()
    backend.script("f", Script("done"))
    call_id = await backend.submit("f", (), {})
    assert await backend.wait(call_id, 10)
    await backend.cancel(call_id)
    outcome = await backend.wait(call_id, 10)
    assert outcome is not None
    assert outcome.value == "done"
    assert backend.cancelled == []


async def test_in_memory_outage_ends_after_given_requests() -> None:
    backend = InMemoryBackend()
    backend.register(all_functions(env={}))
    call_id = await backend.submit("render_overlay", (), {})
    backend.fail_next_requests(3)
    for request in (backend.hydrate("render_overlay"), backend.wait(call_id, 0), backend.cancel(call_id)):
        with pytest.raises(UnavailableError):
            await request
    await backend.hydrate("render_overlay")


async def test_in_memory_unknown_job_or_function_is_named() -> None:
    backend = InMemoryBackend()
    with pytest.raises(JobNotFoundError, match="call-7"):
        await backend.wait("call-7", 0)
    with pytest.raises(NotDeployedError, match="thumbnail"):
        await backend.hydrate("thumbnail")
    backend.script("thumbnail", Script())
    await backend.hydrate("thumbnail")


async def test_in_memory_close_cancels_running_jobs() -> None:
    backend = InMemoryBackend()
    backend.script("f", Script("done"), Script(seconds=600))
    ended, playing = [await backend.submit("f", (), {}) for _ in range(2)]
    assert await backend.wait(ended, 10)
    await backend.close()
    assert backend.cancelled == [playing]


async def test_in_memory_registry_returns_the_scripted_result() -> None:
    backend = InMemoryBackend()

    def render(request: Mapping[str, object]) -> dict[str, object]:
        return rendered(request, frames=7)

    backend.script("render_overlay", Script(render, events=[event(1)]))
    async with FunctionRegistry(Settings(), backend=backend) as registry:
        job = await registry["render_overlay"].submit(overlay("mine"))
        result = await job.result()
        assert (result.job_id, result.frames, await job.status()) == ("mine", 7, "succeeded")
        assert job.id == "memory:render_overlay:call-1"


async def test_registry_without_clock_uses_the_backends_clock() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    backend.script("render_overlay", Script(rendered, seconds=600))
    registry = FunctionRegistry(Settings(), backend=backend)
    job = await registry["render_overlay"].submit(overlay())
    waiting = asyncio.ensure_future(job.result(timeout_seconds=300))
    await clock.advance(299)
    assert not waiting.done()
    await clock.advance(1)
    assert waiting.done()
    with pytest.raises(WaitTimeoutError, match="within 300 s"):
        await waiting


async def test_manual_clock_advance_waits_for_the_submission(tmp_path: Path) -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    backend.script("render_overlay", Script(rendered, seconds=600))
    settings = Settings(store_url=tmp_path.as_uri())  # so that the job is checked in a thread
    registry = FunctionRegistry(settings, backend=backend, history=TimingHistory(tmp_path / "timings"))
    calling = asyncio.ensure_future(registry["render_overlay"](overlay()))
    await clock.advance(600)
    assert calling.done()
    assert (await calling).frames == 25
