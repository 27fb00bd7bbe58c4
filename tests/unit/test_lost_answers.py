"""A job whose output is there has succeeded, whatever became of its machine or of the answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.jobs import overlay, publish, rendered

from reel_modal import FunctionRegistry, Settings, Storage
from reel_modal.errors import FunctionError, JobNotFoundError, WorkerCrashedError
from reel_modal.schema import StoreOptions
from reel_modal.testing import InMemoryBackend, Script

REQUEST = replace(overlay("lost"), store=StoreOptions())


@pytest.fixture
def backend() -> InMemoryBackend:
    return InMemoryBackend()


@pytest.fixture
def registry(tmp_path: Path, backend: InMemoryBackend) -> FunctionRegistry:
    return FunctionRegistry(Settings(store_url=tmp_path.as_uri()), backend=backend)


async def test_a_container_that_is_lost_after_publishing_has_succeeded(
    registry: FunctionRegistry, backend: InMemoryBackend, tmp_path: Path
) -> None:
    lost = WorkerCrashedError("the machine is gone", function="render_overlay")
    backend.script("render_overlay", Script(error=lost))
    job = await registry["render_overlay"].submit(REQUEST)
    made = publish(REQUEST, tmp_path)
    assert await job.result() == made
    assert await job.status() == "succeeded"
    assert [update.phase async for update in job.progress()][-1] == "complete"


async def test_the_output_is_looked_at_before_the_backend_is_asked(
    registry: FunctionRegistry, backend: InMemoryBackend, tmp_path: Path
) -> None:
    backend.script("render_overlay", Script(seconds=1e9))
    job = await registry["render_overlay"].submit(REQUEST)
    assert await job.status() == "queued"
    publish(REQUEST, tmp_path)
    backend.fail_requests(1000)
    assert await job.status() == "succeeded"
    backend.fail_requests(0)
    await job.cancel()


async def test_a_host_that_comes_back_after_the_answer_has_expired_finds_the_result(
    registry: FunctionRegistry, tmp_path: Path
) -> None:
    with_request = registry.attach("memory:render_overlay:forgotten", REQUEST)
    without = registry.attach("memory:render_overlay:forgotten")
    assert await with_request.status() == "unknown"
    made = publish(REQUEST, tmp_path)
    assert (await with_request.status(), await without.status()) == ("succeeded", "unknown")
    assert await with_request.result() == made
    with pytest.raises(JobNotFoundError):
        await without.result()


@pytest.mark.parametrize("change", ["another job", "another request", "another output", "no output", "no record"])
async def test_what_is_not_this_jobs_output_does_not_count(
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


async def test_a_store_that_fails_is_said_and_the_backend_has_the_word(
    backend: InMemoryBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(store_url=(tmp_path / "not there").as_uri())
    backend.script("render_overlay", Script(rendered))
    job = await FunctionRegistry(settings, backend=backend)["render_overlay"].submit(REQUEST)
    assert (await job.result()).job_id == "lost"
    assert await job.status() == "succeeded"
    assert "the store did not say whether" in caplog.text


def test_a_record_is_small_and_says_what_a_person_wants_to_know(tmp_path: Path) -> None:
    publish(REQUEST, tmp_path)
    key = f"users/user/out/receipts/{REQUEST.request_hash()}.json"
    said = json.loads(Storage.from_url(tmp_path.as_uri()).read_bytes(key))
    assert said["result"]["job_id"] == "lost"
    assert set(said) == {"format", "fingerprint", "source_version", "result"}
