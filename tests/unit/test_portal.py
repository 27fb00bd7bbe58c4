"""The async API called from code without an event loop."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reel_modal import run_sync
from reel_modal.errors import BlockingCallError

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")


async def current_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def fail() -> None:
    raise LookupError("gone")


def test_run_sync_returns_result_or_raises() -> None:
    assert isinstance(run_sync(current_loop()), asyncio.AbstractEventLoop)
    with pytest.raises(LookupError, match="gone"):
        run_sync(fail())


def test_run_sync_all_threads_share_one_loop() -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    threads = [threading.Thread(target=lambda: loops.append(run_sync(current_loop()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loops) == 4
    assert set(loops) == {run_sync(current_loop())}


async def test_run_sync_inside_running_loop_is_refused() -> None:
    # If the coroutine were not closed, Python would warn that it was never awaited.
    with pytest.raises(BlockingCallError, match="await"):
        run_sync(current_loop())


INTERRUPTED = """
import sys
from reel_modal import FunctionRegistry, Settings
from reel_modal.testing import InMemoryBackend, Script
from tests.jobs import event, overlay

class Telling(InMemoryBackend):
    async def wait(self, call_id, timeout_seconds):
        print("waiting", flush=True)
        return await super().wait(call_id, timeout_seconds)

backend = Telling()
backend.script("render_overlay", Script(seconds=600))
try:
    FunctionRegistry(Settings(), backend=backend)["render_overlay"].call(overlay())
except KeyboardInterrupt:
    print("interrupted", backend.cancelled, flush=True)
"""


@posix
def test_call_ctrl_c_cancels_the_awaited_job() -> None:
    # In a separate process, because Ctrl-C goes to the main thread.
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=30)
    assert stdout.splitlines()[-1] == "interrupted ['call-1']"
    assert process.returncode == 0


FORKED = """
import os, signal
from reel_modal import run_sync

async def number():
    return 42

assert run_sync(number()) == 42
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(run_sync(number()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@posix
def test_run_sync_after_fork_uses_a_new_loop() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("42\n", "")
