"""Jobs on Modal, with the real client and container runtime: frames, usage, errors, ends of hosts."""

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
from tests.clips import Clips, made_clip
from tests.integration.modal_app import Deployed, request
from tests.jobs import GLOBAL
from tests.object_store import ObjectStore, free_ports
from tests.processes import executable, family

from reel_modal._costs.rates import PUBLISHED_RATES
from reel_modal.backends import modal as modal_backend
from reel_modal.client import FunctionRegistry
from reel_modal.errors import (
    BadInputError,
    ConfigError,
    FFmpegError,
    FunctionError,
    InvalidMediaError,
    JobCancelledError,
    MisconfiguredError,
    RemoteError,
    StorageUnavailableError,
)
from reel_modal.schema import FramingRequest, OverlayRequest, ReelRequest, StoreOptions, UpscaleRequest, store_key
from reel_modal.storage import Storage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")


def framing(job_id: str, *, output: str) -> FramingRequest:
    """Return a request with a pan, a trim and slow motion, so that every frame is rendered separately."""
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


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


async def render(overlay_request: OverlayRequest) -> list[str]:
    """Run a job as a host does; nothing here depends on the backend."""
    async with FunctionRegistry.from_env() as registry:
        job = await registry["render_overlay"].submit(overlay_request)
        phases = [event.phase async for event in job.events()]
        result = await job.result()
        assert await job.status() == "succeeded"
        assert (result.job_id, result.frames) == (overlay_request.job_id, 250)
    return list(dict.fromkeys(phases))


async def test_modal_renders_same_frames_as_local_backend(
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
    fields_of_request = {
        "jobId": output,
        "userId": "u",
        "inputKey": "in.mp4",
        "outputKey": output,
        "scale": 2,
        **fields,
    }
    fields_of_request.setdefault("store", GLOBAL.to_dict())
    return UpscaleRequest.parse(fields_of_request)


def reel(output: str) -> ReelRequest:
    clips = [{"inputKey": "in.mp4"}, {"inputKey": "in.mp4", "trimStart": 0.4}]
    fields = {"jobId": output, "userId": "u", "outputKey": output, "clips": clips}
    return ReelRequest.parse({**fields, "transitions": [{"kind": "crossfade", "duration": 0.2}]})


async def test_modal_upscales_same_frames_as_local_backend(app: Deployed) -> None:
    made_clip(app.store / "in.mp4", size=(96, 64), seconds=0.4, audio_seconds=0.4)
    async with FunctionRegistry(app.settings) as on_modal:
        result = await on_modal["apply_upscale"](larger("out/there.mp4", provider="cpu"))
    async with FunctionRegistry(replace(app.settings, modal_enabled=False)) as locally:
        await locally["apply_upscale"](larger("out/here.mp4"))
    assert (result.size, result.frames, result.engine) == ((192, 128), 10, "onnxruntime-cpu fp32 small-x2")
    frames = [pictures(app.store / f"out/{name}.mp4") for name in ("there", "here")]
    assert all(np.array_equal(one, other) for one, other in zip(*frames, strict=True))


async def test_modal_gpu_container_without_gpu_fails(app: Deployed) -> None:
    made_clip(app.store / "in.mp4", size=(96, 64), seconds=0.2)
    async with FunctionRegistry(app.settings) as registry:
        with pytest.raises(RemoteError, match="the GPU was requested"):
            await registry["apply_upscale"](larger("out/gpu.mp4"))
    assert not (app.store / "out/gpu.mp4").exists()


async def test_modal_and_local_backend_work_with_bucket(
    app: Deployed, s3: ObjectStore, clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3.url("both-places")
    storage = Storage.from_url(url)
    storage.publish(Path(shutil.copy(clips.get("25.mp4"), tmp_path / "in.mp4")), store_key("in.mp4", "user", "u"))
    former = {"REEL_MODAL_STORE_URL": app.store.as_uri()}
    app.plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": url, **s3.environment})
    app.plane.end_containers()
    outputs, receipts = [], []
    try:
        for enabled in (True, False):
            settings = replace(app.settings, modal_enabled=enabled, store_url=url)
            async with FunctionRegistry(settings) as registry:
                for name, job_request in (
                    ("render_overlay", request(f"overlay-{enabled}")),
                    ("process_framing", framing(f"framing-{enabled}", output=f"framing-{enabled}.mp4")),
                    ("apply_upscale", larger(f"upscale-{enabled}.mp4", provider="cpu")),
                    ("assemble_reel", reel(f"reel-{enabled}.mp4")),
                ):
                    job = await registry[name].submit(replace(job_request, store=StoreOptions()))
                    receipts.append((await job.result()).usage)
                    assert await registry.attach(job.id, job_request).status() == "succeeded"
                    outputs.append(pictures(storage.fetch(store_key(job_request.output_key, "user", "u"), tmp_path)))
    finally:
        app.plane.create_secret("reel-modal-storage", former)
        app.plane.end_containers()
    for modal_frames, local_frames in zip(outputs[:4], outputs[4:], strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(modal_frames, local_frames, strict=True))
    for usage in receipts:
        assert usage is not None
        assert usage.bytes_in >= clips.get("25.mp4").stat().st_size
        assert usage.queue_seconds is not None
        assert usage.seconds > 0
    on_modal, without_gpu, upscaled, _, local, *_ = [usage for usage in receipts if usage is not None]
    assert (on_modal.gpu, without_gpu.gpu, upscaled.gpu, local.gpu) == ("T4", None, "A10G", None)
    assert upscaled.model
    rate = PUBLISHED_RATES.usd_per_second(gpu="T4", cpu=4, memory_mb=4096)
    assert on_modal.dollars == pytest.approx(on_modal.gpu_seconds * rate)
    assert on_modal.gpu_seconds == pytest.approx(on_modal.startup_seconds + on_modal.seconds)
    assert on_modal.rates_dated == PUBLISHED_RATES.dated
    assert without_gpu.dollars > 0
    assert (local.dollars, local.rates_dated) == (0.0, "")


async def test_modal_cold_start_is_reported_by_container(app: Deployed, clips: Clips, tmp_path: Path) -> None:
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    settings = replace(app.settings, timings=str(tmp_path / "timings"))
    async with FunctionRegistry(settings) as registry:
        starts = [(await registry["render_overlay"](request(f"start {number}"))).cold_start for number in range(3)]
        (timing,) = registry.history.summary()
    assert starts[1:] == [False, False]  # the first may have used the container of an earlier test
    assert (timing.gpu, timing.jobs) == ("T4", 3)
    assert timing.warm_startup is not None
    assert timing.warm_startup.jobs == starts.count(False)


async def test_modal_refused_input_raises_error_of_body(app: Deployed, clips: Clips) -> None:
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
        ({"REEL_MODAL_STORE_URL": "file:///nope"}, "'/nope' not found"),
        ({"REEL_MODAL_STORE_URL": "s3://bucket/prefix"}, "no credentials for 's3://bucket/prefix'"),
    ],
    ids=["no store", "no folder", "no credentials"],
)
async def test_modal_container_without_secret_is_config_error(
    app: Deployed, values: dict[str, str], said: str
) -> None:
    with other_secret(app, values):
        with pytest.raises(ConfigError, match=said) as caught:
            await FunctionRegistry(app.settings)["render_overlay"](request("misconfigured"))
        assert isinstance(caught.value, MisconfiguredError)
        assert not caught.value.retryable


