"""Processes, their parents and their ends, from Linux's /proc."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest


def children(pid: int | None = None) -> set[int]:
    """Return the children of `pid` (default: this process) that are not reaped."""
    found: set[int] = set()
    with suppress(OSError):  # it has exited
        for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
            with suppress(OSError):  # this thread has ended meanwhile
                found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def ffmpegs() -> set[int]:
    """Return the children of this process that run ffmpeg; servers shared by the run are children too."""
    return {pid for pid in children() if "ffmpeg" in executable(pid) + command(pid)}


def family(pid: int) -> set[int]:
    """Return all descendants of `pid`."""
    return set().union(*({child} | family(child) for child in children(pid)))


def executable(pid: int) -> str:
    """Return the name of the executable, which is known before the command line; empty if the process has exited."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def command(pid: int) -> str:
    """Return the command line; empty if the process has exited."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def await_end(pids: Iterable[int], seconds: float) -> None:
    """Wait until all processes have exited; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        if not ends_until(pid, deadline):
            pytest.fail(f"process {pid} has not ended: {command(pid)}")


def ends_until(pid: int, deadline: float) -> bool:
    """Wait for the end of a process, and return whether it has ended; `deadline` is a reading of `time.monotonic`."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    finally:
        os.close(handle)
