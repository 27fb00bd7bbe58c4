"""Work that is lost when the worker of a long job is killed at ten random moments.

An ellipse on each frame of a 60 s 1080p30 clip, x264 veryfast. Each attempt gets SIGKILL after a random number of
further frames. The lost work is what the next attempt renders again.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from tests.processes import children, command

from benchmarks import overlay_speed
from benchmarks.harness import clip_1080p
from reel_modal.backends.local import LocalBackend
from reel_modal.errors import WorkerCrashedError
from reel_modal.schema import EncodeOptions, OverlayRequest, StoreOptions
from reel_modal.settings import Settings

SECONDS = 60
KILLS = 10
FPS = 30
SEGMENT = 8 * FPS
SEED = 20261130


def request() -> OverlayRequest:
    asked = overlay_speed.request(EncodeOptions(encoder="libx264", preset="veryfast", smart=False))
    region = replace(asked.regions[0], end_seconds=Fraction(SECONDS))
    scopes = StoreOptions(input_scope="global", output_scope="global")
    return replace(asked, regions=(region,), input_key="in.mp4", output_key="out.mp4", store=scopes)


async def attempt(backend: LocalBackend, kill_after: int | None) -> tuple[int, int, float]:
    """Run the job; return its first and last number of finished frames, and the seconds between them.

    Args:
        backend: The backend.
        kill_after: Frames to render before the worker is killed; None lets it finish.
    """
    call_id = await backend.submit("render_overlay", (request().to_dict(),), {})
    first = last = None
    started = 0.0
    async for event in backend.events(call_id):
        if event.phase != "render" or not event.done:
            continue
        if first is None:
            first, started = event.done, time.monotonic()
        last = event.done
        if kill_after is not None and last >= first + kill_after:
            (worker,) = (pid for pid in children() if "functions.worker" in command(pid))
            os.kill(worker, signal.SIGKILL)
            break
    took = time.monotonic() - started
    try:
        while await backend.wait(call_id, 60) is None:
            pass
    except WorkerCrashedError:
        if kill_after is None:
            raise
    return first or 0, last or 0, took


async def losses() -> tuple[list[int], float]:
    """Return the frames that each kill has lost, and the frames per second of the last attempt."""
    chosen = random.Random(SEED)
    with tempfile.TemporaryDirectory() as store:
        shutil.copy2(clip_1080p(SECONDS), Path(store, "in.mp4"))
        backend = LocalBackend(Settings(store_url=Path(store).as_uri()))
        lost: list[int] = []
        reached = 0
        for _ in range(KILLS):
            first, last, _took = await attempt(backend, chosen.randrange(1, 2 * FPS * SECONDS // KILLS))
            lost.append(reached - first // SEGMENT * SEGMENT)
            reached = last
            print(f"  from {first} to {last}", file=sys.stderr)
        first, last, took = await attempt(backend, None)
        lost.append(reached - first // SEGMENT * SEGMENT)
    return lost[1:], (last - first) / took


def main() -> list[str]:
    """Kill the workers and return the figures as Markdown."""
    lost, fps = asyncio.run(losses())
    seconds = [frames / fps for frames in lost]
    return [
        f"Frames lost by {KILLS} kills, of a segment's {SEGMENT}: {', '.join(map(str, lost))}.",
        f"At {fps:.0f} frames per second: {statistics.mean(seconds):.1f} s on average, {max(seconds):.1f} s at most.",
    ]


if __name__ == "__main__":
    print("\n".join(main()))