async def test_modal_container_store_unreachable_is_retryable(app: Deployed) -> None:
    (port,) = free_ports(1)
    url = f"s3://bucket/prefix?endpoint=http://127.0.0.1:{port}&region=us-east-1"
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}
    with other_secret(app, {"REEL_MODAL_STORE_URL": url, **keys}):
        with pytest.raises(FunctionError, match="the store did not respond") as caught:
            await FunctionRegistry(app.settings)["render_overlay"](request("unreachable"))
        assert isinstance(caught.value.__cause__, StorageUnavailableError)
        assert caught.value.retryable


async def test_modal_container_ffmpeg_killed_is_retryable(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("bigbuckbunny.mp4"), app.store / "in.mp4")
    killed_request = request("killed-ffmpeg")
    killed_request = replace(
        killed_request, encode=replace(killed_request.encode, encoder="libx264", preset="veryslow", smart=False)
    )
    async with FunctionRegistry(app.settings) as registry:
        job = await registry["render_overlay"].submit(killed_request)
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


async def test_modal_cancel_ends_call_and_leaves_no_output(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("bigbuckbunny.mp4"), app.store / "in.mp4")
    async with FunctionRegistry(app.settings) as registry:
        job = await registry["render_overlay"].submit(request("cancelled"))
        async for event in job.events():
            if event.phase == "render":
                break
        await job.cancel()
        with pytest.raises(JobCancelledError):
            await job.result(timeout_seconds=30)
        assert await job.status() == "cancelled"
    app.plane.wait_for(lambda: not any(container.call_ids for container in app.plane.containers()))
    assert not (app.store / "out/cancelled.mp4").exists()
    assert app.plane.count("FunctionCallCancel") == 1


async def test_modal_events_without_end_marker_end_with_job(
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
        # A late listener gets the same events without delay.
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


def test_modal_job_survives_host_and_next_host_finds_it(app: Deployed, clips: Clips) -> None:
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
    attached_elsewhere = subprocess.run(
        [*command, job_id], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    assert attached_elsewhere.stdout == "succeeded survivor 250\n"
    assert len(pictures(app.store / "out/survivor.mp4")) == 250
    assert app.plane.count("FunctionMap") == 1


async def test_modal_result_available_after_events_expired(
    app: Deployed, clips: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modal_backend, "_LATE_SECONDS", 0.1)
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    job = await FunctionRegistry(app.settings)["render_overlay"].submit(request("expired"))
    assert [event async for event in job.events()]
    app.plane.pass_time(4 * 3600 + 1.0)
    attached = FunctionRegistry(app.settings).attach(job.id)
    assert [event async for event in attached.events()] == []
    updates = [update async for update in attached.progress(interval_seconds=0.05)]
    assert (updates[-1].phase, updates[-1].percent) == ("complete", 100)
    assert await attached.status() == "succeeded"
    assert (await attached.result()).frames == 25


async def test_modal_job_found_by_other_registry(app: Deployed, clips: Clips) -> None:
    shutil.copy(clips.get("25.mp4"), app.store / "in.mp4")
    job = await FunctionRegistry(app.settings)["render_overlay"].submit(request("found"))
    attached = FunctionRegistry(app.settings).attach(job.id)
    assert (await attached.result(timeout_seconds=60)).job_id == "found"
    assert Counter([event.phase async for event in attached.events()])["render"] >= 2
