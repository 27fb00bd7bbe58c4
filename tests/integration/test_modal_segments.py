"""Several containers on the loopback plane render the segments of one output, and some of them are lost."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from tests.clips import made_clip
from tests.integration.modal_app import APP, Deployed, deploy
from tests.jobs import GLOBAL, overlay
from tests.unit.long_jobs import record_jobs

from reel_modal import FunctionRegistry, Parallel, TimingHistory
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import JobCancelledError, JobPreemptedError
from reel_modal.functions.builtin import apply_upscale, render_overlay
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.runner import run_job
from reel_modal.functions.specs import EVENTS_QUEUE
from reel_modal.schema import EncodeOptions, RenderResult, UpscaleRequest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes"),
]

SEGMENTS = 5
FRAMES = 400
FAST = "ultrafast"
"""The preset of jobs that no test interrupts."""

_numbers = itertools.count(1)


@dataclass
class Started:
    """A job on Modal."""

    app: Deployed
    backend: ModalBackend
    call_id: str
    earlier: frozenset[str] = frozenset()

    async def until_rendering(self) -> None:
        """Wait until a call has begun to render; a short segment reports no count before its end."""
        await asyncio.to_thread(self.app.plane.wait_for, self.rendered)

    async def until(self, frames: int) -> None:
        """Wait until the job has reported `frames` finished frames."""
        async for event in self.backend.events(self.call_id):
            if event.phase == "render" and event.done >= frames:
                return
        raise AssertionError(f"the job ended before frame {frames}")

    async def result(self) -> RenderResult:
        while (outcome := await self.backend.wait(self.call_id, 60)) is None:
            pass
        return RenderResult.parse(outcome.value)  # type: ignore[arg-type]

    def spawned(self) -> int:
        """Return the number of calls that containers have made."""
        return self.app.plane.count("FunctionMap", side="container")

    def rendered(self) -> int:
        """Return the number of calls that have begun to render."""
        lengths = self.app.plane.queue_lengths(EVENTS_QUEUE)
        return sum(call not in {self.call_id, *self.earlier} and count > 1 for call, count in lengths.items())

    def running(self, function: str = "render_overlay_segments") -> list[str]:
        """Return the ids of the calls that containers of a function run."""
        return [call for container in self.app.plane.containers(function) for call in container.call_ids]


@pytest.fixture
def clip(app: Deployed) -> Path:
    """The clip of 40 s in the store, without outputs of other tests."""
    source = app.store / "in.mp4"
    if not source.exists():
        made_clip(source, fps=10, seconds=40, audio_seconds=40)
    for folder in ("out", "users"):
        shutil.rmtree(app.store / folder, ignore_errors=True)
    return source


Start = Callable[..., Any]


@pytest.fixture
def start(app: Deployed, clip: Path) -> Start:
    async def start(workers: int, *, preset: str = "slow", **fields: object) -> Started:
        request = replace(overlay(f"job-{next(_numbers)}", preset=preset, output="out/whole.mp4"), **fields)
        backend, earlier = ModalBackend(APP), frozenset(app.plane.queue_lengths(EVENTS_QUEUE))
        call_id = await backend.submit("render_overlay", (request.to_dict(),), {}, workers=workers)
        return Started(app, backend, call_id, earlier)

    return start


def digest(app: Deployed) -> str:
    return hashlib.sha256((app.store / "out/whole.mp4").read_bytes()).hexdigest()


def rendered_here(app: Deployed, function: AnyFunction, request: Any) -> str:
    """Return the SHA-256 of the output that one process makes; it is removed."""
    run_job(function, request.to_dict(), settings=app.settings, send=lambda _: None)
    made = digest(app)
    (app.store / "out/whole.mp4").unlink()
    return made


def await_file(path: Path) -> None:
    """Wait until a file exists."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def stored(app: Deployed) -> list[str]:
    """Return the kinds of the objects that are stored for segments."""
    return sorted(path.suffix for path in (app.store / "users/user/segments").glob("*"))


_made_here: dict[str, str] = {}


