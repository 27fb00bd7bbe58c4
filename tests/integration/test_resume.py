"""A worker that is killed in the middle of a long job: the next attempt renders only what is missing."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from tests.clips import made_clip
from tests.integration.local_jobs import check_processes
from tests.jobs import overlay
from tests.processes import await_end, children, command, family

from reel_modal import FunctionRegistry, OverlayRequest, RemoteFunction, RenderResult, Settings
from reel_modal.backends.local import LocalBackend
from reel_modal.errors import WorkerCrashedError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),  # a loaded machine renders the clip three times
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

FRAMES = 400
SEGMENT_FRAMES = 80
CHANGED = 250
"""Frames from a highlight of 24 s to the next keyframe."""
SEED = 20261130

__all__ = ["check_processes"]

_numbers = itertools.count(1)

Render = RemoteFunction[[OverlayRequest], RenderResult]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store, with a clip of 40 s."""
    folder = tmp_path / "store"
    folder.mkdir()
    encoder = ("-c:v", "libx264", "-preset", "veryfast", "-g", "50")
    made_clip(folder / "in.mp4", size=(240, 136), fps=10, seconds=40, audio_seconds=40, encoder=encoder)
    return folder


@pytest.fixture
def render(store: Path) -> Render:
    settings = Settings(store_url=store.as_uri())
    return FunctionRegistry(settings, backend=LocalBackend(settings))["render_overlay"]


def request(output: str = "whole", highlighted: tuple[int, int] = (0, 1000)) -> OverlayRequest:
    """Return the request of another job, with a highlight between two times in seconds."""
    whole = overlay(f"job-{next(_numbers)}", preset="veryslow", output=f"out/{output}.mp4")
    (region,) = whole.regions
    start, end = map(Fraction, highlighted)
    return replace(whole, regions=(replace(region, start_seconds=start, end_seconds=end),))


def segments(store: Path) -> list[Path]:
    return sorted((store / "users/user/segments").glob("*"))


def digest(store: Path) -> str:
    return hashlib.sha256((store / "out/whole.mp4").read_bytes()).hexdigest()


async def killed(render: Render, output: str, at: int, highlighted: tuple[int, int]) -> int:
    """Kill the worker of a job with SIGKILL after `at` frames; return the number of frames that it has reported."""
    job = await render.submit(request(output, highlighted))
    async for event in job.events():
        if event.phase == "render" and event.done >= at:
            break
    (pid,) = (pid for pid in children() if "reel_modal.functions.worker" in command(pid))
    remaining = family(pid)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        await job.result()
    await_end(remaining, 20)
    return event.done


@pytest.mark.parametrize(("highlighted", "rendered"), [((0, 1000), FRAMES), ((5, 29), CHANGED)])
async def test_job_killed_at_random_moments_loses_at_most_a_segment(
    render: Render, store: Path, highlighted: tuple[int, int], rendered: int
) -> None:
    """The last job finds the segments of the others, although one of these had another output."""
    whole = await render(request(highlighted=highlighted))
    assert whole.frames_copied == FRAMES - rendered
    expected = digest(store)
    assert segments(store) == []
    (store / "out/whole.mp4").unlink()
    chosen = random.Random(SEED)
    moments = sorted(chosen.randrange(1, rendered - SEGMENT_FRAMES) for _ in range(2))
    for output, at in zip(("whole", "other"), moments, strict=True):
        done = await killed(render, output, at, highlighted)
        stored = len([path for path in segments(store) if path.suffix == ".json"])
        assert done - stored * SEGMENT_FRAMES <= SEGMENT_FRAMES
    job = await render.submit(request(highlighted=highlighted))
    counts = [event.done async for event in job.events() if event.phase == "render" and event.done]
    assert counts[0] >= stored * SEGMENT_FRAMES
    assert (await job.result()).frames == FRAMES
    assert digest(store) == expected
    assert segments(store) == []
    assert [path.name for path in (store / "out").glob("*.mp4")] == ["whole.mp4"]
