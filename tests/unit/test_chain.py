"""Chains of jobs: one progress, one receipt, one cancellation, and the checks before the first step."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from tests.jobs import event

from reel_modal import (
    FramingRequest,
    FunctionRegistry,
    Job,
    OverlayRequest,
    ReelClip,
    ReelRequest,
    RenderResult,
    Settings,
    UpscaleRequest,
    Usage,
)
from reel_modal._jobs.chain import check_chain
from reel_modal.errors import BadInputError, InvalidMediaError, JobCancelledError, RequestError
from reel_modal.testing import InMemoryBackend, Script

KEYS = {"user_id": "7"}
OVERLAY = OverlayRequest(job_id="j-1", input_key="in.mp4", output_key="marked.mp4", regions=[], **KEYS)
FRAMING = FramingRequest(job_id="j-2", input_key="marked.mp4", output_key="reel.mp4", **KEYS)
UPSCALE = UpscaleRequest(job_id="j-3", input_key="reel.mp4", output_key="large.mp4", scale=2, **KEYS)


def rendered(request: Mapping[str, Any]) -> dict[str, object]:
    """Return a result that cost a dollar."""
    return RenderResult(
        job_id=request["job_id"],
        function="any",
        output_key=request["output_key"],
        frames=25,
        size=(320, 180),
        fps=Fraction(25),
        duration_seconds=Fraction(1),
        bytes=20_000,
        engine="script",
        encoder="libx264",
        seconds_by_phase={"render": 1.0},
        usage=Usage(dollars=1.0, seconds=2.0, peak_memory_bytes=len(request["job_id"]), gpu="T4", queue_seconds=0.5),
    ).to_dict()


def host(*scripts: Script) -> tuple[InMemoryBackend, FunctionRegistry]:
    backend = InMemoryBackend()
    names = ("render_overlay", "process_framing", "apply_upscale")
    for name, script in zip(names, scripts or [Script(rendered)] * 3, strict=True):
        backend.script(name, script)
    return backend, FunctionRegistry(Settings(), backend=backend)


async def test_chain_runs_steps_in_order_and_returns_last_result() -> None:
    backend, registry = host()
    submitted: list[Job[Any]] = []
    chain = await registry.chain(OVERLAY, FRAMING, UPSCALE, on_job=submitted.append)
    assert (await chain.result()).output_key == "large.mp4"
    assert [each.function for each in backend.submitted] == ["render_overlay", "process_framing", "apply_upscale"]
    assert [job.function for job in submitted] == [each.function for each in backend.submitted]
    assert await chain.status() == "succeeded"


async def test_chain_receipt_sums_the_usage_of_all_steps() -> None:
    _, registry = host()
    receipt = await (await registry.chain(OVERLAY, FRAMING, UPSCALE)).receipt()
    usage = receipt.usage
    assert [step.output_key for step in receipt.steps] == ["marked.mp4", "reel.mp4", "large.mp4"]
    assert (usage.dollars, usage.seconds, usage.queue_seconds, usage.gpu) == (3.0, 6.0, 1.5, "T4")
    assert usage.peak_memory_bytes == 3  # the highest, not the sum


async def test_chain_progress_never_decreases_and_names_the_step() -> None:
    events = [event(number + 1, done=number) for number in range(11)]
    script = Script(rendered, events=events, seconds=0.3)
    _, registry = host(script, script, script)
    chain = await registry.chain(OVERLAY, FRAMING, UPSCALE)
    updates = [update async for update in chain.progress(interval_seconds=0.02)]
    assert all(before.progress <= after.progress for before, after in pairwise(updates))
    assert all(before.sequence < after.sequence for before, after in pairwise(updates))
    assert {update.message.partition(":")[0] for update in updates[:-1]} == {f"Step {n} of 3" for n in (1, 2, 3)}
    assert (updates[-1].status, updates[-1].progress, updates[-1].eta_seconds) == ("complete", 100.0, 0.0)
    assert [update.ended for update in updates].count(True) == 1


async def test_chain_of_one_step_has_no_step_in_its_messages() -> None:
    _, registry = host()
    chain = await registry.chain(OVERLAY)
    messages = [update.message async for update in chain.progress(interval_seconds=0.01)]
    assert messages[-1] == "Done."
    assert not any("Step" in message for message in messages)


async def test_chain_failed_step_ends_it_with_the_error_of_the_step() -> None:
    backend, registry = host(Script(rendered), Script(error=InvalidMediaError("not a video")), Script(rendered))
    chain = await registry.chain(OVERLAY, FRAMING, UPSCALE)
    with pytest.raises(BadInputError, match=r"process_framing.*not a video"):
        await chain.result()
    assert [each.function for each in backend.submitted] == ["render_overlay", "process_framing"]
    last = [update async for update in chain.progress()][-1]
    assert (last.status, await chain.status()) == ("error", "failed")


async def test_chain_cancel_ends_running_step_and_starts_no_other() -> None:
    backend, registry = host(Script(rendered), Script(rendered, seconds=60), Script(rendered))
    second = asyncio.Event()
    on_job = lambda job: second.set() if job.function == "process_framing" else None  # noqa: E731
    chain = await registry.chain(OVERLAY, FRAMING, UPSCALE, on_job=on_job)
    await second.wait()
    await chain.cancel()
    with pytest.raises(JobCancelledError):
        await chain.result()
    assert len(backend.submitted) == 2
    assert backend.cancelled == [backend.submitted[1].call_id]
    assert await chain.status() == "cancelled"


async def test_chain_cancelled_waiter_cancels_the_running_step() -> None:
    backend, registry = host(Script(rendered, seconds=60), Script(rendered), Script(rendered))
    started = asyncio.Event()
    chain = await registry.chain(OVERLAY, FRAMING, UPSCALE, on_job=lambda _job: started.set())
    await started.wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await chain.result()
    with pytest.raises(JobCancelledError):
        await chain.result()
    assert (len(backend.submitted), len(backend.cancelled)) == (1, 1)


@pytest.mark.parametrize(
    ("requests", "path"),
    [
        ((), ""),
        ((OVERLAY, UPSCALE), "input_key"),
        ((OVERLAY, replace(FRAMING, output_key="other.mp4", input_key="marked2.mp4")), "input_key"),
        ((OVERLAY, FRAMING, replace(UPSCALE, output_key="marked.mp4")), "output_key"),
    ],
)
async def test_chain_of_unconnected_requests_is_refused(requests: tuple[Any, ...], path: str) -> None:
    backend, registry = host()
    with pytest.raises(RequestError) as caught:
        await registry.chain(*requests)
    assert (caught.value.path, backend.submitted) == (path, [])


async def test_chain_attaches_to_running_job_of_earlier_process() -> None:
    backend, registry = host(Script(rendered), Script(rendered, seconds=0.2), Script(rendered))
    job = await registry.submit(FRAMING)
    chain = await registry.chain(FRAMING, UPSCALE, running_job_id=job.id)
    assert (await chain.result()).output_key == "large.mp4"
    assert [each.function for each in backend.submitted] == ["process_framing", "apply_upscale"]


def test_reel_in_a_chain_needs_one_clip_that_an_earlier_step_makes() -> None:
    def reel(*keys: str) -> ReelRequest:
        clips = [ReelClip(input_key=key) for key in keys]
        return ReelRequest(job_id="j-4", output_key="all.mp4", clips=clips, **KEYS)

    check_chain([OVERLAY, FRAMING, reel("intro.mp4", "reel.mp4")])
    with pytest.raises(RequestError, match="which no earlier step makes"):
        check_chain([OVERLAY, FRAMING, reel("intro.mp4", "in.mp4")])
