"""The registry and its functions: submitting, deduplication, mapping over many requests."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.jobs import event, overlay, rendered

from reel_modal import (
    FunctionRegistry,
    JobOptions,
    ModelSource,
    ProgressUpdate,
    RemoteFunction,
    RenderResult,
    Settings,
    UpscaleRequest,
)
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import (
    BadInputError,
    BlockingCallError,
    ConfigError,
    InvalidMediaError,
    JobConflictError,
    NotDeployedError,
    RequestError,
    UnavailableError,
)
from reel_modal.testing import InMemoryBackend, ManualClock, Script

NEVER = 1e9


def host(backend: InMemoryBackend, *scripts: Script, options: JobOptions | None = None) -> FunctionRegistry:
    backend.script("render_overlay", *scripts or [Script(rendered)])
    return FunctionRegistry(Settings(), backend=backend, options=options)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# The registry.


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
    names = "['render_overlay', 'process_framing', 'apply_upscale']"
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


# Deduplication.


async def test_submit_same_request_concurrently_starts_one_job() -> None:
    backend = InMemoryBackend()
    render = host(backend, Script(rendered, seconds=0.01))["render_overlay"]
    jobs = await asyncio.gather(*(render.submit(overlay("same")) for _ in range(20)))
    assert {job.id for job in jobs} == {"memory:render_overlay:call-1"}
    await jobs[0].result()
    assert (await render.submit(overlay("same"))).id == jobs[0].id
    assert len(backend.submitted) == 1


async def test_submit_new_jobs_request_no_status() -> None:
    backend = InMemoryBackend()
    render = host(backend)["render_overlay"]

    async def refuse(call_id: str, timeout_seconds: float) -> None:
        raise AssertionError("the first submission of a job has no status to ask for")

    backend.wait = refuse  # type: ignore[method-assign,assignment]
    await asyncio.gather(*(render.submit(overlay(f"job-{index}")) for index in range(3)))


async def test_submit_other_request_with_same_id_is_refused() -> None:
    backend = InMemoryBackend()
    render = host(backend)["render_overlay"]
    await render.submit(overlay("same"))
    with pytest.raises(JobConflictError, match="'same'"):
        await render.submit(overlay("same", source="other.mp4"))
    await render.submit(overlay("another", source="other.mp4"))
    assert len(backend.submitted) == 2


async def test_submit_after_failure_starts_one_new_job() -> None:
    backend = InMemoryBackend()
    render = host(backend, Script(error=RuntimeError("crash")), Script(rendered, seconds=0.01))["render_overlay"]
    failed = await render.submit(overlay("again"))
    with pytest.raises(Exception, match="crash"):
        await failed.result()
    jobs = await asyncio.gather(*(render.submit(overlay("again")) for _ in range(10)))
    assert {job.id for job in jobs} == {"memory:render_overlay:call-2"}
    assert len(backend.submitted) == 2


async def test_submit_after_cancellation_starts_a_new_job() -> None:
    backend = InMemoryBackend()
    render = host(backend, Script(seconds=NEVER), Script(rendered))["render_overlay"]
    await (await render.submit(overlay())).cancel()
    assert (await render(overlay())).frames == 25


async def test_submit_again_while_unavailable_returns_the_same_job() -> None:
    backend = InMemoryBackend()
    render = host(backend, Script(rendered))["render_overlay"]
    first = await render.submit(overlay())
    backend.fail_next_requests(1)
    assert (await render.submit(overlay())).id == first.id


async def test_submit_that_never_started_leaves_its_id_free() -> None:
    backend = InMemoryBackend()
    render = host(backend)["render_overlay"]
    backend.fail_next_requests(1)
    with pytest.raises(UnavailableError):
        await render.submit(overlay("free"))
    await render.submit(overlay("free", source="mended.mp4"))


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


class SlowToStart(InMemoryBackend):
    """Accepts a submission and responds when the test sets `answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = asyncio.Event()
        self.answer = asyncio.Event()

    async def submit(self, function: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        call_id = await super().submit(function, args, kwargs)
        self.taken.set()
        await self.answer.wait()
        return call_id


async def test_submit_cancelled_leaves_no_job() -> None:
    backend = SlowToStart()
    submitting = asyncio.ensure_future(host(backend, Script(seconds=NEVER))["render_overlay"].submit(overlay()))
    await backend.taken.wait()
    submitting.cancel()
    await settle()
    backend.answer.set()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert backend.cancelled == ["call-1"]


async def test_submit_cancelled_twice_leaves_no_job() -> None:
    backend = SlowToStart()
    submitting = asyncio.ensure_future(host(backend, Script(seconds=NEVER))["render_overlay"].submit(overlay()))
    await backend.taken.wait()
    for _ in range(2):
        submitting.cancel()
        await settle()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    backend.answer.set()
    await settle()
    assert backend.cancelled == ["call-1"]


async def test_submit_cancelled_while_backend_is_down_stays_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = SlowToStart()
    submitting = asyncio.ensure_future(host(backend, Script(seconds=NEVER))["render_overlay"].submit(overlay()))
    await backend.taken.wait()
    submitting.cancel()
    await settle()
    backend.fail_next_requests(1)
    backend.answer.set()
    with caplog.at_level(logging.WARNING, "reel_modal"), pytest.raises(asyncio.CancelledError):
        await submitting
    assert "an unfinished submission of render_overlay may have started failed" in caplog.text


async def test_submit_cancelled_keeps_the_concurrent_submission() -> None:
    backend = SlowToStart()
    render = host(backend, Script(rendered, seconds=0.01))["render_overlay"]
    first, second = [asyncio.ensure_future(render.submit(overlay())) for _ in range(2)]
    await backend.taken.wait()
    first.cancel()
    await settle()
    backend.answer.set()
    assert (await (await second).result()).frames == 25
    assert backend.cancelled == ["call-1"]
    assert len(backend.submitted) == 2


async def test_submit_detached_continues_and_is_reused() -> None:
    backend = SlowToStart()
    render = host(backend, Script(rendered), options=JobOptions(on_cancel="detach"))["render_overlay"]
    submitting = asyncio.ensure_future(render.submit(overlay()))
    await backend.taken.wait()
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    backend.answer.set()
    assert (await render.submit(overlay())).id == "memory:render_overlay:call-1"
    assert backend.cancelled == []
    assert len(backend.submitted) == 1


# Any function.


async def test_function_without_codec_passes_arguments_and_result() -> None:
    backend = InMemoryBackend()
    backend.script("add", Script(lambda x, *, y: [x, y]))
    add: RemoteFunction[[int, int], list[int]] = RemoteFunction("add", backend)
    assert await add(1, y=2) == [1, 2]
    first, second = await add.submit(1, y=2), await add.submit(1, y=2)
    assert first.id != second.id


async def test_with_options_changes_only_the_copy() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    backend.script("f", Script(seconds=NEVER))
    function: RemoteFunction[[], None] = RemoteFunction("f", backend, clock=clock)
    hurried = function.with_options(deadline_seconds=5).with_options(on_cancel="detach")
    waiting = [asyncio.ensure_future(one()) for one in (function, hurried)]
    await clock.advance(6)
    assert [task.done() for task in waiting] == [False, True]
    with pytest.raises(Exception, match="deadline of 5 s"):
        await waiting[1]
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    assert backend.cancelled == ["call-2", "call-1"]


async def test_with_options_infinity_disables_a_limit() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    options = JobOptions(stall_seconds=10)
    backend.script("f", Script("done", seconds=100, events=[event(1)]))
    function: RemoteFunction[[], str] = RemoteFunction("f", backend, clock=clock, options=options)
    waiting = asyncio.ensure_future(function.with_options(stall_seconds=math.inf)())
    await clock.advance(101)
    assert await waiting == "done"


def test_call_returns_the_result_synchronously() -> None:
    assert host(InMemoryBackend())["render_overlay"].call(overlay()).frames == 25


async def test_call_inside_event_loop_is_refused() -> None:
    backend = InMemoryBackend()
    with pytest.raises(BlockingCallError):
        host(backend)["render_overlay"].call(overlay())
    assert backend.submitted == []


# Many at once.


class Gated(InMemoryBackend):
    """A backend whose jobs end when the test calls `end`; it counts running jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[int, asyncio.Event] = {}
        self.most = 0
        self.live = 0
        self.function: RemoteFunction[[int], int] = RemoteFunction("f", self)

    async def submit(self, function: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        self.script(function, Script(args[0], seconds=NEVER))
        self.live += 1
        self.most = max(self.most, self.live)
        return await super().submit(function, args, kwargs)

    def end(self, number: int, error: Exception | None = None) -> None:
        """End the job whose argument is `number`."""
        (submitted,) = [one for one in self.submitted if one.args == (number,)]
        self.live -= 1
        self._end(self._calls[submitted.call_id], value=number, error=error)

    @property
    def running(self) -> list[int]:
        ended = {call_id for call_id, call in self._calls.items() if call.ended.done()}
        return [one.args[0] for one in self.submitted if one.call_id not in ended]  # type: ignore[misc]


async def test_map_ordered_yields_in_order_with_limited_concurrency() -> None:
    backend, results = Gated(), list[int]()

    async def collect() -> None:
        results.extend([result async for result in backend.function.map(range(5), concurrency=2)])

    collecting = asyncio.ensure_future(collect())
    await settle()
    assert backend.running == [0, 1]
    backend.end(1)
    await settle()
    assert backend.running == [0]
    for number in (0, 3, 2, 4):
        await settle()
        backend.end(number)
    await collecting
    assert results == [0, 1, 2, 3, 4]
    assert backend.most == 2


async def test_map_unordered_yields_as_completed() -> None:
    backend, results = Gated(), list[int]()

    async def collect() -> None:
        async for result in backend.function.map(range(4), concurrency=3, ordered=False):
            results.append(result)

    collecting = asyncio.ensure_future(collect())
    for number in (2, 3, 0, 1):
        await settle()
        backend.end(number)
        await settle()
        assert results[-1] == number
    await collecting
    assert backend.most == 3


@pytest.mark.parametrize("ordered", [True, False])
async def test_map_failure_cancels_the_remaining_jobs(ordered: bool) -> None:
    backend = Gated()
    results = backend.function.map(range(10), concurrency=3, ordered=ordered)
    first = asyncio.ensure_future(anext(results))
    await settle()
    backend.end(0, InvalidMediaError("no video"))
    with pytest.raises(BadInputError):
        await first
    assert backend.running == []
    assert len(backend.submitted) == 3
    assert set(backend.cancelled) == {"call-2", "call-3"}


async def test_map_closed_early_cancels_running_jobs() -> None:
    backend = Gated()
    results = backend.function.map(range(10), concurrency=2)
    first = asyncio.ensure_future(anext(results))
    await settle()
    backend.end(0)
    assert await first == 0
    await results.aclose()
    assert backend.running == []
    assert backend.cancelled == ["call-2"]


async def test_map_cancelled_consumer_cancels_the_jobs() -> None:
    backend = Gated()

    async def collect() -> None:
        async for _ in backend.function.map(range(10), concurrency=4):
            pass

    collecting = asyncio.ensure_future(collect())
    await settle()
    collecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    assert backend.running == []
    assert len(backend.cancelled) == 4


async def test_map_takes_items_lazily_and_accepts_empty_input() -> None:
    backend, taken = Gated(), list[int]()

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = backend.function.map(items(), concurrency=3)
    first = asyncio.ensure_future(anext(results))
    await settle()
    assert taken == [0, 1, 2]
    first.cancel()
    await asyncio.wait({first})
    assert [result async for result in backend.function.map([])] == []


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_map_invalid_concurrency_is_refused(concurrency: int) -> None:
    with pytest.raises(ConfigError, match=f"concurrency is {concurrency}"):
        await anext(Gated().function.map([1], concurrency=concurrency))


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
