"""Local jobs: cancellation, limits, threads, refused submissions."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.clips import Clips
from tests.integration.local_jobs import (
    PROMPT_SECONDS,
    SLOW,
    STUBBORN,
    Render,
    UseBody,
    backend,
    check_leftovers,
    render,
    scratch,
    store,
    until,
    use_body,
    worker,
)
from tests.jobs import overlay
from tests.processes import await_end, children, command, family

from reel_modal import FunctionRegistry, RemoteFunction, Settings
from reel_modal.backends import local
from reel_modal.backends.local import LocalBackend
from reel_modal.errors import (
    ConfigError,
    FunctionError,
    JobCancelledError,
    JobNotFoundError,
    MisconfiguredError,
    NotDeployedError,
)
from reel_modal.functions import worker_call

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

__all__ = ["backend", "check_leftovers", "render", "scratch", "store", "use_body"]


# Cancellation.


async def test_cancel_body_in_blocking_call_is_interrupted(render: Render, use_body: UseBody, store: Path) -> None:
    use_body("with context.reporter.phase('render'):\n    time.sleep(600)")
    job = await render.submit(overlay())
    await until(job, "render")
    started_at = time.monotonic()
    await job.cancel()
    # The two seconds are for bodies that check for cancellation between two frames.
    assert time.monotonic() - started_at < 2 + PROMPT_SECONDS
    with pytest.raises(JobCancelledError):
        await job.result()


async def test_cancel_body_ignoring_it_is_killed(
    render: Render, use_body: UseBody, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_body(STUBBORN)
    monkeypatch.setattr(worker_call, "_FORCE_SECONDS", 0.3)
    job = await render.submit(overlay())
    await until(job, "render")
    remaining = family(worker())
    assert remaining
    await job.cancel()
    with pytest.raises(JobCancelledError):
        await job.result()
    await_end(remaining, PROMPT_SECONDS)


async def test_cancel_before_worker_reads_does_not_block(
    backend: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The task exceeds the capacity of the pipe and is not read, so closing the pipe would wait forever.
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    call_id = await backend.submit("render_overlay", ({"regions": "x" * 1_000_000},), {})
    await asyncio.to_thread(_await_child)
    started_at = time.monotonic()
    await backend.cancel(call_id)
    assert time.monotonic() - started_at < PROMPT_SECONDS
    with pytest.raises(JobCancelledError):
        await backend.wait(call_id, 0)


def _await_child() -> None:
    deadline = time.monotonic() + 10
    while not any("reel_modal.functions.worker" in command(pid) for pid in children()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_cancel_queued_job_starts_no_worker(store: Path) -> None:
    backend = LocalBackend(Settings(store_url=store.as_uri()), max_workers=1)
    async with FunctionRegistry(Settings(), backend=backend) as registry:
        first, second, third = [
            await registry["render_overlay"].submit(overlay(f"job-{index}", preset=SLOW)) for index in range(3)
        ]
        await until(first, "render")
        await second.cancel()
        with pytest.raises(JobCancelledError, match="before it started"):
            await second.result()
        assert [event async for event in second.events()] == []
        assert [await job.status() for job in (first, second, third)] == ["running", "cancelled", "queued"]
        await first.cancel()
        await until(third, "fetch")


async def test_close_ends_running_jobs_and_starts_no_queued(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    start = worker_call._start_worker

    def counted() -> subprocess.Popen[bytes]:
        process = start()
        started.append(process.pid)
        return process

    monkeypatch.setattr(worker_call, "_start_worker", counted)
    backend = LocalBackend(Settings(store_url=store.as_uri()), max_workers=1)
    async with FunctionRegistry(Settings(), backend=backend) as registry:
        jobs = [await registry["render_overlay"].submit(overlay(f"job-{index}", preset=SLOW)) for index in range(4)]
        await until(jobs[0], "render")
    assert [await job.status() for job in jobs] == ["cancelled"] * 4
    assert len(started) == 1


# Concurrency and threads.


async def test_max_workers_limits_running_jobs_and_queues_rest(store: Path) -> None:
    before = children()
    backend = LocalBackend(Settings(store_url=store.as_uri()), max_workers=2)
    async with FunctionRegistry(Settings(), backend=backend) as registry:
        jobs = [await registry["render_overlay"].submit(overlay(f"job-{index}", preset=SLOW)) for index in range(4)]
        await asyncio.gather(until(jobs[0], "render"), until(jobs[1], "render"))
        assert [await job.status() for job in jobs] == ["running", "running", "queued", "queued"]
        assert len(children() - before) == 2
        await jobs[0].cancel()
        await until(jobs[2], "render")
        assert await jobs[3].status() == "queued"
        assert len(children() - before) == 2


async def test_idle_backend_has_no_waiting_thread(render: Render, clips: Clips, store: Path) -> None:
    (store / "in.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    for index in range(2):
        await render(overlay(f"job-{index}"))
        for thread in threading.enumerate():
            if thread.name == "reel_modal-local":
                await asyncio.to_thread(thread.join, 10)
                assert not thread.is_alive()


async def test_oldest_ended_jobs_are_forgotten(
    render: Render, use_body: UseBody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_MOST_KEPT", 1)
    use_body("raise Unknown(request.job_id)")
    jobs = []
    for name in ("oldest", "older", "newest"):
        jobs.append(await render.submit(overlay(name)))
        with pytest.raises(FunctionError, match=name):
            await jobs[-1].result()
    with pytest.raises(JobNotFoundError):
        await jobs[0].result()
    for job, name in zip(jobs[1:], ("older", "newest"), strict=True):
        with pytest.raises(FunctionError, match=name):
            await job.result()


@pytest.mark.parametrize("number", [0, -1])
def test_max_workers_invalid_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=f"max_workers is {number}"):
        LocalBackend(Settings(), max_workers=number)


async def test_event_loop_not_blocked_while_jobs_run(render: Render) -> None:
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            started_at = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - started_at)

    ticking = asyncio.ensure_future(tick())
    started_at = time.monotonic()
    jobs = [await render.submit(overlay(f"job-{index}")) for index in range(3)]
    assert (await jobs[0].result()).frames == 500
    seconds = time.monotonic() - started_at
    await until(jobs[1], "render")
    for job in jobs:
        await job.cancel()
        await job.status()
    ticking.cancel()
    # An encoder uses both cores of a small machine; a blocking call would take as long as its operation.
    assert max(gaps) < seconds / 2


# Refused jobs.


@pytest.mark.parametrize("url", [None, "file:///nope", "s3://bucket/prefix"])
async def test_worker_unusable_store_is_config_error(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    backend = LocalBackend(Settings(store_url=url))
    with pytest.raises(
        ConfigError, match=r"no store is set|'/nope' not found|no credentials for 's3://bucket/prefix'"
    ) as caught:
        await RemoteFunction("render_overlay", backend)(overlay().to_dict())
    assert isinstance(caught.value, MisconfiguredError)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "no store is set: REEL_MODAL_STORE_URL"),
        ("file:///nope", "nope"),
        ("memory://here", "belongs to one process"),
        ("s3://bucket", "no credentials for 's3://bucket'"),
    ],
)
async def test_submit_unusable_store_starts_no_worker(
    url: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(worker_call, "_start_worker", lambda: pytest.fail("a worker is started"))
    settings = Settings(store_url=url)
    for registry in (
        FunctionRegistry(settings),
        FunctionRegistry(Settings(store_url="file:///tmp"), backend=LocalBackend(settings)),
    ):
        with pytest.raises(ConfigError, match=words):
            await registry["render_overlay"].submit(overlay())


async def test_submit_function_without_body_refused(backend: LocalBackend) -> None:
    unknown: RemoteFunction[[dict[str, object]], object] = RemoteFunction("thumbnail", backend)
    with pytest.raises(
        NotDeployedError, match="available are apply_upscale, assemble_reel, process_framing, render_overlay"
    ):
        await unknown({"job_id": "j"})
