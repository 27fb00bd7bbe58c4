"""The package on Modal: the real client, command line and container runtime, and the same lines of a host."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from tests.clips import Clips
from tests.integration.modal_app import APP, Deployed, app_plane, deploy
from tests.jobs import GLOBAL
from tests.object_store import ObjectStore, free_ports
from tests.processes import executable, family

from reel_modal.backends import modal as modal_backend
from reel_modal.client import FunctionRegistry
from reel_modal.config import Settings
from reel_modal.errors import (
    AuthError,
    BadInputError,
    ConfigError,
    DeploymentDriftError,
    FFmpegError,
    FunctionError,
    InvalidMediaError,
    JobCancelledError,
    MisconfiguredError,
    NotDeployedError,
    RemoteError,
    StorageUnavailableError,
)
from reel_modal.functions.contract import local_contract
from reel_modal.functions.specs import SPECS
from reel_modal.pricing import PUBLISHED_RATES
from reel_modal.schema import FramingRequest, OverlayRequest, StoreOptions, UpscaleRequest, store_key
from reel_modal.storage import Storage
from reel_modal.testing import make_clip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["app_plane"]


@pytest.fixture
def app(app_plane: Deployed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    from tests.integration.loopback.fixtures import fresh

    with fresh(app_plane.plane, monkeypatch):
        yield app_plane


def request(job_id: str, *, source: str = "in.mp4", output: str = "") -> OverlayRequest:
    region = {
        "id": "player",
        "startTime": 0,
        "endTime": 1.5,
        "keyframes": [
            {"time": 0, "x": 80, "y": 90, "radiusX": 40, "radiusY": 30},
            {"time": 1.5, "x": 200, "y": 90, "radiusX": 40, "radiusY": 30},
        ],
    }
    return OverlayRequest.parse(
        {
            "jobId": job_id,
            "userId": "u",
            "inputKey": source,
            "outputKey": output or f"out/{job_id}.mp4",
            "highlightRegions": [region],
            "store": GLOBAL.to_dict(),
        }
    )


def framing(job_id: str, *, output: str) -> FramingRequest:
    """A pan, a trim and slow motion: everything that is made frame by frame."""
    return FramingRequest.parse(
        {
            "jobId": job_id,
            "userId": "u",
            "inputKey": "in.mp4",
            "outputKey": output,
            "cropKeyframes": [
                {"time": 0, "x": 10, "y": 0, "width": 90, "height": 160},
                {"time": 3, "x": 150.5, "y": 0, "width": 90, "height": 160},
            ],
            "segmentData": {"trimStart": 0.5, "trimEnd": 2.5, "segments": [{"start": 1, "end": 1.5, "speed": 0.5}]},
            "outputWidth": 108,
            "outputHeight": 192,
            "store": GLOBAL.to_dict(),
        }
    )


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0)]


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


async def render(asked: OverlayRequest) -> list[str]:
    """The lines of a host; nothing in them says where the job runs."""
    async with FunctionRegistry.from_env() as registry:
        job = await registry["render_overlay"].submit(asked)
        phases = [event.phase async for event in job.events()]
        result = await job.result()
        assert await job.status() == "succeeded"
        assert (result.job_id, result.frames) == (asked.job_id, 250)
    return list(dict.fromkeys(phases))


async def test_modal_and_this_machine_render_the_same_frames(
    app: Deployed, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(clips.get("bikes.mp4"), app.store / "in.mp4")
    monkeypatch.setenv("REEL_MODAL_ENVIRONMENT", "test")
    monkeypatch.setenv("REEL_MODAL_STORE_URL", app.store.as_uri())
    phases, frames = [], []
    for enabled in ("true", "false"):
        monkeypatch.setenv("MODAL_ENABLED", enabled)
        phases.append(await render(request(f"modal-{enabled}")))
        frames.append(pictures(app.store / f"out/modal-{enabled}.mp4"))
    assert phases[0] == phases[1]
    assert len(frames[0]) == len(frames[1]) == 250
    assert all(np.array_equal(one, other) for one, other in zip(*frames, strict=True))
    assert app.plane.count("FunctionMap") == 1


def larger(output: str, **fields: object) -> UpscaleRequest:
    asked = {"jobId": output, "userId": "u", "inputKey": "in.mp4", "outputKey": output, "scale": 2, **fields}
    asked.setdefault("store", GLOBAL.to_dict())
    return UpscaleRequest.parse(asked)


async def test_modal_and_this_machine_enlarge_the_same_frames(app: Deployed) -> None:
    make_clip(app.store / "in.mp4", size=(96, 64), seconds=0.4, audio_seconds=0.4)
    async with FunctionRegistry(app.settings) as there:
        result = await there["apply_upscale"](larger("out/there.mp4", provider="cpu"))
    async with FunctionRegistry(replace(app.settings, modal_enabled=False)) as here:
        await here["apply_upscale"](larger("out/here.mp4"))
    assert (result.size, result.frames, result.engine) == ((192, 128), 10, "onnxruntime-cpu fp32 small-x2")
    frames = [pictures(app.store / f"out/{name}.mp4") for name in ("there", "here")]
    assert all(np.array_equal(one, other) for one, other in zip(*frames, strict=True))


async def test_a_container_that_is_paid_for_its_gpu_does_not_go_on_without_it(app: Deployed) -> None:
    make_clip(app.store / "in.mp4", size=(96, 64), seconds=0.2)
    async with FunctionRegistry(app.settings) as registry:
        with pytest.raises(RemoteError, match="the GPU was asked for"):
            await registry["apply_upscale"](larger("out/gpu.mp4"))
    assert not (app.store / "out/gpu.mp4").exists()


async def test_modal_and_this_machine_work_on_a_bucket(
    app: Deployed, s3: ObjectStore, clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3.url("both-places")
    storage = Storage.from_url(url)
    storage.publish(Path(shutil.copy(clips.get("25.mp4"), tmp_path / "in.mp4")), store_key("in.mp4", "user", "u"))
    former = {"REEL_MODAL_STORE_URL": app.store.as_uri()}
    app.plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": url, **s3.environment})
    app.plane.end_containers()
    made, receipts = [], []
    try:
        for enabled in (True, False):
            settings = replace(app.settings, modal_enabled=enabled, store_url=url)
            async with FunctionRegistry(settings) as registry:
                for name, asked in (
                    ("render_overlay", request(f"overlay-{enabled}")),
                    ("process_framing", framing(f"framing-{enabled}", output=f"framing-{enabled}.mp4")),
                    ("apply_upscale", larger(f"upscale-{enabled}.mp4", provider="cpu")),
                ):
                    job = await registry[name].submit(replace(asked, store=StoreOptions()))
                    receipts.append((await job.result()).usage)
                    assert await registry.attach(job.id, asked).status() == "succeeded"
                    made.append(pictures(storage.fetch(store_key(asked.output_key, "user", "u"), tmp_path)))
    finally:
        app.plane.create_secret("reel-modal-storage", former)
        app.plane.end_containers()
    for there, here in zip(made[:3], made[3:], strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(there, here, strict=True))
    for usage in receipts:
        assert usage is not None
        assert usage.bytes_in >= clips.get("25.mp4").stat().st_size
        assert usage.queue_seconds is not None
        assert usage.seconds > 0
    on_modal, without_gpu, upscaled, here, *_ = [usage for usage in receipts if usage is not None]
    assert (on_modal.gpu, without_gpu.gpu, upscaled.gpu, here.gpu) == ("T4", None, "A10G", None)
    assert upscaled.model
    rate = PUBLISHED_RATES.usd_per_second(gpu="T4", cpu=4, memory_mb=4096)
    assert on_modal.dollars == pytest.approx(on_modal.gpu_seconds * rate)
    assert on_modal.gpu_seconds == pytest.approx(on_modal.startup_seconds + on_modal.seconds)
    assert on_modal.rates_dated == PUBLISHED_RATES.dated
    assert without_gpu.dollars > 0
    assert (here.dollars, here.rates_dated) == (0.0, "")


async def test_a_container_says_whether_it_was_started_for_the_job(
    app: Deployed, clips: Clips, tmp_path: Path
) -> None:
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    settings = replace(app.settings, timings=str(tmp_path / "timings"))
    async with FunctionRegistry(settings) as registry:
        starts = [(await registry["render_overlay"](request(f"start {number}"))).cold_start for number in range(3)]
        (known,) = registry.history.summary()
    assert starts[1:] == [False, False]  # the first may have found the container of a test before it
    assert (known.gpu, known.jobs) == ("T4", 3)
    assert known.warm_startup is not None
    assert known.warm_startup.jobs == starts.count(False)


def test_the_table_is_what_is_deployed(app: Deployed) -> None:
    deployed = app.plane.functions(APP)
    assert set(deployed) == {*SPECS, local_contract({}).name}
    for name, spec in SPECS.items():
        there = deployed[name]
        assert (there.gpus, there.cpu, there.memory_mib) == (spec.gpu, spec.cpu, spec.memory_mb)
        assert (there.timeout_seconds, there.retries) == (spec.timeout_seconds, spec.retries)
        # Behind the named ones comes the one that carries `env`.
        assert (there.max_containers, there.secrets[:-1]) == (spec.max_containers, spec.secrets)
        assert there.startup_timeout_seconds == spec.startup_timeout_seconds
        assert there.scaledown_window_seconds == spec.scaledown_window_seconds
        image = "\n".join(there.image_commands)
        assert f"FROM python:{spec.image.python_version}" in image
        assert all(package in image for package in spec.image.pip)
        assert ("apt-get install -y --no-install-recommends ffmpeg" in image) == bool(spec.gpu)
        assert ("NVIDIA_DRIVER_CAPABILITIES" in image) == bool(spec.gpu)
        assert there.variables["REEL_MODAL_CPU"] == "4"
        assert any(file.endswith("reel_modal/functions/render_overlay.py") for file in there.mounted_files)


def test_a_person_changes_resources_by_the_environment_of_a_deploy(app: Deployed) -> None:
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
    assert "apt-get install -y --no-install-recommends ffmpeg" not in "\n".join(
        deployed["render_overlay"].image_commands
    )
    # Receipts are made in containers.
    assert all(deployed[name].variables["REEL_MODAL_RATES"] == "T4=0.0001" for name in SPECS)
    app.plane.stop_app("another-test")


async def test_an_input_that_is_refused_comes_back_as_what_the_body_raised(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("garbage.mp4"), app.store / "garbage.mp4")
    async with FunctionRegistry(app.settings) as registry:
        with pytest.raises(BadInputError, match="cannot be read as a video") as caught:
            await registry["render_overlay"](request("garbage", source="garbage.mp4"))
    assert isinstance(caught.value.__cause__, InvalidMediaError)
    assert not (app.store / "out/garbage.mp4").exists()


@contextmanager
def other_secret(app: Deployed, values: dict[str, str]) -> Iterator[None]:
    """Give new containers another secret."""
    app.plane.create_secret("reel-modal-storage", values)
    app.plane.end_containers()
    try:
        yield
    finally:
        app.plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": app.store.as_uri()})
        app.plane.end_containers()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ANOTHER": "variable"}, "REEL_MODAL_STORE_URL"),
        ({"REEL_MODAL_STORE_URL": "file:///nope"}, "'/nope' is not there"),
        ({"REEL_MODAL_STORE_URL": "s3://bucket/prefix"}, "no credentials for 's3://bucket/prefix'"),
    ],
    ids=["no store", "no folder", "no credentials"],
)
async def test_container_without_its_secret_is_misconfigured(
    app: Deployed, values: dict[str, str], said: str
) -> None:
    with other_secret(app, values):
        with pytest.raises(ConfigError, match=said) as caught:
            await FunctionRegistry(app.settings)["render_overlay"](request("misconfigured"))
        assert isinstance(caught.value, MisconfiguredError)
        assert not caught.value.retryable


async def test_container_whose_store_is_unreachable_fails_retryable(app: Deployed) -> None:
    (port,) = free_ports(1)
    url = f"s3://bucket/prefix?endpoint=http://127.0.0.1:{port}&region=us-east-1"
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}
    with other_secret(app, {"REEL_MODAL_STORE_URL": url, **keys}):
        with pytest.raises(FunctionError, match="the store did not answer") as caught:
            await FunctionRegistry(app.settings)["render_overlay"](request("unreachable"))
        assert isinstance(caught.value.__cause__, StorageUnavailableError)
        assert caught.value.retryable


async def test_container_whose_ffmpeg_is_killed_fails_retryable(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("bigbuckbunny.mp4"), app.store / "in.mp4")
    asked = request("killed-ffmpeg")
    asked = replace(asked, encode=replace(asked.encode, encoder="libx264", preset="veryslow", smart=False))
    async with FunctionRegistry(app.settings) as registry:
        job = await registry["render_overlay"].submit(asked)
        async for event in job.events():
            if event.phase == "render" and event.done:
                break
        (container,) = app.plane.containers("render_overlay")
        assert container.pid is not None
        os.kill(next(pid for pid in family(container.pid) if "ffmpeg" in executable(pid)), signal.SIGKILL)
        with pytest.raises(FunctionError, match="SIGKILL") as caught:
            await job.result()
    assert isinstance(caught.value.__cause__, FFmpegError)
    assert caught.value.retryable


async def test_a_host_of_another_version_says_so_once_and_at_the_cost_of_one_request(
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
    there, here = local_contract({}).name, local_contract().name
    assert [message.splitlines()[1:] for message in caplog.messages] == [
        ["  gpu: T4 is deployed, L4 is here", f"  contract: {there} is deployed, {here} is here"],
        [f"  contract: {there} is deployed, {here} is here"],
    ]
    assert (app.plane.count("FunctionGet"), app.plane.count("AppGetOrCreate")) == (3, 2)


async def test_a_host_can_refuse_to_work_with_another_version(app: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = replace(app.settings, on_drift="error")
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_TIMEOUT_SECONDS", "60")
    async with FunctionRegistry(strict) as registry:
        with pytest.raises(DeploymentDriftError) as caught:
            await registry["render_overlay"].submit(request("strict"))
        assert caught.value.differences[0] == "timeout_seconds: 600 is deployed, 60 is here"
        (check,) = [check for check in await registry.verify() if check.function == "render_overlay"]
        assert isinstance(check.error, DeploymentDriftError)
        assert app.plane.count("FunctionMap") == 0
        # It is looked at again, so a deploy cures it without a restart.
        monkeypatch.delenv("REEL_MODAL_RENDER_OVERLAY_TIMEOUT_SECONDS")
        await registry["render_overlay"].hydrate()
        assert all(check.ok for check in await registry.verify())


async def test_whether_the_versions_fit_is_not_asked_where_nobody_wants_to_know(
    app: Deployed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_GPU", "L4")
    await FunctionRegistry(replace(app.settings, on_drift="off"))["render_overlay"].hydrate()
    here = Settings(store_url=app.settings.store_url, on_drift="error")
    await FunctionRegistry(here)["render_overlay"].hydrate()
    assert (app.plane.count("AppGetOrCreate"), caplog.messages) == (0, [])


async def test_when_nobody_can_say_which_version_is_deployed_jobs_run_and_the_log_says_so(
    app: Deployed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpclib import Status

    app.plane.faults.fail("AppGetOrCreate", Status.PERMISSION_DENIED, times=2)
    await FunctionRegistry(app.settings)["render_overlay"].hydrate()
    assert "it is not known whether render_overlay was deployed by this version" in caplog.text
    with pytest.raises(AuthError):
        await FunctionRegistry(replace(app.settings, on_drift="error"))["render_overlay"].hydrate()
    caplog.clear()
    app.plane.faults.hang("AppGetOrCreate")
    monkeypatch.setattr("reel_modal.backends.modal._DRIFT_SECONDS", 0.1)
    await FunctionRegistry(app.settings)["render_overlay"].hydrate()
    assert "nothing came within 0.1 s" in caplog.text


async def test_a_wrong_token_is_named(app: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-wrong")
    async with FunctionRegistry(app.settings) as registry:
        with pytest.raises(AuthError, match="MODAL_TOKEN_ID"):
            await registry["render_overlay"].submit(request("token"))


async def test_an_app_that_is_not_deployed_is_named(app: Deployed) -> None:
    settings = replace(app.settings, environment="staging")
    async with FunctionRegistry(settings) as registry:
        (check,) = [check for check in await registry.verify() if check.function == "render_overlay"]
        assert isinstance(check.error, NotDeployedError)
        with pytest.raises(NotDeployedError, match="reel-modal-staging/render_overlay"):
            await registry["render_overlay"].submit(request("nowhere"))


async def test_a_failed_look_up_is_not_kept(app: Deployed) -> None:
    from grpclib import Status

    function = FunctionRegistry(app.settings)["render_overlay"]
    app.plane.faults.fail("FunctionGet", Status.NOT_FOUND, times=1)
    with pytest.raises(NotDeployedError):
        await function.hydrate()
    await function.hydrate()
    assert app.plane.count("FunctionGet") == 2


async def test_an_app_that_was_stopped_and_deployed_again_is_found(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    async with FunctionRegistry(app.settings) as registry:
        await registry["render_overlay"].hydrate()
        app.plane.stop_and_redeploy(APP)
        result = await registry["render_overlay"](request("again"))
        assert result.frames == 25
    assert (app.plane.count("FunctionGet"), app.plane.count("AppGetOrCreate")) == (2, 2)


async def test_cancelling_ends_the_call_and_leaves_no_output(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("bigbuckbunny.mp4"), app.store / "in.mp4")
    async with FunctionRegistry(app.settings) as registry:
        job = await registry["render_overlay"].submit(request("cancelled"))
        async for event in job.events():
            if event.phase == "render":
                break
        await job.cancel()
        with pytest.raises(JobCancelledError):
            await job.result(timeout=30)
        assert await job.status() == "cancelled"
    app.plane.wait_for(lambda: not any(container.call_ids for container in app.plane.containers()))
    assert not (app.store / "out/cancelled.mp4").exists()
    assert app.plane.count("FunctionCallCancel") == 1


async def test_the_events_of_a_job_end_with_it_though_nothing_says_that_they_do(
    app: Deployed, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modal_backend, "_IDLE_SECONDS", 1000.0)
    shutil.copy(clips.get("bigbuckbunny.mp4"), app.store / "in.mp4")
    async with FunctionRegistry(app.settings) as registry:
        job = await registry["render_overlay"].submit(request("killed"))
        phases = []
        async for event in job.events():
            phases.append(event.phase)
            if event.phase == "render" and "render" not in phases[:-1]:
                await asyncio.to_thread(app.plane.kill_container, "render_overlay")
        assert set(phases) == {"fetch", "render"}
        with pytest.raises(RemoteError):
            await job.result()
        # Who comes late hears the same, and is not kept waiting either.
        assert [event.phase async for event in job.events()] == phases


HOST = """
import asyncio, sys
from reel_modal import FunctionRegistry
from tests.jobs import overlay

