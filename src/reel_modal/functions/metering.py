"""Measure the resources that a job uses, inside the process that runs it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from reel_modal._version import VERSION
from reel_modal.functions.memory import MemoryWatch
from reel_modal.schema.results import Usage
from reel_modal.storage.base import Traffic

__all__ = ["Machine", "Meter", "seconds_since_process_start"]


@dataclass(frozen=True, slots=True)
class Machine:
    """GPU and price of the machine that runs a job.

    Attributes:
        gpu: GPU type such as `T4`; None without a GPU.
        usd_per_second: Price of the whole container; 0 for this machine.
        rates_dated: Date of the price; empty for this machine.
        resources: Resources of the job in place of the deployed ones, as text; empty if it has none.
    """

    gpu: str | None = None
    usd_per_second: float = 0.0
    rates_dated: str = ""
    resources: str = ""


class Meter:
    """Measure the usage of a job, from construction on.

    Args:
        machine: The machine that runs the job.
        submitted_at: Unix time of the submission; None if unknown.
        startup_seconds: Startup time of the process, if it was started for this job.
        clock: Returns monotonic seconds.
        wall_clock: Returns Unix time.

    Attributes:
        memory: Watches the memory; see `MemoryWatch.watching`.
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
        self._started_at = clock()
        self._others: list[Usage] = []
        self.memory: MemoryWatch = MemoryWatch()
        self._queue_seconds = (
            None if submitted_at is None else max(0.0, wall_clock() - submitted_at - startup_seconds)
        )

    def add(self, usage: Usage) -> None:
        """Add what another process has used for this job."""
        self._others.append(usage)

    def usage(self, traffic: Traffic) -> Usage:
        """Return the usage so far, with that of other processes."""
        own = self._own_usage(traffic)
        return replace(Usage.sum([own, *self._others]), queue_seconds=own.queue_seconds)

    def _own_usage(self, traffic: Traffic) -> Usage:
        seconds = self._clock() - self._started_at
        held = self._startup_seconds + seconds
        return Usage(
            queue_seconds=self._queue_seconds,
            startup_seconds=self._startup_seconds,
            seconds=seconds,
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
            peak_memory_bytes=self.memory.peak_bytes(),
            gpu=self._machine.gpu,
            gpu_seconds=0.0 if self._machine.gpu is None else held,
            dollars=held * self._machine.usd_per_second,
            rates_dated=self._machine.rates_dated,
            resources=self._machine.resources,
            package_version=VERSION,
        )


def seconds_since_process_start() -> float:
    """Return the seconds since this process started; 0 if the system does not report it."""
    try:
        # The name in parentheses may contain spaces; the start, in ticks since boot, is the 20th field after it.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        ticks = float(fields[19])
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))
