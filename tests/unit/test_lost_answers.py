"""A job whose output is published has succeeded, even if its machine or its response was lost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.jobs import overlay, publish, rendered

from reel_modal import FunctionRegistry, JobOptions, ProgressUpdate, Settings, Storage
from reel_modal.backends.base import CallResult
from reel_modal.errors import FunctionError, JobNotFoundError, UnavailableError, WorkerCrashedError
from reel_modal.schema import StoreOptions
from reel_modal.testing import InMemoryBackend, Script

REQUEST = replace(overlay("lost"), store=StoreOptions())


@pytest.fixture
def backend() -> InMemoryBackend:
    return InMemoryBackend()


@pytest.fixture
def registry(tmp_path: Path, backend: InMemoryBackend) -> FunctionRegistry:
    return FunctionRegistry(Settings(store_url=tmp_path.as_uri()), backend=backend)


async def test_result_of_lost_worker_after_publishing_succeeds(
    registry: FunctionRegistry, backend: InMemoryBackend, tmp_path: Path
) -> None:
    lost = WorkerCrashedError("the machine is gone", function="render_overlay")
    backend.script("render_overlay", Script(error=lost))
    job = await registry["render_overlay"].submit(REQUEST)
    published = publish(REQUEST, tmp_path)
    assert await job.result() == published
    assert await job.status() == "succeeded"
    assert [update.phase async for update in job.progress()][-1] == "complete"


async def test_status_checks_the_output_before_the_backend(
    registry: FunctionRegistry, backend: InMemoryBackend, tmp_path: Path
) -> None:
    backend.script("render_overlay", Script(seconds=1e9))
    job = await registry["render_overlay"].submit(REQUEST)
    assert await job.status() == "queued"
    publish(REQUEST, tmp_path)
    backend.fail_next_requests(1000)
    assert await job.status() == "succeeded"
    backend.fail_next_requests(0)
    await job.cancel()


async def test_attach_with_request_finds_expired_result(registry: FunctionRegistry, tmp_path: Path) -> None:
    with_request = registry.attach("memory:render_overlay:forgotten", REQUEST)
    without = registry.attach("memory:render_overlay:forgotten")
    assert await with_request.status() == "unknown"
    published = publish(REQUEST, tmp_path)
    assert (await with_request.status(), await without.status()) == ("succeeded", "unknown")
    assert await with_request.result() == published
    with pytest.raises(JobNotFoundError):
        await without.result()


@pytest.mark.parametrize("change", ["another job", "another request", "another output", "no output", "no record"])
async def test_status_ignores_output_without_matching_receipt(
    registry: FunctionRegistry, backend: InMemoryBackend, tmp_path: Path, change: str
) -> None:
    backend.script("render_overlay", Script(error=FunctionError("it failed", function="render_overlay")))
    job = await registry["render_overlay"].submit(REQUEST)
    if change == "another job":
        publish(replace(REQUEST, job_id="another"), tmp_path)
    elif change == "another request":
        publish(replace(REQUEST, effect="brightness_boost"), tmp_path)
    else:
        publish(REQUEST, tmp_path)
    output = tmp_path / "users/user" / REQUEST.output_key
    if change == "another output":
        output.write_bytes(b"A video" * 1000)
    elif change == "no output":
        output.unlink()
    elif change == "no record":
        next((tmp_path / "users").rglob("*.json")).unlink()
    assert await job.status() == "failed"
    with pytest.raises(FunctionError):
        await job.result()


async def test_status_unreachable_store_warns_and_asks_the_backend(
    backend: InMemoryBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(store_url=(tmp_path / "not there").as_uri())
    backend.script("render_overlay", Script(rendered))
    job = await FunctionRegistry(settings, backend=backend)["render_overlay"].submit(REQUEST)
    assert (await job.result()).job_id == "lost"
    assert await job.status() == "succeeded"
    assert "cannot check whether the output" in caplog.text


def test_receipt_contains_only_documented_fields(tmp_path: Path) -> None:
    publish(REQUEST, tmp_path)
    key = f"users/user/out/receipts/{REQUEST.request_hash()}.json"
    receipt = json.loads(Storage.from_url(tmp_path.as_uri()).read_bytes(key))
    assert receipt["result"]["job_id"] == "lost"
    assert set(receipt) == {"format", "fingerprint", "source_version", "result"}


def test_run_sync_with_progress_gives_up_while_backend_is_silent() -> None:
    class Unreachable(InMemoryBackend):
        async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:
            del timeout_seconds
            raise UnavailableError("no connection", function="memory", call_id=call_id)

    updates: list[ProgressUpdate] = []
    silent = FunctionRegistry(Settings(), backend=Unreachable(), options=JobOptions(unavailable_seconds=0.1))
    with pytest.raises(UnavailableError, match="no connection"):
        silent.run_sync(overlay("silent"), on_progress=updates.append)
    assert updates
    assert not updates[-1].ended
