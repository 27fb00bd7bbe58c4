"""The peak memory of a job: from the kernel, or by samples where the kernel does not report it, as in gVisor."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["MemoryWatch"]

_KIB: Final = 1024
_INTERVAL_SECONDS: Final = 0.25
_STATUS: Final = Path("/proc/self/status")


class MemoryWatch:
    """Peak memory of this process and of the processes that it starts.

    Linux reports the peak of each process, so nothing has to be watched. gVisor, in which Modal runs containers, does
    not: its /proc/PID/status lacks `VmHWM`, and what getrusage returns there is not comparable. There, a thread adds
    up the memory of all processes four times a second: `RssAnon` and `RssShmem`, or `VmRSS` if these are missing too.

    Args:
        sampled: Whether to take samples; default: if the kernel does not report the peak.
    """

    def __init__(self, *, sampled: bool | None = None) -> None:
        self._sampled = _needs_samples() if sampled is None else sampled
        self._peak = 0
        self._lock = threading.Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take samples during the block, if they are needed."""
        if not self._sampled:
            yield
            return
        ended = threading.Event()

        def watch() -> None:
            self.sample()
            while not ended.wait(_INTERVAL_SECONDS):
                self.sample()

        thread = threading.Thread(target=watch, name="reel_modal-memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def sample(self) -> None:
        """Compare the current memory with the highest so far."""
        now = sum(map(_memory_bytes, _family()))
        with self._lock:
            self._peak = max(self._peak, now)

    def peak_bytes(self) -> int:
        """Return the highest memory in bytes; 0 if the system does not report it."""
        if self._sampled:
            self.sample()
            return self._peak
        try:
            import resource
        except ImportError:  # on Windows
            return 0
        unit = 1 if sys.platform == "darwin" else _KIB
        return (
            sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * unit
        )


def _needs_samples() -> bool:
    status = _fields(_STATUS)
    return bool(status) and "VmHWM" not in status


def _family() -> list[Mapping[str, str]]:
    """Return the status of this process and of all its descendants."""
    every = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (status := _fields(folder / "status")):
            every[int(folder.name)] = status
    known: set[int] = set()
    found = {os.getpid()}
    while found:
        known |= found
        found = {pid for pid, status in every.items() if int(status.get("PPid", "0")) in known} - known
    return [every[pid] for pid in known if pid in every]


def _fields(path: Path) -> dict[str, str]:
    """Return the fields of a status file; empty if it cannot be read, for example because the process has ended."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _memory_bytes(status: Mapping[str, str]) -> int:
    names = ("RssAnon", "RssShmem") if "RssAnon" in status else ("VmRSS",)
    return sum(int(status[name].split()[0]) for name in names if name in status) * _KIB
