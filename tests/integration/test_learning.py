"""Jobs in real worker processes: what their host remembers of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from pathlib import Path

from tests.jobs import overlay

from reel_modal import FunctionRegistry, Settings
from reel_modal.backends.local import LocalBackend
from reel_modal.testing import make_clip


async def test_finished_jobs_are_remembered_and_plan_the_next(tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", seconds=2)
    settings = Settings(store_url=tmp_path.as_uri(), timings=str(tmp_path / "timings"))
    begun = time.monotonic()
    async with FunctionRegistry(settings, backend=LocalBackend(settings, max_workers=1)) as registry:
        jobs = [await registry["render_overlay"].submit(overlay(f"job {number}")) for number in range(3)]
        assert [result.frames for result in await asyncio.gather(*(job.result() for job in jobs))] == [50] * 3
        took = time.monotonic() - begun
        (known,) = registry.history.summary()
        assert (known.function, known.gpu, known.jobs, known.warm_startup) == ("render_overlay", "local", 3, None)
        assert known.cold_startup is not None
        assert 0 < known.cold_startup.seconds < took
        # Each waited for those before it, which is no part of its start.
        ends = [await registry.backend.wait(job.id.rpartition(":")[2], 0) for job in jobs]
        queued = [end.queued_seconds for end in ends if end is not None]
        assert queued == sorted(queued)
        assert queued[2] > 50 * known.seconds_per_frame
        work = 50 * known.seconds_per_frame
        job = await registry["render_overlay"].submit(overlay("job 3"))
        async with aclosing(job.progress()) as updates:
            left = (await anext(updates)).eta_seconds
        assert left is not None
        assert 0.5 * (known.cold_startup.seconds + work) < left < 2 * (known.cold_startup.seconds + work)
        assert (await job.result()).cold_start is None


def test_a_host_may_forbid_it(tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", seconds=0.2)
    settings = Settings(store_url=tmp_path.as_uri(), timings="off")
    registry = FunctionRegistry(settings)
    registry["render_overlay"].call(overlay())
    assert registry.history.summary() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out"]
