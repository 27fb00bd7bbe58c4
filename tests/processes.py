"""Processes as Linux shows them: who descends from whom, and who is gone."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest


def children(pid: int | None = None) -> set[int]:
    """The processes that `pid` (default: this one) has started and not reaped."""
    found: set[int] = set()
    with suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
            with suppress(OSError):  # this thread has ended meanwhile
                found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def ffmpegs() -> set[int]:
    """The ffmpegs among them: servers that a whole run shares are children as well."""
    return {pid for pid in children() if "ffmpeg" in executable(pid) + command(pid)}


def family(pid: int) -> set[int]:
    """Everything that descends from `pid`."""
    return set().union(*({child} | family(child) for child in children(pid)))


def executable(pid: int) -> str:
    """The file that it runs, which is known a moment earlier than its command line; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def command(pid: int) -> str:
    """Its command line; empty for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def await_end(pids: Iterable[int], seconds: float) -> None:
    """Return when all of them have ended; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                pytest.fail(f"process {pid} has not ended: {command(pid)}")
        finally:
            os.close(handle)
