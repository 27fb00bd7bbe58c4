"""Measures what a job uses, inside the process that runs it.

It must not know what the job does, nor where prices come from: the one place that measures receipts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reel_modal.schema.usage import Usage
from reel_modal.storage.base import Traffic
from reel_modal.version import VERSION

__all__ = ["Machine", "Meter", "seconds_since_process_start"]

_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Machine:
    """What a job runs on, as far as it costs.

    Attributes:
        gpu: Such as `T4`; None for none.
        usd_per_second: Of the whole container; 0 for this machine.
        rates_dated: Of when that is; empty for this machine.
    """

    gpu: str | None = None
    usd_per_second: float = 0.0
    rates_dated: str = ""


class Meter:
    """Measures from its construction on.

    Args:
        machine: What the job runs on.
        submitted_at: Unix time of the submission; None where nobody said it.
        startup_seconds: What the process has taken to get here, where it was started for this job.
        clock: Monotonic seconds.
        wall_clock: Unix time.
    """

    def __init__(
        self,
        machine: Machine = Machine(),
        *,
        submitted_at: float | None = None,
        startup_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._machine = machine
        self._startup_seconds = startup_seconds
        self._clock = clock
        self._begun = clock()
        self._queue_seconds = (
            None if submitted_at is None else max(0.0, wall_clock() - submitted_at - startup_seconds)
        )

    def usage(self, traffic: Traffic, *, model: str | None = None) -> Usage:
        """Return what has been used so far."""
        seconds = self._clock() - self._begun
        held = self._startup_seconds + seconds
        return Usage(
            queue_seconds=self._queue_seconds,
            startup_seconds=self._startup_seconds,
            seconds=seconds,
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
            peak_memory_bytes=_peak_memory_bytes(),
            gpu=self._machine.gpu,
            gpu_seconds=0.0 if self._machine.gpu is None else held,
            dollars=held * self._machine.usd_per_second,
            rates_dated=self._machine.rates_dated,
            model=model,
            package_version=VERSION,
        )


def seconds_since_process_start() -> float:
    """Return how long this process has been running; 0 where the system does not say."""
    try:
        # The name in parentheses may hold spaces; the start, in ticks since boot, is the 20th field behind it.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        ticks = float(fields[19])
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))


def _peak_memory_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows has none
        return 0
    unit = 1 if sys.platform == "darwin" else _KIB
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(peaks) * unit
