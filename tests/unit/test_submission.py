"""Submitting the same request twice, and cancelling a submission."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import pytest
from tests.jobs import overlay, rendered
from tests.unit.registries import NEVER, host, settle

from reel_modal import JobOptions
from reel_modal.errors import JobConflictError, UnavailableError
from reel_modal.functions.resources import Resources
from reel_modal.testing import InMemoryBackend, Script


async def test_submit_same_request_concurrently_starts_one_job() -> None:
    backend = InMemoryBackend()
    render = host(backend, Script(rendered, seconds=0.01))["render_overlay"]
    jobs = await asyncio.gather(*(render.submit(overlay("same")) for _ in range(20)))
    assert {job.id for job in jobs} == {"memory:render_overlay:call-1"}
    await jobs[0].result()
    assert (await render.submit(overlay("same"))).id == jobs[0].id
    assert len(backend.submitted) == 1


async def test_submit_new_jobs_request_no_status() -> None:
    backend = InMemoryBackend()
    render = host(backend)["render_overlay"]

    async def refuse(call_id: str, timeout_seconds: float) -> None:
        raise AssertionError("the first submission of a job has no status to ask for")

    backend.wait = refuse  # type: ignore[method-assign,assignment]
    await asyncio.gather(*(render.submit(overlay(f"job-{index}")) for index in range(3)))


async def test_submit_other_request_with_same_id_is_refused() -> None:
    backend = InMemoryBackend()
    render = host(backend)["render_overlay"]
    await render.submit(overlay("same"))
    with pytest.raises(JobConflictError, match="'same'"):
        await render.submit(overlay("same", source="other.mp4"))
    await render.submit(overlay("another", source="other.mp4"))
    assert len(backend.submitted) == 2


async def test_submit_after_failure_starts_one_new_job() -> None:
    backend = InMemoryBackend()
    render = host(backend, Script(error=RuntimeError("crash")), Script(rendered, seconds=0.01))["render_overlay"]
    failed = await render.submit(overlay("again"))
    with pytest.raises(Exception, match="crash"):
        await failed.result()
    jobs = await asyncio.gather(*(render.submit(overlay("again")) for _ in range(10)))
    assert {job.id for job in jobs} == {"memory:render_overlay:call-2"}
    assert len(backend.submitted) == 2


async def test_submit_after_cancellation_starts_a_new_job() -> None:
    backend = InMemoryBackend()
    render = host(backend, Script(seconds=NEVER), Script(rendered))["render_overlay"]
    await (await render.submit(overlay())).cancel()
    assert (await render(overlay())).frames == 25


async def test_submit_again_while_unavailable_returns_the_same_job() -> None:
    backend = InMemoryBackend()
    render = host(backend, Script(rendered))["render_overlay"]
    first = await render.submit(overlay())
    backend.fail_next_requests(1)
    assert (await render.submit(overlay())).id == first.id


async def test_submit_that_never_started_leaves_its_id_free() -> None:
    backend = InMemoryBackend()
    render = host(backend)["render_overlay"]
    backend.fail_next_requests(1)
    with pytest.raises(UnavailableError):
        await render.submit(overlay("free"))
    await render.submit(overlay("free", source="mended.mp4"))


class SlowToStart(InMemoryBackend):
    """Accepts a submission and responds when the test sets `answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = asyncio.Event()
        self.answer = asyncio.Event()

    async def submit(
        self,
        function: str,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        workers: int = 1,
        resources: Resources | None = None,
    ) -> str:
        call_id = await super().submit(function, args, kwargs, workers=workers, resources=resources)
        self.taken.set()
        await self.answer.wait()
        return call_id


async def test_submit_cancelled_leaves_no_job() -> None:
    backend = SlowToStart()
    submitting = asyncio.ensure_future(host(backend, Script(seconds=NEVER))["render_overlay"].submit(overlay()))
    await backend.taken.wait()
    submitting.cancel()
    await settle()
    backend.answer.set()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert backend.cancelled == ["call-1"]


async def test_submit_cancelled_twice_leaves_no_job() -> None:
    backend = SlowToStart()
    submitting = asyncio.ensure_future(host(backend, Script(seconds=NEVER))["render_overlay"].submit(overlay()))
    await backend.taken.wait()
    for _ in range(2):
        submitting.cancel()
        await settle()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    backend.answer.set()
    await settle()
    assert backend.cancelled == ["call-1"]


async def test_submit_cancelled_while_backend_is_down_stays_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = SlowToStart()
    submitting = asyncio.ensure_future(host(backend, Script(seconds=NEVER))["render_overlay"].submit(overlay()))
    await backend.taken.wait()
    submitting.cancel()
    await settle()
    backend.fail_next_requests(1)
    backend.answer.set()
    with caplog.at_level(logging.WARNING, "reel_modal"), pytest.raises(asyncio.CancelledError):
        await submitting
    assert "an unfinished submission of render_overlay may have started failed" in caplog.text


async def test_submit_cancelled_keeps_the_concurrent_submission() -> None:
    backend = SlowToStart()
    render = host(backend, Script(rendered, seconds=0.01))["render_overlay"]
    first, second = [asyncio.ensure_future(render.submit(overlay())) for _ in range(2)]
    await backend.taken.wait()
    first.cancel()
    await settle()
    backend.answer.set()
    assert (await (await second).result()).frames == 25
    assert backend.cancelled == ["call-1"]
    assert len(backend.submitted) == 2


async def test_submit_detached_continues_and_is_reused() -> None:
    backend = SlowToStart()
    render = host(backend, Script(rendered), options=JobOptions(on_cancel="detach"))["render_overlay"]
    submitting = asyncio.ensure_future(render.submit(overlay()))
    await backend.taken.wait()
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    backend.answer.set()
    assert (await render.submit(overlay())).id == "memory:render_overlay:call-1"
    assert backend.cancelled == []
    assert len(backend.submitted) == 1
