"""The deployment on Modal: its resources, its version, and how a host finds it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.clips import Clips
from tests.integration.modal_app import APP, Deployed, deploy, request
from tests.run_function import DEPLOYED

from reel_modal.client import FunctionRegistry
from reel_modal.errors import AuthError, DeploymentDriftError, NotDeployedError
from reel_modal.functions.contract import local_contract
from reel_modal.functions.image_locks import lock_of
from reel_modal.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")


def test_modal_deployment_matches_specs(app: Deployed) -> None:
    deployed = app.plane.functions(APP)
    assert set(deployed) == {*DEPLOYED, local_contract({}).name}
    for name, spec in DEPLOYED.items():
        function = deployed[name]
        assert (function.gpus, function.cpu, function.memory_mib) == (spec.gpu, spec.cpu, spec.memory_mb)
        assert (function.timeout_seconds, function.retries) == (spec.timeout_seconds, spec.retries)
        # The named ones are followed by the one for `env`.
        assert (function.max_containers, function.secrets[:-1]) == (spec.max_containers, spec.secrets)
        assert function.startup_timeout_seconds == spec.startup_timeout_seconds
        assert function.scaledown_window_seconds == spec.scaledown_window_seconds
        image = "\n".join(function.image_commands)
        assert f"FROM {spec.image.base}\n" in image
        lock = lock_of(spec.image)
        assert lock is not None
        assert function.image_files == {"/.requirements.txt": lock.read_bytes()}
        assert "pip install -r /.requirements.txt --require-hashes" in image
        assert ("apt-get install -y --no-install-recommends ffmpeg" in image) == bool(spec.gpu)
        assert ("NVIDIA_DRIVER_CAPABILITIES" in image) == bool(spec.gpu)
        assert function.variables["REEL_MODAL_CPU"] == f"{spec.cpu:g}"
        assert function.variables["OPENBLAS_NUM_THREADS"] == f"{spec.cpu:g}"
        assert any(file.endswith("reel_modal/functions/render_overlay.py") for file in function.mounted_files)


def test_modal_deploy_environment_changes_resources(app: Deployed) -> None:
    deploy(
        app.plane,
        REEL_MODAL_APP="another",
        REEL_MODAL_APPLY_UPSCALE_GPU="L40S, A10G:2",
        REEL_MODAL_RENDER_OVERLAY_GPU="none",
        REEL_MODAL_RENDER_OVERLAY_TIMEOUT_SECONDS="1200",
        REEL_MODAL_PROCESS_FRAMING_CPU="0.5",
        REEL_MODAL_RATES="T4=0.0001",
    )
    deployed = app.plane.functions("another-test")
    assert deployed["apply_upscale"].gpus == ("L40S", "A10G:2")
    assert (deployed["render_overlay"].gpus, deployed["render_overlay"].timeout_seconds) == ((), 1200)
    assert deployed["process_framing"].cpu == 0.5
    assert deployed["process_framing"].variables["REEL_MODAL_CPU"] == "0.5"
    assert deployed["process_framing"].variables["OPENBLAS_NUM_THREADS"] == "1"
    assert "apt-get install -y --no-install-recommends ffmpeg" not in "\n".join(
        deployed["render_overlay"].image_commands
    )
    # Receipts are written in containers.
    assert all(deployed[name].variables["REEL_MODAL_RATES"] == "T4=0.0001" for name in DEPLOYED)
    app.plane.stop_app("another-test")


async def test_modal_version_drift_warns_once_with_one_request(
    app: Deployed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = FunctionRegistry(app.settings)
    await registry["render_overlay"].hydrate()
    assert caplog.messages == []
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_GPU", "L4")
    other = FunctionRegistry(app.settings)
    await other["render_overlay"].hydrate()
    await other["process_framing"].hydrate()
    await other["render_overlay"].hydrate()
    deployed_name, local_name = local_contract({}).name, local_contract().name
    assert [message.splitlines()[1:] for message in caplog.messages] == [
        ["  gpu: T4 is deployed, L4 is local", f"  contract: {deployed_name} is deployed, {local_name} is local"],
        [f"  contract: {deployed_name} is deployed, {local_name} is local"],
    ]
    assert (app.plane.count("FunctionGet"), app.plane.count("AppGetOrCreate")) == (3, 2)


async def test_modal_version_drift_raises_if_configured(app: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = replace(app.settings, on_drift="error")
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_TIMEOUT_SECONDS", "60")
    async with FunctionRegistry(strict) as registry:
        with pytest.raises(DeploymentDriftError) as caught:
            await registry["render_overlay"].submit(request("strict"))
        assert caught.value.differences[0] == "timeout_seconds: 600 is deployed, 60 is local"
        (check,) = [check for check in await registry.verify() if check.function == "render_overlay"]
        assert isinstance(check.error, DeploymentDriftError)
        assert app.plane.count("FunctionMap") == 0
        # The deployment is checked again, so a deploy resolves the drift without a restart.
        monkeypatch.delenv("REEL_MODAL_RENDER_OVERLAY_TIMEOUT_SECONDS")
        await registry["render_overlay"].hydrate()
        assert all(check.ok for check in await registry.verify())


async def test_modal_version_check_disabled_says_nothing(
    app: Deployed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_GPU", "L4")
    await FunctionRegistry(replace(app.settings, on_drift="off"))["render_overlay"].hydrate()
    strict_settings = Settings(store_url=app.settings.store_url, on_drift="error")
    await FunctionRegistry(strict_settings)["render_overlay"].hydrate()
    # The version is read all the same, so that a deploy changes nothing for running jobs.
    assert (app.plane.count("AppGetOrCreate"), caplog.messages) == (1, [])


async def test_modal_version_unknown_runs_jobs_and_logs(
    app: Deployed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpclib import Status

    app.plane.faults.fail("AppGetOrCreate", Status.PERMISSION_DENIED, times=2)
    await FunctionRegistry(app.settings)["render_overlay"].hydrate()
    assert "cannot check whether render_overlay was deployed by this version" in caplog.text
    with pytest.raises(AuthError):
        await FunctionRegistry(replace(app.settings, on_drift="error"))["render_overlay"].hydrate()
    caplog.clear()
    app.plane.faults.hang("AppGetOrCreate")
    monkeypatch.setattr("reel_modal.backends.modal._DRIFT_SECONDS", 0.1)
    await FunctionRegistry(app.settings)["render_overlay"].hydrate()
    assert "no response within 0.1 s" in caplog.text


async def test_modal_wrong_token_is_named(app: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-wrong")
    async with FunctionRegistry(app.settings) as registry:
        with pytest.raises(AuthError, match="MODAL_TOKEN_ID"):
            await registry["render_overlay"].submit(request("token"))


async def test_modal_undeployed_app_is_named(app: Deployed) -> None:
    settings = replace(app.settings, environment="staging")
    async with FunctionRegistry(settings) as registry:
        (check,) = [check for check in await registry.verify() if check.function == "render_overlay"]
        assert isinstance(check.error, NotDeployedError)
        with pytest.raises(NotDeployedError, match="reel-modal-staging/render_overlay"):
            await registry["render_overlay"].submit(request("nowhere"))


async def test_modal_failed_lookup_is_not_cached(app: Deployed) -> None:
    from grpclib import Status

    function = FunctionRegistry(app.settings)["render_overlay"]
    app.plane.faults.fail("FunctionGet", Status.NOT_FOUND, times=1)
    with pytest.raises(NotDeployedError):
        await function.hydrate()
    await function.hydrate()
    assert app.plane.count("FunctionGet") == 2


async def test_modal_stopped_and_redeployed_app_is_found(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    async with FunctionRegistry(app.settings) as registry:
        await registry["render_overlay"].hydrate()
        app.plane.stop_and_redeploy(APP)
        result = await registry["render_overlay"](request("again"))
        assert result.frames == 25
    assert (app.plane.count("FunctionGet"), app.plane.count("AppGetOrCreate")) == (2, 2)


@pytest.fixture
def redeployed(app: Deployed) -> Iterator[Deployed]:
    """The app, which is deployed as usual again after the test."""
    yield app
    deploy(app.plane)


async def test_modal_deploy_changes_nothing_for_submitted_job(
    redeployed: Deployed, clips: Clips, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that waits for a container runs on the version of its submission."""
    app = redeployed
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    app.plane.end_containers()
    async with FunctionRegistry(app.settings) as registry:
        app.plane.faults.hang("FunctionGetInputs", side="container")
        job = await registry["render_overlay"].submit(request("in flight"))
        await asyncio.to_thread(deploy, app.plane, REEL_MODAL_RENDER_OVERLAY_TIMEOUT_SECONDS="1200")
        app.plane.faults.clear()
        assert (await job.result()).frames == 25
        (first,) = app.plane.containers("render_overlay")
        assert first.pinned_version > 0
        assert caplog.messages == []
        # A minute later, the next submission finds the new version, and says how it differs.
        monkeypatch.setattr("reel_modal.backends.modal._versions._PIN_SECONDS", 0.0)
        await registry["render_overlay"](request("after"))
        versions = {one.pinned_version for one in app.plane.containers("render_overlay")}
        assert versions == {first.pinned_version, first.pinned_version + 1}
    assert "timeout_seconds: 1200 is deployed, 600 is local" in caplog.text


async def test_modal_unchanged_version_is_looked_up_once(app: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reel_modal.backends.modal._versions._PIN_SECONDS", 0.0)
    function = FunctionRegistry(app.settings)["render_overlay"]
    for _ in range(3):
        await function.hydrate()
    assert (app.plane.count("AppGetOrCreate"), app.plane.count("FunctionGet")) == (3, 1)


async def test_modal_unreadable_version_keeps_the_former_one(
    app: Deployed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from grpclib import Status

    monkeypatch.setattr("reel_modal.backends.modal._versions._PIN_SECONDS", 0.0)
    function = FunctionRegistry(replace(app.settings, on_drift="error"))["render_overlay"]
    await function.hydrate()
    app.plane.faults.fail("AppGetOrCreate", Status.PERMISSION_DENIED)
    await function.hydrate()
    assert "jobs stay on version" in caplog.text
    assert app.plane.count("FunctionGet") == 1