async def submit(registry):
    job = await registry["render_overlay"].submit(overlay("survivor", source="in.mp4", preset="slow"))
    print(job.id, flush=True)
    async for event in job.events():
        print(event.phase, flush=True)

async def attach(registry, job_id):
    job = registry.attach(job_id)
    result = await job.result()
    print(await job.status(), result.job_id, result.frames, flush=True)

registry = FunctionRegistry.from_env()
asyncio.run(attach(registry, sys.argv[1]) if sys.argv[1:] else submit(registry))
"""


def test_a_job_outlives_its_host_and_the_next_one_finds_it(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("bikes.mp4"), app.store / "in.mp4")
    environment = os.environ | {
        "MODAL_ENABLED": "true",
        "REEL_MODAL_ENVIRONMENT": "test",
        "REEL_MODAL_STORE_URL": app.store.as_uri(),
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]),
    }
    command = [sys.executable, "-c", HOST]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        job_id = host.stdout.readline().strip()
        assert "render" in iter(lambda: host.stdout.readline().strip(), "")  # type: ignore[union-attr]
        host.kill()
    assert host.returncode == -signal.SIGKILL
    assert not (app.store / "out/survivor.mp4").exists()
    found = subprocess.run(
        [*command, job_id], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    assert found.stdout == "succeeded survivor 250\n"
    assert len(pictures(app.store / "out/survivor.mp4")) == 250
    assert app.plane.count("FunctionMap") == 1


async def test_a_host_that_comes_after_the_events_have_expired_still_gets_the_result(
    app: Deployed, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modal_backend, "_LATE_SECONDS", 0.1)
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    job = await FunctionRegistry(app.settings)["render_overlay"].submit(request("expired"))
    assert [event async for event in job.events()]
    app.plane.pass_time(4 * 3600 + 1.0)
    found = FunctionRegistry(app.settings).attach(job.id)
    assert [event async for event in found.events()] == []
    updates = [update async for update in found.progress(interval_seconds=0.05)]
    assert (updates[-1].phase, updates[-1].percent) == ("complete", 100)
    assert await found.status() == "succeeded"
    assert (await found.result()).frames == 25


async def test_a_job_is_found_again_by_another_registry(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    job = await FunctionRegistry(app.settings)["render_overlay"].submit(request("found"))
    found = FunctionRegistry(app.settings).attach(job.id)
    assert (await found.result(timeout=60)).job_id == "found"
    assert Counter([event.phase async for event in found.events()])["render"] >= 2
