"""Types of the registry, its functions and their jobs, checked by pyright and mypy; never run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

from reel_modal import (
    FramingRequest,
    FunctionRegistry,
    Job,
    OverlayRequest,
    Parallel,
    ProgressEvent,
    ProgressUpdate,
    RemoteFunction,
    RenderResult,
    Settings,
    UpscaleRequest,
    run_sync,
)
from reel_modal.backends.base import Backend, JobStatus
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.modal import ModalBackend
from reel_modal.client import Check
from reel_modal.functions.builtin import apply_upscale, process_framing, render_overlay
from reel_modal.functions.context import JobContext
from reel_modal.functions.declaration import RenderFunction, render_function
from reel_modal.schema.requests import Request
from reel_modal.schema.results import Result
from reel_modal.testing import InMemoryBackend


async def the_registry(request: OverlayRequest) -> None:
    registry = FunctionRegistry.from_env()
    render = registry[render_overlay]
    assert_type(render, RemoteFunction[[OverlayRequest], RenderResult])
    assert_type(await render(request), RenderResult)
    assert_type(render.call(request), RenderResult)
    job = await render.submit(request)
    assert_type(job, Job[RenderResult])
    assert_type(await job.result(timeout_seconds=1), RenderResult)
    assert_type(await job.status(), JobStatus)
    async for event in job.events():
        assert_type(event, ProgressEvent)
    async for update in job.progress():
        assert_type(update, ProgressUpdate)
    async for result in render.map([request], concurrency=2, ordered=False):
        assert_type(result, RenderResult)
    assert_type(registry.attach(job.id), Job[Result])
    assert_type(registry.attach(job.id, request), Job[RenderResult])
    assert_type(await registry.submit(request), Job[RenderResult])
    assert_type(await registry.run(request), RenderResult)
    assert_type(await registry.submit(request, parallel=Parallel(max_workers=4)), Job[RenderResult])
    parallel = render.with_options(parallel=Parallel(deadline_seconds=60, max_usd=1))
    assert_type(parallel, RemoteFunction[[OverlayRequest], RenderResult])
    assert_type(registry[OverlayRequest], RemoteFunction[[Request[RenderResult]], RenderResult])
    assert_type(registry["render_overlay"], RemoteFunction[..., Result])
    assert_type(await registry.verify(), list[Check])
    assert_type(run_sync(render.submit(request)), Job[RenderResult])
    assert_type(render.with_options(on_cancel="detach"), RemoteFunction[[OverlayRequest], RenderResult])
    for name in registry:
        assert_type(name, str)
        assert_type(await registry[name](request), Result)


def thumbnail(url: str, width_px: int = 320) -> bytes:
    """Stand-in for a function of another app."""
    raise NotImplementedError


async def any_function() -> None:
    remote = RemoteFunction.from_modal("media-tools", "thumbnail", thumbnail)
    assert_type(await remote("https://example.org/a.mp4"), bytes)
    assert_type(await remote("https://example.org/a.mp4", width_px=64), bytes)
    assert_type(await remote.submit(url="https://example.org/a.mp4"), Job[bytes])
    assert_type(remote.call("https://example.org/a.mp4", 64), bytes)
    async for picture in remote.map(["https://example.org/a.mp4"]):
        assert_type(picture, bytes)


@dataclass(frozen=True)
class Clip:
    """Request of a function of a host."""

    job_id: str
    input_key: str
    output_key: str


@dataclass(frozen=True)
class Poster:
    """Result of a function of a host."""

    width_px: int


@render_function(name="make_poster", request=Clip, result=Poster, cpu=1, memory_mb=1024, timeout_seconds=60)
def make_poster(request: Clip, context: JobContext) -> Poster:
    """Stand-in for a function of a host."""
    raise NotImplementedError


async def function_of_the_host(clip: Clip, overlay: OverlayRequest, context: JobContext) -> None:
    assert_type(make_poster, RenderFunction[Clip, Poster])
    assert_type(make_poster(clip, context), Poster)
    registry = FunctionRegistry(functions=[make_poster])
    assert_type(await registry[make_poster](clip), Poster)
    assert_type(await registry[make_poster].submit(clip), Job[Poster])
    await registry[make_poster](overlay)  # pyright: ignore[reportArgumentType]


def backends() -> None:
    every: list[Backend] = [InMemoryBackend(), LocalBackend(), ModalBackend("app")]
    for backend in every:
        FunctionRegistry(Settings(), backend=backend)


async def every_function(overlay: OverlayRequest, framing: FramingRequest) -> None:
    registry = FunctionRegistry.from_env()
    assert_type(registry[process_framing], RemoteFunction[[FramingRequest], RenderResult])
    assert_type(await registry[process_framing](framing), RenderResult)
    await registry[process_framing](overlay)  # pyright: ignore[reportArgumentType]
    assert_type(registry[apply_upscale], RemoteFunction[[UpscaleRequest], RenderResult])
    await registry[apply_upscale](framing)  # pyright: ignore[reportArgumentType]


async def wrong(request: OverlayRequest) -> None:
    registry = FunctionRegistry.from_env()
    render = registry[render_overlay]
    await render("in.mp4")  # pyright: ignore[reportArgumentType]
    await render()  # pyright: ignore[reportCallIssue]
    await render(request, request)  # pyright: ignore[reportCallIssue]
    await render.submit({"job_id": "j"})  # pyright: ignore[reportArgumentType]
    render.call(request, timeout=3)  # pyright: ignore[reportCallIssue]
    render.map([1, 2])  # pyright: ignore[reportArgumentType]
    render.with_options(on_cancel="ignore")  # pyright: ignore[reportArgumentType]
    render.with_options(parallel=4)  # pyright: ignore[reportArgumentType]
    registry.attach(3)  # pyright: ignore[reportArgumentType]
    wanted: Job[bytes] = await render.submit(request)  # pyright: ignore[reportAssignmentType]
    del wanted
    remote = RemoteFunction.from_modal("media-tools", "thumbnail", thumbnail)
    await remote(3)  # pyright: ignore[reportArgumentType]
    await remote("a", height_px=3)  # pyright: ignore[reportCallIssue]
    remote.map([b"a"])  # pyright: ignore[reportArgumentType]
    FunctionRegistry(Settings(), backend="modal")  # pyright: ignore[reportArgumentType]
