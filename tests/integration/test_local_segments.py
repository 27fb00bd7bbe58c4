"""Several worker processes on this machine render the segments of one output, and some of them are lost."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import shutil
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
from reel_modal.functions.builtin import render_overlay
from reel_modal.functions.runner import run_job

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

__all__ = ["check_processes"]

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of all tests: the tags of an output depend on the version of the clip in the store."""
    folder = tmp_path_factory.mktemp("store")
    made_clip(folder / "in.mp4", fps=10, seconds=40, audio_seconds=40)
    return folder


@pytest.fixture
def store(folder: Path) -> Path:
    """The store, with a clip of 40 s and without outputs of other tests."""
    for name in ("out", "users"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


@pytest.fixture
def backend(store: Path) -> LocalBackend:
    """A backend that runs one job at once, for which two cores are reserved."""
    return LocalBackend(Settings(store_url=store.as_uri(), cpu=2), max_workers=1)


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
    """Return the processes that the worker process `coordinator` has started to render segments.

    Only its children: between its fork and its start, an ffmpeg of a child has the child's command line.
    """
    return [pid for pid in children(coordinator) if "functions.worker" in command(pid)]


def coordinator() -> int:
    (pid,) = (pid for pid in children() if "reel_modal.functions.worker" in command(pid))
    return pid


@pytest.fixture(scope="module")
def expected(folder: Path) -> str:
    """The SHA-256 of the output that one process makes."""
    settings = Settings(store_url=folder.as_uri())
    run_job(render_overlay, request().to_dict(), settings=settings, send=lambda _: None)
    return digest(folder)


async def most_at_once(backend: LocalBackend, call_id: str) -> tuple[int, list[int]]:
    """Return the largest number of worker processes of a job at once, and the numbers of finished frames."""
    counts, seen = [], 0
    async for event in backend.events(call_id):
        if event.phase == "render":
            counts.append(event.done)
            seen = max(seen, len(workers_of(coordinator())))
    return seen, counts


async def test_reserved_cores_render_several_segments_at_once(
    backend: LocalBackend, store: Path, expected: str
) -> None:
    call_id = await start(backend, request(), 1)
    seen, counts = await most_at_once(backend, call_id)
    made = await result(backend, call_id)
    assert digest(store) == expected
    assert seen == 2  # one for each core
    assert counts == sorted(counts)
    assert made.frames == counts[-1] == 400
    assert left_over(store) == []
    assert made.usage is not None
    # The receipt has the time of the machine, and the bytes of all processes.
    assert made.usage.seconds < 1.1 * sum(made.seconds_by_phase.values()) + 1
    assert made.usage.bytes_in > 2 * (store / "in.mp4").stat().st_size


async def test_requested_workers_are_limited_by_cores(store: Path, expected: str) -> None:
    backend = LocalBackend(Settings(store_url=store.as_uri(), cpu=2), max_workers=2)
    call_id = await start(backend, request(), 5)
    assert (await most_at_once(backend, call_id))[0] == 2
    await result(backend, call_id)
    assert digest(store) == expected


async def test_jobs_at_once_share_the_reserved_cores(store: Path) -> None:
    backend = LocalBackend(Settings(store_url=store.as_uri(), cpu=2), max_workers=2)
    call_id = await start(backend, request(preset="ultrafast"), 1)
    await until(backend, call_id, 1)
    assert workers_of(coordinator()) == []
    await result(backend, call_id)


async def test_encoder_threads_share_the_cores(backend: LocalBackend, store: Path) -> None:
    call_id = await start(backend, request(threads=2, preset="ultrafast"), 5)
    await until(backend, call_id, 1)
    assert workers_of(coordinator()) == []
    await result(backend, call_id)


async def test_killed_worker_process_is_replaced(expected: str, backend: LocalBackend, store: Path) -> None:
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


async def test_killed_job_loses_at_most_the_segments_in_flight(
    backend: LocalBackend, store: Path, expected: str
) -> None:
    call_id = await start(backend, request(), 1)
    await until(backend, call_id, 200)
    processes = family(coordinator())
    os.kill(coordinator(), signal.SIGKILL)
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        await result(backend, call_id)
    await asyncio.to_thread(await_end, processes, 20)
    stored = 80 * len([path for path in left_over(store) if path.suffix == ".json"])
    assert stored >= 200 - 2 * 80
    call_id = await start(backend, request(), 1)
    _, counts = await most_at_once(backend, call_id)
    await result(backend, call_id)
    assert next(filter(None, counts)) >= stored
    assert digest(store) == expected
