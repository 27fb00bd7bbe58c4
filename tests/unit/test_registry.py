"""The registry: its functions, its jobs by id, submissions by type of request, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.jobs import event, overlay, rendered
from tests.unit.registries import NEVER, host

from reel_modal import (
    FunctionRegistry,
    ModelSource,
    ProgressUpdate,
    RemoteFunction,
    RenderResult,
    Settings,
    UpscaleRequest,
)
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import BlockingCallError, ConfigError, InvalidMediaError, NotDeployedError, RequestError
from reel_modal.testing import InMemoryBackend, ManualClock, Script


@pytest.mark.parametrize(("enabled", "kind"), [("true", ModalBackend), ("false", LocalBackend), ("", LocalBackend)])
def test_from_env_modal_enabled_selects_the_backend(
    monkeypatch: pytest.MonkeyPatch, enabled: str, kind: type[object]
) -> None:
    monkeypatch.setenv("MODAL_ENABLED", enabled)
    assert type(FunctionRegistry.from_env().backend) is kind


def test_from_env_app_name_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_ENABLED", "true")
    monkeypatch.setenv("REEL_MODAL_APP", "reels")
    monkeypatch.setenv("REEL_MODAL_ENVIRONMENT", "staging")
    backend = FunctionRegistry.from_env().backend
    assert isinstance(backend, ModalBackend)
    assert backend.app == "reels-staging"


@pytest.mark.parametrize(("variable", "value"), [("MODAL_ENABLED", "maybe"), ("REEL_MODAL_ENVIRONMENT", "prod")])
def test_from_env_invalid_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"{variable}='{value}'"):
        FunctionRegistry.from_env()


def test_registry_is_a_mapping_of_functions_by_name() -> None:
    registry = host(InMemoryBackend())
    assert len(registry) == len(list(registry))
    assert "render_overlay" in registry
    assert registry["render_overlay"].name == "render_overlay"
    with pytest.raises(
        KeyError, match="'thumbnail' is not a function of this registry; available are render_overlay,"
    ):
        registry["thumbnail"]
    with pytest.raises(KeyError, match=r"'render_overlays' is not .*; did you mean 'render_overlay'\?"):
        registry["render_overlays"]
    assert registry.get("render_overlays") is None
    assert "render_overlays" not in registry


async def test_repr_shows_function_and_backend() -> None:
    settings = Settings(modal_enabled=True, environment="staging", store_url="s3://media/reels?region=eu-central-1")
    registry = FunctionRegistry(settings)
    names = "['render_overlay', 'process_framing', 'apply_upscale', 'assemble_reel']"
    assert repr(registry) == f"FunctionRegistry(ModalBackend('reel-modal-staging'), functions={names})"
    assert repr(registry["render_overlay"]) == "RemoteFunction('render_overlay', ModalBackend('reel-modal-staging'))"
    assert repr(registry.attach("modal:render_overlay:fc-1")) == "Job('modal:render_overlay:fc-1')"
    shown = "Settings(modal_enabled=True, environment='staging', store_url='s3://media/reels?…')"
    assert (repr(settings), repr(Settings())) == (shown, "Settings()")
    assert repr(LocalBackend(settings, max_workers=2)) == f"LocalBackend(max_workers=2, settings={shown})"
    backend = InMemoryBackend()
    await host(backend)["render_overlay"].submit(overlay())
    assert repr(backend) == "InMemoryBackend(submitted=1, cancelled=0)"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"model": "other"}, "model"),
        ({"model": "small-x3"}, "model"),
        ({"model": "face", "model_sha256": "cd" * 32}, "model_sha256"),
    ],
)
async def test_submit_unregistered_network_is_refused(fields: dict[str, str], path: str) -> None:
    backend = InMemoryBackend()
    settings = Settings(models={"face": ModelSource("/face.onnx", "ab" * 32)})
    upscale = FunctionRegistry(settings, backend=backend)["apply_upscale"]
    keys = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4", "scale": 2}
    with pytest.raises(RequestError) as caught:
        await upscale.submit(UpscaleRequest.parse(keys | fields))
    assert (caught.value.path, backend.submitted) == (path, [])


async def test_submit_registered_network_is_accepted() -> None:
    backend = InMemoryBackend()
    settings = Settings(models={"face": ModelSource("/face.onnx", "ab" * 32)})
    backend.script("apply_upscale", Script(rendered))
    upscale = FunctionRegistry(settings, backend=backend)["apply_upscale"]
    keys = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4", "scale": 2}
    for number, model in enumerate(("face", "small", "large", "small-x2", "large-x4", None)):
        await upscale.submit(UpscaleRequest.parse({**keys, "job_id": str(number), "model": model}))
    assert len(backend.submitted) == 6


async def test_submit_other_type_of_request_is_refused_locally() -> None:
    backend = InMemoryBackend()
    render: RemoteFunction[..., RenderResult] = host(backend)["render_overlay"]
    with pytest.raises(RequestError, match="render_overlay takes OverlayRequest, not dict"):
        await render.submit({"job_id": "j"})
    assert backend.submitted == []


async def test_verify_reports_each_missing_function() -> None:
    class Partly(InMemoryBackend):
        async def hydrate(self, function: str) -> None:
            if function == "render_overlay":
                raise NotDeployedError("it is not there", function=function)

    registry = FunctionRegistry(Settings(), backend=Partly())
    checks = {check.function: check for check in await registry.verify()}
    assert set(checks) == set(registry)
    assert not checks["render_overlay"].ok
    assert isinstance(checks["render_overlay"].error, NotDeployedError)
    assert all(check.ok for name, check in checks.items() if name != "render_overlay")


async def test_attach_by_id_finds_the_job() -> None:
    backend = InMemoryBackend()
    job = await host(backend)["render_overlay"].submit(overlay())
    attached = host(backend).attach(job.id)
    assert (attached.id, attached.function) == (job.id, "render_overlay")
    assert await attached.result() == await job.result()


@pytest.mark.parametrize(
    "job_id",
    [
        *("", "call-1", "memory:call-1", "memory:render_overlay:", "memory:unknown:call-1", None, 7, b"memory:a:b"),
        *("memory:render_overlay:call 1", "memory:render_overlay:call-1\n", "memory:render_overlay:../call"),
        f"memory:render_overlay:{'x' * 100_000}",
    ],
    ids=lambda value: repr(value)[:30],
)
def test_attach_malformed_id_is_a_config_error(job_id: str) -> None:
    with pytest.raises(ConfigError, match=r"is not the id of a (job|call)") as caught:
        host(InMemoryBackend()).attach(job_id)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("call_id", ["xx", "fu-123", "fc-", "fc-a b", "fc-1\n", "fc-1:2", "FC-1"])
def test_attach_malformed_modal_id_is_a_config_error(call_id: str) -> None:
    registry = FunctionRegistry(Settings(modal_enabled=True))
    with pytest.raises(ConfigError, match="is not the id of a call of render_overlay on 'modal'"):
        registry.attach(f"modal:render_overlay:{call_id}")
    assert registry.attach("modal:render_overlay:fc-01JBZ8").id.endswith("fc-01JBZ8")


def test_attach_id_of_another_backend_names_the_setting() -> None:
    with pytest.raises(ConfigError, match=r"runs on 'modal'.*MODAL_ENABLED"):
        host(InMemoryBackend()).attach("modal:render_overlay:fc-1")


def test_attach_id_with_colons_is_accepted() -> None:
    assert host(InMemoryBackend()).attach("memory:render_overlay:a:b").id == "memory:render_overlay:a:b"


async def test_attach_in_same_process_knows_the_submission_time() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    backend.script("render_overlay", Script(result=rendered, queue_seconds=60))
    registry = FunctionRegistry(Settings(), backend=backend, clock=clock)
    job = await registry["render_overlay"].submit(overlay())
    await clock.advance(20)
    for attached in (registry.attach(job.id), registry["render_overlay"].job(job.id.rpartition(":")[2])):
        async with aclosing(attached.progress()) as updates:
            assert (await anext(updates)).elapsed_seconds == 20
    # With other options, it is another job object.
    assert registry["render_overlay"].with_options(stall_seconds=5).job(job.id.rpartition(":")[2]) is not job


async def test_registry_exit_closes_its_backend() -> None:
    backend = InMemoryBackend()
    async with host(backend, Script(seconds=NEVER)) as registry:
        await registry["render_overlay"].submit(overlay())
    assert backend.cancelled == ["call-1"]


async def test_submit_to_closed_registry_is_an_error() -> None:
    backend = InMemoryBackend()
    async with host(backend) as registry:
        job = await registry["render_overlay"].submit(overlay())
        render = registry["render_overlay"].with_options(stall_seconds=5)
        await job.result()
    for function in (registry["render_overlay"], render):
        with pytest.raises(ConfigError, match="render_overlay was submitted to a registry that is closed"):
            await function.submit(overlay("late"))
    with pytest.raises(ConfigError, match="closed"):
        await registry["render_overlay"](overlay("late"))
    assert len(backend.submitted) == 1
    assert (await registry.attach(job.id).result()).job_id == "job"
    await registry.close()


async def test_registry_closed_during_check_submits_nothing(tmp_path: Path) -> None:
    backend = InMemoryBackend()
    settings = Settings(store_url=tmp_path.as_uri())  # so that the job is checked in a thread
    registry = FunctionRegistry(settings, backend=backend)
    submitting = asyncio.ensure_future(registry["render_overlay"].submit(overlay()))
    await asyncio.sleep(0)
    await registry.close()
    with pytest.raises(ConfigError, match="closed"):
        await submitting
    assert backend.submitted == []


# By request type.


def frames_of(request: Mapping[str, object]) -> dict[str, object]:
    return rendered(request, frames=int(str(request["job_id"])))


async def test_registry_submits_to_the_function_of_the_request() -> None:
    backend = InMemoryBackend()
    registry = host(backend)
    backend.script("apply_upscale", Script(rendered))
    job = await registry.submit(overlay())
    assert (job.function, (await job.result()).frames) == ("render_overlay", 25)
    upscale = UpscaleRequest(job_id="u", user_id="user", input_key="in.mp4", output_key="out.mp4", scale=2)
    assert (await registry.submit(upscale)).function == "apply_upscale"


async def test_registry_submit_other_type_is_refused() -> None:
    with pytest.raises(RequestError, match="str"):
        await host(InMemoryBackend()).submit("overlay")  # type: ignore[arg-type]


async def test_registry_run_returns_the_result() -> None:
    assert (await host(InMemoryBackend()).run(overlay())).frames == 25


@pytest.mark.parametrize("ordered", [True, False])
async def test_registry_map_yields_every_result(ordered: bool) -> None:
    registry = host(InMemoryBackend(), *[Script(frames_of) for _ in range(5)])
    requests = [overlay(str(number)) for number in range(1, 6)]
    frames = [result.frames async for result in registry.map(requests, concurrency=2, ordered=ordered)]
    assert (frames if ordered else sorted(frames)) == [1, 2, 3, 4, 5]


async def test_registry_map_concurrency_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="concurrency"):
        await anext(host(InMemoryBackend()).map([overlay()], concurrency=0))


def test_registry_run_sync_reports_progress() -> None:
    updates: list[ProgressUpdate] = []
    registry = host(InMemoryBackend(), Script(rendered, events=[event(1)]))
    assert registry.run_sync(overlay(), on_progress=updates.append).frames == 25
    assert updates[-1].status == "complete"
    assert host(InMemoryBackend()).run_sync(overlay()).frames == 25


async def test_registry_run_sync_on_event_loop_is_refused() -> None:
    with pytest.raises(BlockingCallError):
        host(InMemoryBackend()).run_sync(overlay())


async def test_progress_shows_saving_before_complete() -> None:
    saved: list[RenderResult] = []

    async def save(result: RenderResult) -> None:
        saved.append(result)

    job = await host(InMemoryBackend()).submit(overlay())
    seen = [(update.phase, update.progress) async for update in job.progress(save=save, interval_seconds=0.01)]
    assert seen[-2:] == [("saving", 95.0), ("complete", 100.0)]
    assert [result.frames for result in saved] == [25]


async def test_progress_raises_save_error_after_its_update() -> None:
    async def save(result: RenderResult) -> None:
        raise LookupError(result.job_id)

    job = await host(InMemoryBackend()).submit(overlay())
    seen: list[ProgressUpdate] = []

    async def listen() -> None:
        async for update in job.progress(save=save, interval_seconds=0.01):
            seen.append(update)  # noqa: PERF401 - the loop raises an error

    with pytest.raises(LookupError, match="job"):
        await listen()
    assert [update.status for update in seen][-2:] == ["processing", "error"]
    assert (await job.result()).frames == 25


async def test_progress_of_failed_job_saves_nothing() -> None:
    async def save(result: RenderResult) -> None:
        raise AssertionError("a failed job has no result")

    job = await host(InMemoryBackend(), Script(error=InvalidMediaError("truncated"))).submit(overlay())
    statuses = [update.status async for update in job.progress(save=save, interval_seconds=0.01)]
    assert statuses[-1] == "error"


async def test_progress_closed_early_cancels_saving() -> None:
    ended = asyncio.Event()

    async def save(result: RenderResult) -> None:
        try:
            await asyncio.sleep(NEVER)
        finally:
            ended.set()

    job = await host(InMemoryBackend()).submit(overlay())
    async with aclosing(job.progress(save=save, interval_seconds=0.01)) as updates:
        async for update in updates:
            if update.phase == "saving" and not ended.is_set():
                await asyncio.sleep(0)
                break
    assert ended.is_set()
