"""Recorded timings of jobs in real worker processes."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from pathlib import Path

from tests.clips import made_clip
from tests.jobs import overlay

from reel_modal import FunctionRegistry, Settings
from reel_modal.backends.local import LocalBackend


async def test_timings_finished_jobs_predict_next_one(tmp_path: Path) -> None:
    made_clip(tmp_path / "in.mp4", seconds=2)
    settings = Settings(store_url=tmp_path.as_uri(), timings=str(tmp_path / "timings"))
    started_at = time.monotonic()
    async with FunctionRegistry(settings, backend=LocalBackend(settings, max_workers=1)) as registry:
        jobs = [await registry["render_overlay"].submit(overlay(f"job {number}")) for number in range(3)]
        assert [result.frames for result in await asyncio.gather(*(job.result() for job in jobs))] == [50] * 3
        took = time.monotonic() - started_at
        (timing,) = registry.history.summary()
        assert (timing.function, timing.gpu, timing.jobs, timing.warm_startup) == ("render_overlay", "local", 3, None)
        assert timing.cold_startup is not None
        assert 0 < timing.cold_startup.seconds < took
        # Each job waited for the earlier ones, and this time is not part of its startup.
        ends = [await registry.backend.wait(job.id.rpartition(":")[2], 0) for job in jobs]
        queued = [end.queued_seconds for end in ends if end is not None]
        assert queued == sorted(queued)
        assert queued[2] > 50 * timing.seconds_per_frame
        work = 50 * timing.seconds_per_frame
        job = await registry["render_overlay"].submit(overlay("job 3"))
        async with aclosing(job.progress()) as updates:
            eta_seconds_left = (await anext(updates)).eta_seconds
        assert eta_seconds_left is not None
        assert (
            0.5 * (timing.cold_startup.seconds + work) < eta_seconds_left < 2 * (timing.cold_startup.seconds + work)
        )
        assert (await job.result()).cold_start is None


def test_timings_off_records_nothing(tmp_path: Path) -> None:
    made_clip(tmp_path / "in.mp4", seconds=0.2)
    settings = Settings(store_url=tmp_path.as_uri(), timings="off")
    registry = FunctionRegistry(settings)
    registry["render_overlay"].call(overlay())
    assert registry.history.summary() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out"]
