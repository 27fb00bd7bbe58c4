"""What the registry costs over Modal's own client, on the loopback plane in a process of its own.

Calls of ours and of modal's take turns; then a hundred jobs are submitted at once from one event loop.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.sample_app import APP, SAMPLE

from reel_modal import RemoteFunction

CALLS, WARM_UP = 2000, 50
MANY, BURSTS = 100, 5
TARGET_RATIO, TARGET_STALL_MS = 1.03, 50.0


def double(x: int) -> int:
    """Stand for the function of the sample app."""
    raise NotImplementedError


def work(partition: str, seconds: float = 0.0) -> str:
    """Stand for the function of the sample app."""
    raise NotImplementedError


@contextmanager
def loopback() -> Iterator[None]:
    """Serve Modal's API from another process, with the sample app deployed, and point modal's settings at it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.integration.loopback", str(Path(folder, "plane"))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as plane:
            if plane.stdin is None or plane.stdout is None:
                raise RuntimeError("no pipes")
            os.environ.update(json.loads(plane.stdout.readline()))
            deploy = [sys.executable, "-m", "modal", "deploy", "-m", "loopback_sample"]
            make_secret = [sys.executable, "-m", "modal", "secret", "create", "sample-secret", "SAMPLE_KEY=sesame"]
            for one in (make_secret, deploy):
                subprocess.run(one, cwd=SAMPLE, capture_output=True, check=True)
            yield
            plane.stdin.close()


@dataclass(frozen=True)
class Call:
    """What one call took; the CPU time is that of this process, all its threads."""

    wall_seconds: float
    cpu_seconds: float


async def in_turns(calls: dict[str, Callable[[int], Awaitable[int]]]) -> dict[str, list[Call]]:
    """Return what each call took; each turn makes one of every kind, in an order that alternates."""
    samples: dict[str, list[Call]] = {name: [] for name in calls}
    for turn in range(WARM_UP + CALLS):
        for name in sorted(calls, reverse=bool(turn % 2)):
            begun, cpu = time.perf_counter(), time.process_time()
            assert await calls[name](turn) == 2 * turn
            samples[name].append(Call(time.perf_counter() - begun, time.process_time() - cpu))
    return {name: values[WARM_UP:] for name, values in samples.items()}


@asynccontextmanager
async def stalls() -> AsyncIterator[list[Call]]:
    """Give what passes from each tick of a millisecond to the next.

    The CPU time of all threads is what keeps a loop from ticking on a machine that has nothing else to do: its own
    callbacks, and threads that hold the interpreter's lock. The wall time has in it what other processes take.
    """
    late: list[Call] = []

    async def tick() -> None:
        while True:
            due, cpu = time.perf_counter() + 0.001, time.process_time()
            await asyncio.sleep(0.001)
            late.append(Call(time.perf_counter() - due, time.process_time() - cpu))

    # As long-running hosts do: a pass over all that modal has imported takes tens of milliseconds.
    gc.collect()
    gc.freeze()
    ticking = asyncio.ensure_future(tick())
    try:
        yield late
    finally:
        ticking.cancel()
        gc.unfreeze()


@dataclass(frozen=True)
class Burst:
    """A hundred jobs at once: how many were in flight, the seconds to get there, how late the loop was at worst."""

    in_flight: int
    seconds: float
    stall: Call


async def burst() -> Burst:
    """Submit them, wait for them all, ask Modal how many there are, and cancel them."""
    import modal

    function, theirs = RemoteFunction.from_modal(APP, "work", work), modal.Function.from_name(APP, "work")
    await function.hydrate()
    await theirs.hydrate.aio()
    async with stalls() as late:
        begun = time.perf_counter()
        jobs = await asyncio.gather(*(function.submit("bench", 600.0) for _ in range(MANY)))
        seconds = time.perf_counter() - begun
        waiting = [asyncio.ensure_future(job.result()) for job in jobs]
        await asyncio.sleep(1)
    stats = await theirs.get_current_stats.aio()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    worst = Call(max(one.wall_seconds for one in late), max(one.cpu_seconds for one in late))
    return Burst(stats.backlog + stats.num_running_inputs, seconds, worst)


async def measure() -> list[str]:
    import modal

    theirs = modal.Function.from_name(APP, "double")
    ours = RemoteFunction.from_modal(APP, "double", double)

    async def spawn_and_get(x: int) -> int:
        """Do what a job needs: make a call that has an id, so that it can be found again and cancelled."""
        call = await theirs.spawn.aio(x)
        return await call.get.aio()

    samples = await in_turns({"modal": theirs.remote.aio, "spawn": spawn_and_get, "reel_modal": ours})
    wall = {name: 1000 * statistics.median(one.wall_seconds for one in values) for name, values in samples.items()}
    cpu = {name: 1000 * statistics.median(one.cpu_seconds for one in values) for name, values in samples.items()}
    bursts = [await burst() for _ in range(BURSTS)]
    stall_ms = [1000 * statistics.median(one.stall.cpu_seconds for one in bursts)]
    stall_ms += [1000 * max(one.stall.cpu_seconds for one in bursts)]
    stall_ms += [1000 * statistics.median(one.stall.wall_seconds for one in bursts)]
    pairs = list(zip(samples["reel_modal"], samples["spawn"], strict=True))
    more = 1000 * statistics.median(ours.wall_seconds - theirs.wall_seconds for ours, theirs in pairs)
    ratio = f"{1 + more / wall['spawn']:.3f} ({more:.2f} ms more, call by call)"
    in_flight, seconds = min(one.in_flight for one in bursts), statistics.median(one.seconds for one in bursts)
    stall = " | ".join(f"{one:.1f}" for one in stall_ms)
    return [
        "| call | median ms | CPU ms of the host | time / modal's spawn and get | target |",
        "|---|---|---|---|---|",
        f"| `remote.aio(x)` | {wall['modal']:.2f} | {cpu['modal']:.2f} | {wall['modal'] / wall['spawn']:.3f} | |",
        f"| `spawn.aio(x)`, `get.aio()` | {wall['spawn']:.2f} | {cpu['spawn']:.2f} | 1 | |",
        f"| `await function(x)` | {wall['reel_modal']:.2f} | {cpu['reel_modal']:.2f} | {ratio} | ≤ {TARGET_RATIO} |",
        "",
        f"{MANY} jobs submitted at once from one loop, {BURSTS} times:",
        "",
        "| in flight, least | seconds to submit | worst stall, CPU ms | of all bursts | wall ms | target |",
        "|---|---|---|---|---|---|",
        f"| {in_flight} | {seconds:.2f} | {stall} | < {TARGET_STALL_MS:g} ms |",
    ]


def main() -> list[str]:
    """Run and return the table as Markdown."""
    with loopback():
        return asyncio.run(measure())


if __name__ == "__main__":
    print("\n".join(main()))
