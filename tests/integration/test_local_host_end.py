"""Local jobs whose host is killed, gets a signal or forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.local_jobs import (
    PROMPT_SECONDS,
    SLOW,
    STUBBORN,
    Render,
    UseBody,
    backend,
    check_leftovers,
    ffmpeg_of,
    render,
    scratch,
    store,
    until,
    use_body,
    worker,
)
from tests.jobs import overlay
from tests.processes import await_end, family
from tests.watchdog import with_variable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

__all__ = ["backend", "check_leftovers", "render", "scratch", "store", "use_body"]

HOST = """
import asyncio
from reel_modal import FunctionRegistry
from tests.jobs import overlay

async def main():
    job = await FunctionRegistry.from_env()["render_overlay"].submit(overlay("orphan", preset="veryslow"))
    print("submitted", flush=True)
    async for event in job.events():
        print(event.phase, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("moment", "text", "seconds"),
    [
        ("submitted", None, PROMPT_SECONDS),
        ("fetch", None, PROMPT_SECONDS),
        ("render", None, PROMPT_SECONDS),
        ("render", "with context.reporter.phase('render'):\n    time.sleep(600)", 2 + PROMPT_SECONDS),
        ("render", STUBBORN, 8 + PROMPT_SECONDS),
    ],
    ids=["submitted", "fetch", "render", "blocked", "stubborn"],
)
def test_host_killed_ends_its_jobs(
    store: Path, scratch: Path, use_body: UseBody, moment: str, text: str | None, seconds: float
) -> None:
    if text is not None:
        use_body(text)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]),
        "REEL_MODAL_STORE_URL": store.as_uri(),
    }
    with subprocess.Popen([sys.executable, "-c", HOST], env=environment, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert moment in iter(lambda: host.stdout.readline().strip(), "")  # type: ignore[union-attr]
        host.kill()
    # The temporary directory identifies its processes, whatever their parent is now.
    while remaining := with_variable("TMPDIR", str(scratch)):
        await_end(remaining, seconds)
    assert list(scratch.iterdir()) == []
    assert not (store / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_to_host_worker_and_ffmpeg_leaves_nothing(store: Path, scratch: Path, number: signal.Signals) -> None:
    """systemd ends a service in this way: each process gets the signal, and the host does not clean up."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]),
        "REEL_MODAL_STORE_URL": store.as_uri(),
    }
    with subprocess.Popen([sys.executable, "-c", HOST], env=environment, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert "render" in iter(lambda: host.stdout.readline().strip(), "")  # type: ignore[union-attr]
        for pid in (*family(host.pid), host.pid):
            os.kill(pid, number)
    while remaining := with_variable("TMPDIR", str(scratch)):
        await_end(remaining, 2 + PROMPT_SECONDS)
    assert list(scratch.iterdir()) == []
    assert not (store / "out").exists()


FORKING_HOST = """
import os, time
from reel_modal import FunctionRegistry, run_sync
from reel_modal.errors import JobCancelledError, JobNotFoundError
from tests.jobs import overlay

registry = FunctionRegistry.from_env()
render = registry["render_overlay"]

async def until_it_renders(job):
    async for event in job.events():
        if event.phase == "render":
            return

job = run_sync(render.submit(overlay("parent", preset="veryslow")))
run_sync(until_it_renders(job))
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.close(writing)
    try:
        run_sync(job.result())
    except JobNotFoundError:
        print("the child does not know the parent's job", flush=True)
    print("the child renders", run_sync(render(overlay("child"))).frames, flush=True)
    os.read(reading, 1)
    os._exit(0)
begun = time.monotonic()
run_sync(job.cancel())
seconds = time.monotonic() - begun
try:
    run_sync(job.result())
except JobCancelledError:
    print("cancelled at once" if seconds < 8 else f"cancelled after {seconds} s", flush=True)
os.close(writing)
os.waitpid(child, 0)
"""


def test_forked_child_has_no_jobs_and_does_not_interfere(store: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]),
        "REEL_MODAL_STORE_URL": store.as_uri(),
    }
    command = [sys.executable, "-c", FORKING_HOST]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {
        "the child does not know the parent's job",
        "the child renders 500",
        "cancelled at once",
    }


async def test_ctrl_c_in_terminal_does_not_reach_workers(render: Render) -> None:
    job = await render.submit(overlay(preset=SLOW))
    await until(job, "render")
    pid = worker()
    assert os.getsid(pid) == pid != os.getsid(0)
    assert os.getpgid(ffmpeg_of(pid)) == pid
    await job.cancel()
