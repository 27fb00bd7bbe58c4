"""Chains in real worker processes: continued after a lost step, and nothing left between the steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.clips import made_clip
from tests.jobs import GLOBAL

from reel_modal import FramingRequest, FunctionRegistry, Job, OverlayRequest, Settings, UpscaleRequest, probe
from reel_modal.errors import BadInputError, RemoteError

KEYS = {"user_id": "7", "store": GLOBAL}
MARKED = OverlayRequest(job_id="j-1", input_key="in.mp4", output_key="marked.mp4", regions=[], **KEYS)
REEL = FramingRequest(job_id="j-2", input_key="marked.mp4", output_key="reel.mp4", aspect="9/16", **KEYS)
LARGE = UpscaleRequest(job_id="j-3", input_key="reel.mp4", output_key="large.mp4", scale=2, **KEYS)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder with a clip of one second."""
    made_clip(tmp_path / "in.mp4", size=(96, 64), seconds=1, audio_seconds=1)
    return tmp_path


def videos(store: Path) -> Sequence[str]:
    return sorted(path.name for path in store.rglob("*.mp4"))


def receipts(store: Path) -> list[Path]:
    return list(store.rglob("receipts/*"))


def registry_for(store: Path) -> FunctionRegistry:
    return FunctionRegistry(Settings(store_url=store.as_uri(), timings="off"))


async def test_chain_keeps_only_the_last_output(store: Path) -> None:
    async with registry_for(store) as registry:
        chain = await registry.chain(MARKED, REEL)
        result = await chain.result()
        receipt = await chain.receipt()
    assert videos(store) == ["in.mp4", "reel.mp4"]
    assert len(receipts(store)) == 1
    assert probe(store / "reel.mp4").size == result.size
    assert receipt.usage.seconds == pytest.approx(sum(step.usage.seconds for step in receipt.steps if step.usage))


async def test_chain_keep_intermediates_leaves_all_outputs(store: Path) -> None:
    async with registry_for(store) as registry:
        await (await registry.chain(MARKED, REEL, keep_intermediates=True)).result()
    assert videos(store) == ["in.mp4", "marked.mp4", "reel.mp4"]


async def test_chain_continues_after_the_step_that_was_lost(store: Path) -> None:
    registry = registry_for(store)

    def lose_second(job: Job[Any]) -> None:
        if job.function == "process_framing":
            raise RuntimeError("the host ends here")

    with pytest.raises(RuntimeError, match="the host ends here"):
        await (await registry.chain(MARKED, REEL, LARGE, on_job=lose_second)).result()
    await registry.close()
    assert "marked.mp4" in videos(store)

    started: list[str] = []
    async with registry_for(store) as registry:
        chain = await registry.chain(MARKED, REEL, LARGE, on_job=lambda job: started.append(job.function))
        assert (await chain.result()).output_key == "large.mp4"
        assert len((await chain.receipt()).steps) >= 2
        again = await registry.chain(MARKED, REEL, LARGE, on_job=lambda job: started.append(job.function))
        assert (await again.result()).output_key == "large.mp4"
    assert "render_overlay" not in started
    assert started[-1] == "apply_upscale"
    assert started.count("apply_upscale") == 1
    assert videos(store) == ["in.mp4", "large.mp4"]


async def test_chain_failed_step_leaves_outputs_until_discarded(store: Path) -> None:
    late = FramingRequest(
        job_id="j-2", input_key="marked.mp4", output_key="reel.mp4", trim_start_seconds=5, trim_end_seconds=6, **KEYS
    )
    async with registry_for(store) as registry:
        chain = await registry.chain(MARKED, late)
        with pytest.raises(BadInputError):
            await chain.result()
        assert videos(store) == ["in.mp4", "marked.mp4"]
        await chain.discard()
        await chain.discard()  # nothing is left to delete
    assert videos(store) == ["in.mp4"]
    assert receipts(store) == []


async def test_chain_cancelled_leaves_nothing(store: Path) -> None:
    async with registry_for(store) as registry:
        chain = await registry.chain(MARKED, REEL, LARGE)
        async for update in chain.progress(interval_seconds=0.05):
            if update.message.startswith("Step 3"):
                await chain.cancel()
                break
        with pytest.raises(RemoteError):
            await chain.result()
        assert await chain.status() == "cancelled"
    assert videos(store) == ["in.mp4"]


async def test_chain_started_again_in_its_registry_makes_deleted_outputs_again(store: Path) -> None:
    other = FramingRequest(job_id="j-4", input_key="marked.mp4", output_key="square.mp4", aspect="1/1", **KEYS)
    async with registry_for(store) as registry:
        await (await registry.chain(MARKED, REEL)).result()
        assert videos(store) == ["in.mp4", "reel.mp4"]
        await (await registry.chain(MARKED, other)).result()
    assert videos(store) == ["in.mp4", "reel.mp4", "square.mp4"]
