"""Job ids in use: the last ones are remembered, and a forgotten submission cannot free the id of a newer one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from tests.jobs import overlay

from reel_modal import FunctionRegistry, RemoteFunction, RenderResult, Settings
from reel_modal.backends.base import CallResult
from reel_modal.errors import JobNotFoundError, UnavailableError
from reel_modal.functions.resources import Resources
from reel_modal.testing import InMemoryBackend


def overlays(backend: InMemoryBackend) -> RemoteFunction[..., RenderResult]:
    return FunctionRegistry(Settings(), backend=backend)["render_overlay"]


async def test_submit_remembers_the_jobs_submitted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reel_modal._jobs.remote_function._MOST_REMEMBERED", 2)
    backend = InMemoryBackend()
    render = overlays(backend)
    ids = [(await render.submit(overlay(name))).id for name in ("a", "b", "a", "c", "a", "b")]
    assert ids == [f"memory:render_overlay:call-{number}" for number in (1, 2, 1, 3, 1, 4)]


async def test_submit_forgotten_and_failed_keeps_the_new_job_of_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reel_modal._jobs.remote_function._MOST_REMEMBERED", 1)
    started, released = asyncio.Event(), asyncio.Event()

    class FirstFails(InMemoryBackend):
        async def submit(
            self,
            function: str,
            args: tuple[object, ...],
            kwargs: Mapping[str, object],
            *,
            workers: int = 1,
            resources: Resources | None = None,
        ) -> str:
            if not started.is_set():
                started.set()
                await released.wait()
                raise UnavailableError("down", function=function)
            return await super().submit(function, args, kwargs, workers=workers, resources=resources)

    backend = FirstFails()
    render = overlays(backend)
    failing = asyncio.ensure_future(render.submit(overlay("same")))
    await started.wait()
    await render.submit(overlay("another"))  # forgets the first
    request = overlay("same", source="other.mp4")
    job = await render.submit(request)
    released.set()
    with pytest.raises(UnavailableError):
        await failing
    assert (await render.submit(request)).id == job.id
    assert len(backend.submitted) == 2


async def test_submit_job_that_backend_no_longer_knows_starts_another() -> None:
    class Forgetful(InMemoryBackend):
        async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:
            del timeout_seconds
            raise JobNotFoundError("ended long ago", function="memory", call_id=call_id)

    render = overlays(Forgetful())
    first = await render.submit(overlay("same"))
    assert await first.status() == "unknown"
    assert (await render.submit(overlay("same"))).id != first.id


async def test_submit_while_backend_is_down_keeps_the_job() -> None:
    backend = InMemoryBackend()
    render = overlays(backend)
    first = await render.submit(overlay("same"))
    backend.fail_next_requests(1)
    assert (await render.submit(overlay("same"))).id == first.id


async def test_submit_forgotten_job_id_starts_another_job() -> None:
    render = overlays(InMemoryBackend())
    first = await render.submit(overlay("same"))
    assert (await render.submit(overlay("same"))).id == first.id
    render.forget("same")
    render.forget("never submitted")
    assert (await render.submit(overlay("same"))).id != first.id
