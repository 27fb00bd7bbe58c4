"""Several worker processes on this machine render the segments of one output, and some of them are lost."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.clips import made_clip
from tests.integration.local_jobs import check_processes
from tests.jobs import overlay
from tests.processes import await_end, children, command, family

from reel_modal import OverlayRequest, RenderResult, Settings
from reel_modal.backends.local import LocalBackend
from reel_modal.errors import JobCancelledError, WorkerCrashedError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

__all__ = ["check_processes"]

_numbers = itertools.count(1)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store, with a clip of 40 s."""
    folder = tmp_path / "store"
    folder.mkdir()
    made_clip(folder / "in.mp4", fps=10, seconds=40, audio_seconds=40)
    return folder


@pytest.fixture
def backend(store: Path) -> LocalBackend:
    return LocalBackend(Settings(store_url=store.as_uri(), cpu=2))


def request(threads: int = 1, preset: str = "slow") -> OverlayRequest:
    """Return the request of another job."""
    whole = overlay(f"job-{next(_numbers)}", preset=preset, output="out/whole.mp4")
    return replace(whole, encode=replace(whole.encode, threads=threads))


def digest(store: Path) -> str:
    return hashlib.sha256((store / "out/whole.mp4").read_bytes()).hexdigest()


def left_over(store: Path) -> list[Path]:
    return list((store / "users/user/segments").glob("*"))


async def start(backend: LocalBackend, submitted: OverlayRequest, workers: int) -> str:
    return await backend.submit("render_overlay", (submitted.to_dict(),), {}, workers=workers)


async def result(backend: LocalBackend, call_id: str) -> RenderResult:
    while (outcome := await backend.wait(call_id, 60)) is None:
        pass
    return RenderResult.parse(outcome.value)  # type: ignore[arg-type]


async def until(backend: LocalBackend, call_id: str, frames: int) -> None:
    async for event in backend.events(call_id):
        if event.phase == "render" and event.done >= frames:
            return
    raise AssertionError(f"the job ended before frame {frames}")


def workers_of(coordinator: int) -> list[int]:
    """Return the processes that the worker process `coordinator` has started to render segments."""
    return [pid for pid in family(coordinator) if pid != coordinator and "backends.worker" in command(pid)]


def coordinator() -> int:
    (pid,) = (pid for pid in children() if "reel_modal.backends.worker" in command(pid))
    return pid


async def test_worker_processes_make_the_same_bytes(backend: LocalBackend, store: Path) -> None:
    await result(backend, await start(backend, request(), 1))
    expected = digest(store)
    (store / "out/whole.mp4").unlink()
    call_id = await start(backend, request(), 5)
    counts, seen = [], 0
    async for event in backend.events(call_id):
        if event.phase == "render":
            counts.append(event.done)
            seen = max(seen, len(workers_of(coordinator())))
    made = await result(backend, call_id)
    assert digest(store) == expected
    assert seen == 2  # as many as cores
    assert counts == sorted(counts)
    assert made.frames == counts[-1] == 400
    assert left_over(store) == []


async def test_encoder_threads_share_the_cores(backend: LocalBackend, store: Path) -> None:
    call_id = await start(backend, request(threads=2, preset="ultrafast"), 5)
    await until(backend, call_id, 1)
    assert workers_of(coordinator()) == []
    await result(backend, call_id)


async def test_killed_worker_process_is_replaced(backend: LocalBackend, store: Path) -> None:
    await result(backend, await start(backend, request(), 1))
    expected = digest(store)
    (store / "out/whole.mp4").unlink()
    call_id = await start(backend, request(), 2)
    await until(backend, call_id, 20)
    os.kill(workers_of(coordinator())[0], signal.SIGKILL)
    await result(backend, call_id)
    assert digest(store) == expected


async def test_cancelled_job_ends_its_worker_processes(backend: LocalBackend, store: Path) -> None:
    call_id = await start(backend, request(preset="veryslow"), 2)
    await until(backend, call_id, 10)
    processes = family(coordinator())
    await backend.cancel(call_id)
    with pytest.raises(JobCancelledError):
        await result(backend, call_id)
    await asyncio.to_thread(await_end, processes, 2)
    assert not (store / "out/whole.mp4").exists()


async def test_killed_coordinator_takes_its_worker_processes_along(backend: LocalBackend, store: Path) -> None:
    call_id = await start(backend, request(preset="veryslow"), 2)
    await until(backend, call_id, 10)
    processes = family(coordinator())
    os.kill(coordinator(), signal.SIGKILL)
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        await result(backend, call_id)
    await asyncio.to_thread(await_end, processes, 20)
    assert not (store / "out/whole.mp4").exists()