def made_here(app: Deployed, preset: str) -> str:
    """Return the SHA-256 of the output of one process, which is made once for each preset."""
    if preset not in _made_here:
        request = overlay("here", preset=preset, output="out/whole.mp4")
        _made_here[preset] = rendered_here(app, render_overlay, request)
    return _made_here[preset]


@pytest.fixture
def expected(app: Deployed, clip: Path) -> str:
    return made_here(app, "slow")


@pytest.mark.parametrize("workers", [2, 7])
async def test_workers_make_the_same_bytes(app: Deployed, start: Start, workers: int) -> None:
    expected = await asyncio.to_thread(made_here, app, FAST)
    job = await start(workers, preset=FAST)
    events = [event async for event in job.backend.events(job.call_id) if event.phase == "render"]
    counts = [event.done for event in events]
    assert (counts, counts[-1]) == (sorted(counts), FRAMES)
    assert events[-1].detail == f"segment {SEGMENTS} of {SEGMENTS}"
    result = await job.result()
    assert digest(app) == expected
    assert stored(app) == []
    assert job.spawned() == SEGMENTS
    assert (result.frames, result.engine, result.plan) == (FRAMES, "opencv-yuv420p", "full")
    assert result.usage is not None
    # The receipt has the time and the price of all containers, none of which has a GPU.
    assert result.usage.gpu is None
    assert result.usage.seconds > sum(result.seconds_by_phase.values())
    assert result.usage.dollars > 0
    assert result.usage.bytes_in > SEGMENTS * (app.store / "in.mp4").stat().st_size


async def test_registry_chooses_the_number_of_workers(app: Deployed, clip: Path, tmp_path: Path) -> None:
    expected = await asyncio.to_thread(made_here, app, FAST)
    history = TimingHistory(tmp_path / "timings.db")
    for gpu in ("T4", "cpu"):
        record_jobs(history, gpu, seconds_per_frame=0.3)
    registry = FunctionRegistry(app.settings, backend=ModalBackend(APP), history=history)
    request = overlay(f"job-{next(_numbers)}", preset=FAST, output="out/whole.mp4")
    job = await registry.submit(request, parallel=Parallel(max_workers=4))
    percents = [update.percent async for update in job.progress()]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    result = await job.result()
    assert digest(app) == expected
    assert result.usage is not None
    assert result.usage.gpu is None
    assert app.plane.count("FunctionMap", side="container") == SEGMENTS


async def test_lost_worker_is_replaced(app: Deployed, start: Start, expected: str) -> None:
    job = await start(2)
    await job.until_rendering()
    lost = job.running()[0]
    await asyncio.to_thread(app.plane.kill_container, lost)
    await job.result()
    assert digest(app) == expected
    assert job.spawned() == SEGMENTS + 1


async def test_preempted_coordinator_finds_its_workers(app: Deployed, start: Start, expected: str) -> None:
    job = await start(2)
    await job.until_rendering()
    await asyncio.to_thread(app.plane.preempt, job.call_id)
    await job.result()
    assert digest(app) == expected
    # A call that was started in the moment of the preemption may be replaced before it begins.
    assert SEGMENTS <= job.spawned() <= SEGMENTS + 1
    assert job.rendered() == SEGMENTS


async def test_cancelled_job_ends_its_workers(app: Deployed, start: Start) -> None:
    job = await start(2, preset="veryslow")
    await job.until_rendering()
    await asyncio.to_thread(app.plane.wait_for, lambda: len(job.running()) == 2)
    await job.backend.cancel(job.call_id)
    with pytest.raises(JobCancelledError):
        await job.result()
    await asyncio.to_thread(app.plane.wait_for, lambda: not job.running())
    spawned = job.spawned()
    assert spawned <= 3
    assert not (app.store / "out/whole.mp4").exists()


async def test_killed_coordinator_takes_its_workers_along(app: Deployed, start: Start) -> None:
    job = await start(2, preset="veryslow")
    await job.until_rendering()
    await asyncio.to_thread(app.plane.kill_container, job.call_id)
    with pytest.raises(JobPreemptedError):
        await job.result()
    await asyncio.to_thread(app.plane.wait_for, lambda: not job.running())
    assert not (app.store / "out/whole.mp4").exists()


