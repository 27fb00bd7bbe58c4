"""The log of a job on Modal: in its error, from the job, and on the command line."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys

import pytest
from grpclib import Status
from tests.clips import Clips, made_clip
from tests.integration.modal_app import Deployed, app, app_plane, request
from tests.jobs import GLOBAL

from reel_modal import FunctionRegistry, RemoteError, UpscaleRequest
from reel_modal.cli import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["app", "app_plane"]


@pytest.fixture
def failing(app: Deployed) -> UpscaleRequest:
    """A request that fails in a container without a GPU."""
    made_clip(app.store / "in.mp4", size=(96, 64), seconds=0.2)
    return UpscaleRequest.parse(
        {
            "jobId": "gpu",
            "userId": "u",
            "inputKey": "in.mp4",
            "outputKey": "out/gpu.mp4",
            "scale": 2,
            "store": GLOBAL.to_dict(),
        }
    )


async def test_modal_error_has_log_of_its_own_call(app: Deployed, failing: UpscaleRequest) -> None:
    async with FunctionRegistry(app.settings) as registry:
        job = await registry.submit(failing)
        with pytest.raises(RemoteError, match="the GPU was requested") as caught:
            await job.result()
        # Modal's runtime writes the traceback of the body to stderr.
        assert "the GPU was requested" in "\n".join(caught.value.log)
        assert len(caught.value.log) <= 20
        log = await job.logs(1000)
        assert log[-len(caught.value.log) :] == caught.value.log
        # Another job of the same container has its own log.
        other = await registry.submit(UpscaleRequest.parse({**failing.to_dict(), "job_id": "second"}))
        with pytest.raises(RemoteError):
            await other.result()
        assert await job.logs(1000) == log
        assert await other.logs(1000)


@pytest.mark.parametrize("fault", ["refused", "silent"])
async def test_modal_unreadable_log_does_not_hide_error(
    app: Deployed, failing: UpscaleRequest, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reel_modal._jobs.job._LOG_SECONDS", 0.5)
    if fault == "silent":
        app.plane.faults.hang("AppFetchLogs")
    else:
        app.plane.faults.fail("AppFetchLogs", Status.PERMISSION_DENIED)
    async with FunctionRegistry(app.settings) as registry:
        with pytest.raises(RemoteError, match="the GPU was requested") as caught:
            await registry.run(failing)
    (line,) = caught.value.log
    assert line.startswith("[the log could not be read: ")


async def test_modal_killed_container_error_has_log(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("bikes.mp4"), app.store / "in.mp4")
    app.plane.end_containers()
    async with FunctionRegistry(app.settings) as registry:
        job = await registry["render_overlay"].submit(request("killed"))
        async for event in job.events():
            if event.phase == "render":
                break
        for container in app.plane.containers("render_overlay"):
            with (container.folder / "stderr").open("a") as file:
                file.write("out of luck\n")
        await asyncio.to_thread(app.plane.kill_container, "render_overlay", out_of_memory=True)
        with pytest.raises(RemoteError) as caught:
            await job.result()
    assert caught.value.kind == "out_of_memory"
    assert caught.value.log == ("out of luck",)


def test_logs_command_prints_the_log(
    app: Deployed, failing: UpscaleRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> str:
        async with FunctionRegistry(app.settings) as registry:
            job = await registry.submit(failing)
            with pytest.raises(RemoteError):
                await job.result()
            return job.id

    job_id = asyncio.run(fail())
    monkeypatch.setenv("MODAL_ENABLED", "true")
    monkeypatch.setenv("REEL_MODAL_ENVIRONMENT", "test")
    assert main(["logs", job_id]) == 0
    assert "the GPU was requested" in capsys.readouterr().out
    assert main(["logs", job_id, "--lines", "1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["job"], len(printed["lines"])) == (job_id, 1)
    assert main(["logs", "local:render_overlay:abc"]) == 3
    assert "MODAL_ENABLED has changed" in capsys.readouterr().err
    assert main(["logs", "nonsense"]) == 3
