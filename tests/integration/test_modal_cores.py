"""Containers with more cores than encoder threads render several segments of an output at once."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.clips import made_clip
from tests.integration.modal_app import APP, Deployed, app, app_plane, deploy
from tests.jobs import overlay
from tests.processes import await_end, command, family

from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import JobCancelledError, JobPreemptedError
from reel_modal.functions.builtin import render_overlay
from reel_modal.functions.runner import run_job
from reel_modal.schema import OverlayRequest, RenderResult

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes"),
]

__all__ = ["app", "app_plane"]

SEGMENT_FRAMES = 80

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def two_cores(app_plane: Deployed) -> None:
    """Two cores are reserved for each container of render_overlay, and the clip of 40 s is in the store."""
    deploy(app_plane.plane, REEL_MODAL_RENDER_OVERLAY_CPU="2", REEL_MODAL_RENDER_OVERLAY_GPU="none")
    made_clip(app_plane.store / "in.mp4", fps=10, seconds=40, audio_seconds=40)


@pytest.fixture
def expected(app: Deployed, two_cores: None) -> Iterator[str]:
    """The SHA-256 of the output that one process makes, without others and without segments of a cancelled job."""
    shutil.rmtree(app.store / "users", ignore_errors=True)
    run_job(render_overlay, request().to_dict(), settings=app.settings, send=lambda _: None)
    yield taken(app)
    assert not list((app.store / "users/user/segments").glob("*"))


def request(preset: str = "slow") -> OverlayRequest:
    """Return the request of another job, with one encoder thread."""
    whole = overlay(f"job-{next(_numbers)}", preset=preset, output="out/whole.mp4")
    return replace(whole, encode=replace(whole.encode, threads=1))


def taken(app: Deployed) -> str:
    """Return the SHA-256 of the output, and remove it."""
    output: Path = app.store / "out/whole.mp4"
    made = hashlib.sha256(output.read_bytes()).hexdigest()
    output.unlink()
    return made


def processes_of(app: Deployed, function: str) -> list[set[int]]:
    """Return the worker processes of each container of a function."""
    containers = [container.pid for container in app.plane.containers(function)]
    return [{pid for pid in family(each) if "functions.worker" in command(pid)} for each in containers]


@pytest.mark.parametrize(
    ("workers", "function", "calls"), [(1, "render_overlay", 0), (2, "render_overlay_segments", 3)]
)
async def test_container_renders_one_segment_for_each_core(
    app: Deployed, expected: str, workers: int, function: str, calls: int
) -> None:
    backend = ModalBackend(APP)
    call_id = await backend.submit("render_overlay", (request().to_dict(),), {}, workers=workers)
    counts, most = [], 0
    async for event in backend.events(call_id):
        if event.phase == "render":
            counts.append(event.done)
            most = max([most, *map(len, processes_of(app, function))])
    outcome = await backend.wait(call_id, 60)
    assert outcome is not None
    result = RenderResult.parse(outcome.value)  # type: ignore[arg-type]
    assert taken(app) == expected
    assert most == 2
    assert (counts, counts[-1]) == (sorted(counts), 400)
    assert app.plane.count("FunctionMap", side="container") == calls
    assert result.usage is not None
    assert result.usage.dollars > 0


async def test_cancelled_call_ends_its_processes(app: Deployed, two_cores: None) -> None:
    backend = ModalBackend(APP)
    call_id = await backend.submit("render_overlay", (request("veryslow").to_dict(),), {})
    processes = await started(app, backend, call_id)
    await backend.cancel(call_id)
    with pytest.raises(JobCancelledError):
        await backend.wait(call_id, 60)
    await asyncio.to_thread(await_end, processes, 4)
    assert not (app.store / "out/whole.mp4").exists()


async def test_killed_container_loses_at_most_two_segments(app: Deployed, expected: str) -> None:
    backend = ModalBackend(APP)
    call_id = await backend.submit("render_overlay", (request().to_dict(),), {})
    processes = await started(app, backend, call_id, frames=200)
    await asyncio.to_thread(app.plane.kill_container, call_id)
    with pytest.raises(JobPreemptedError):
        await backend.wait(call_id, 60)
    await asyncio.to_thread(await_end, processes, 20)
    stored = SEGMENT_FRAMES * len(list((app.store / "users/user/segments").glob("*.json")))
    assert stored >= 200 - 2 * SEGMENT_FRAMES
    call_id = await backend.submit("render_overlay", (request().to_dict(),), {})
    counts = [event.done async for event in backend.events(call_id) if event.phase == "render" and event.done]
    assert await backend.wait(call_id, 60) is not None
    assert counts[0] >= stored
    assert taken(app) == expected


async def started(app: Deployed, backend: ModalBackend, call_id: str, frames: int = 1) -> set[int]:
    """Wait until a job has reported `frames` finished frames; return the processes of its container."""
    async for event in backend.events(call_id):
        if event.phase == "render" and event.done >= frames:
            break
    (processes,) = processes_of(app, "render_overlay")
    assert processes
    return {each for pid in processes for each in (pid, *family(pid))}
