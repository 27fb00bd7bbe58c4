"""Kill the processes of a test run after the run has ended in any way. Linux only.

A killed run cannot stop its servers, browsers, workers and containers. So it starts this file as a separate process,
which waits until the run has ended and then kills all processes that carry its mark.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "MARK_OF_TEST_RUN"
"""The environment variable of all processes that a test run starts."""

_SCAN_SECONDS = 0.1
# A process that was being started when the run was killed is found by a later scan.
_EMPTY_SCANS = 10
_LONGEST_SECONDS = 30.0
_ORDERLY = b"the run has ended by itself"


def start() -> None:
    """Mark all processes started from now on, and start the watchdog, which waits for the end of this process."""
    if sys.platform != "linux":
        return
    os.environ[MARK] = f"{os.getpid()}-{time.time_ns()}"
    waiting, held = os.pipe()
    command = [sys.executable, "-I", __file__, os.environ[MARK]]
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=waiting, stdout=null, stderr=null, env=environment, start_new_session=True
    )
    os.close(waiting)
    # A forked child would keep the run's end of the pipe open.
    os.register_at_fork(after_in_child=lambda: _close(held))
    atexit.register(_end, os.getpid(), held, process)


def _end(run: int, held: int, process: subprocess.Popen[bytes]) -> None:
    """Let the watchdog scan once more, and wait for it."""
    if os.getpid() == run:
        with contextlib.suppress(BrokenPipeError):  # it was killed
            os.write(held, _ORDERLY)
        os.close(held)
        process.wait()


def with_variable(name: str, value: str) -> set[int]:
    """Return the processes, except this one, that were started with this variable in their environment."""
    wanted, processes = f"{name}={value}".encode(), set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    processes.add(int(folder.name))
            except OSError:  # it has exited meanwhile, or belongs to another user
                continue
    return processes


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    orderly = sys.stdin.buffer.read() == _ORDERLY  # returns when the run has ended
    empty, deadline = 0, time.monotonic() + _LONGEST_SECONDS
    while empty < (1 if orderly else _EMPTY_SCANS) and time.monotonic() < deadline:
        processes = with_variable(MARK, sys.argv[1])
        empty = 0 if processes else empty + 1
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_SCAN_SECONDS)


if __name__ == "__main__":
    _main()