async def test_next_job_finds_the_segments_of_a_cancelled_one(app: Deployed, start: Start, expected: str) -> None:
    job = await start(2)
    await job.until(200)
    await job.backend.cancel(job.call_id)
    with pytest.raises(JobCancelledError):
        await job.result()
    assert ".json" in stored(app)
    other = await start(2)
    counts = [event.done async for event in other.backend.events(other.call_id) if event.phase == "render"]
    await other.result()
    assert digest(app) == expected
    assert counts[-1] == FRAMES
    assert set(stored(app)) == {".call"}  # notes of the cancelled job


async def test_failed_worker_ends_the_job_and_the_others(app: Deployed, start: Start) -> None:
    """A worker that reads a damaged clip fails in each attempt."""
    job = await start(2, input_key="absent.mp4")
    with pytest.raises(Exception, match="absent"):
        await job.result()
    assert job.spawned() == 0


async def test_short_job_runs_in_one_container(app: Deployed, start: Start) -> None:
    made_clip(app.store / "short.mp4", fps=10, seconds=3)
    job = await start(4, input_key="short.mp4", preset="ultrafast")
    phases = [event.phase async for event in job.backend.events(job.call_id)]
    result = await job.result()
    assert result.frames == 30
    assert job.spawned() == 1
    assert "render" in phases
    assert phases[-1] == "publish"
    assert result.usage is not None
    assert result.usage.gpu == "T4"  # that of the function itself
    assert stored(app) == []


async def test_handed_over_job_is_noted_by_its_call(app: Deployed, start: Start) -> None:
    """A coordinator that was lost before it noted the call finds it, and starts no other one."""
    made_clip(app.store / "short.mp4", fps=10, seconds=8)
    await asyncio.to_thread(app.plane.end_containers)  # so that the first one to ask is the coordinator
    functions: list[str] = []

    def not_of_coordinator(request: Message) -> bool:
        functions.append(getattr(request, "function_id", ""))
        return functions[-1] != functions[0]

    app.plane.faults.hang("FunctionGetInputs", where=not_of_coordinator)
    job = await start(4, input_key="short.mp4", preset="veryslow")
    # The coordinator waits for the call, which it has noted before.
    await asyncio.to_thread(app.plane.wait_for, lambda: app.plane.count("FunctionGetOutputs", side="container"))
    (note,) = (app.store / "users/user/segments").glob("*.call")
    note.unlink()
    app.plane.faults.clear()
    await asyncio.to_thread(await_file, note)
    (call_id,) = job.running("render_overlay")
    assert note.read_text() == call_id
    await asyncio.to_thread(app.plane.preempt, job.call_id)
    assert (await job.result()).frames == 80
    assert job.spawned() == 1
    assert stored(app) == []


async def test_deploy_during_the_job_changes_no_worker(app: Deployed, start: Start, expected: str) -> None:
    job = await start(2)
    await job.until_rendering()
    version = app.plane.containers("render_overlay_segments")[0].pinned_version
    await asyncio.to_thread(deploy, app.plane, REEL_MODAL_RENDER_OVERLAY_SEGMENTS_MEMORY_MB="2048")
    await job.result()
    assert digest(app) == expected
    pinned = {container.pinned_version for container in app.plane.containers("render_overlay_segments")}
    assert pinned <= {version}


async def test_upscale_names_the_network_of_its_workers(app: Deployed) -> None:
    made_clip(app.store / "small.mp4", size=(64, 36), fps=4, seconds=9)
    request = UpscaleRequest(
        job_id="up", user_id="user", input_key="small.mp4", output_key="out/whole.mp4", scale=2, provider="cpu",
        encode=EncodeOptions(encoder="libx264"), store=GLOBAL,
    )  # fmt: skip
    alone = rendered_here(app, apply_upscale, request)
    backend = ModalBackend(APP)
    (app.store / "out/whole.mp4").unlink(missing_ok=True)
    call_id = await backend.submit("apply_upscale", (replace(request, job_id="many").to_dict(),), {}, workers=2)
    result = await Started(app, backend, call_id).result()
    assert digest(app) == alone
    assert result.engine == "onnxruntime-cpu fp32 small-x2"
    assert result.usage is not None
    assert result.usage.model == "small-x2"
