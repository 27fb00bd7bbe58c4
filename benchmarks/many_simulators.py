"""Ten thousand simulators on one event loop, twice a second: what an idle bar costs a host."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from reel_modal.progress import ProgressSimulator

SIMULATORS, SECONDS = 10_000, 20.0
CPU_TARGET, KB_TARGET = 0.30, 3.0


async def watch() -> None:
    async for _ in ProgressSimulator():
        pass


async def measure() -> dict[str, float]:
    """Run them all; the CPU is taken once every one of them has had its first update."""
    gc.collect()
    before = _resident_kb()
    watching = []
    for number in range(SIMULATORS):
        watching.append(asyncio.ensure_future(watch()))
        if number % 100 == 99:  # jobs do not all begin in one moment
            await asyncio.sleep(0.005)
    await asyncio.sleep(1.0)
    used, started = _cpu_seconds(), time.monotonic()
    await asyncio.sleep(SECONDS)
    cpu = (_cpu_seconds() - used) / (time.monotonic() - started)
    memory = (_resident_kb() - before) / SIMULATORS
    for task in watching:
        task.cancel()
    await asyncio.wait(watching)
    return {"cpu": cpu, "kb": memory}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


def main(rounds: int = 3) -> list[str]:
    """Run and return the table as Markdown."""
    samples = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.many_simulators", "one"], capture_output=True, text=True, check=True
        )
        samples.append(json.loads(done.stdout))
        print(f"  {samples[-1]}", file=sys.stderr)
    cpu, kb = (statistics.median(sample[what] for sample in samples) for what in ("cpu", "kb"))
    return [
        "| simulators | updates a second | of one core | target | memory each, task and timer included | target |",
        "|---|---|---|---|---|---|",
        f"| {SIMULATORS} | {2 * SIMULATORS} | {cpu:.0%} | ≤ {CPU_TARGET:.0%} | {kb:.2f} KB | ≤ {KB_TARGET:g} KB |",
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(measure())))
    else:
        print("\n".join(main()))
