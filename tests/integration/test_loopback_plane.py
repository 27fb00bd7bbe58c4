"""Tests of the loopback plane with the real client, command line and container runtime, and of each fault."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.loopback.interpreters import only_packages
from tests.integration.sample_app import APP, deploy, deploy_here, sample

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["sample"]


@pytest.fixture
def app(sample: None, plane: LoopbackPlane) -> LoopbackPlane:
    """A plane with the deployed sample app."""
    return plane


def function(name: str) -> Any:
    import modal

    return modal.Function.from_name(APP, name)


def started(partition: str) -> Any:
    """Wait until the body of `work` runs; return the task that runs it."""
    import modal

    return modal.Queue.from_name("sample-events", create_if_missing=True).get.aio(partition=partition, timeout=20)


def test_plane_deploy_stores_decorator_options(app: LoopbackPlane) -> None:
    functions = app.functions(APP)
    double, variable = functions["double"], functions["variable"]
    assert (double.gpus, double.cpu, double.memory_mib) == (("T4",), 1.5, 512)
    assert (double.timeout_seconds, double.max_containers, double.scaledown_window_seconds) == (60, 2, 30)
    assert (double.retries, functions["third_time"].retries) == (0, 2)
    assert (variable.gpus, variable.secrets) == (("L4", "A10G:2"), ("sample-secret",))
    assert double.image_commands[0].startswith("FROM python:3.")
    assert any("SAMPLE_COLOUR" in line for line in double.image_commands)
    assert double.mounted_files == ("/root/loopback_sample.py",)
    assert app.functions("another-app") == {}


async def test_plane_call_runs_in_container(app: LoopbackPlane) -> None:
    assert await function("double").remote.aio(21) == 42
    assert [container.function for container in app.containers()] == ["double"]
    assert (app.count("FunctionGet"), app.count("FunctionMap")) == (1, 1)
    assert app.count("FunctionPutOutputs", side="container") == 1


async def test_plane_spawned_call_found_by_id(app: LoopbackPlane) -> None:
    import modal

    spawned = await function("double").spawn.aio(4)
    assert await modal.FunctionCall.from_id(spawned.object_id).get.aio(timeout=20) == 8


async def test_plane_exception_keeps_its_type(app: LoopbackPlane) -> None:
    with pytest.raises(ValueError, match="too small"):
        await function("refuse").remote.aio("too small")


async def test_plane_map_keeps_order_and_container_limit(app: LoopbackPlane) -> None:
    tasks = [task async for task in function("work").map.aio(["m"] * 6, kwargs={"seconds": 0.1})]
    assert 1 <= len(set(tasks)) <= 2
    assert [number async for number in function("double").map.aio(range(20))] == list(range(0, 40, 2))


async def test_plane_generator_yields_values_of_container(app: LoopbackPlane) -> None:
    assert [number async for number in function("numbers").remote_gen.aio(5)] == [0, 1, 2, 3, 4]


async def test_plane_large_values_sent_as_blobs(app: LoopbackPlane) -> None:
    with pytest.raises(ValueError, match=r"x{3000000}"):
        await function("refuse").remote.aio("x" * 3_000_000)
    assert app.count("BlobCreate") == 1
    assert app.count("BlobCreate", side="container") == 1


async def test_plane_container_has_secret_and_image_environment(app: LoopbackPlane) -> None:
    variable = function("variable")
    assert await variable.remote.aio("SAMPLE_KEY") == "sesame"
    assert await variable.remote.aio("SAMPLE_COLOUR") == "blue green"
    assert await variable.remote.aio("MODAL_TOKEN_SECRET") is None


async def test_plane_queue_carries_events_from_container(app: LoopbackPlane) -> None:
    import modal

    spawned = await function("work").spawn.aio("events")
    assert await started("events") == await spawned.get.aio(timeout=20)
    queue = modal.Queue.from_name("sample-events")
    await queue.put_many.aio([1, 2, 3], partition="more")
    assert [item async for item in queue.iterate.aio(partition="more")] == [1, 2, 3]
    assert await queue.get_many.aio(2, partition="more") == [1, 2]
    assert app.queue_lengths("sample-events")["more"] == 1
    await queue.clear.aio(partition="more")
    assert await queue.get.aio(block=False, partition="more") is None


async def test_plane_cancelled_body_ends_and_container_survives(app: LoopbackPlane) -> None:
    import modal

    await asyncio.to_thread(app.end_containers)  # an idle one of another test could take the last call
    spawned = await function("work").spawn.aio("cancelled", 60.0)
    task = await started("cancelled")
    # A cancellation that arrives while the body still waits for modal's client may be lost there.
    (container,) = app.containers("work")
    await asyncio.to_thread(app.wait_for, (container.folder / "tmp" / "working").exists)
    begin = time.monotonic()
    await spawned.cancel.aio()
    with pytest.raises(modal.exception.RemoteError):
        await spawned.get.aio(timeout=20)
    assert time.monotonic() - begin < 20  # long before its 60 s
    # The caller learns of the end before the container is idle again.
    await asyncio.to_thread(app.wait_for, lambda: not any(container.call_ids for container in app.containers()))
    assert await function("work").remote.aio("cancelled") == task


async def test_plane_queued_call_can_be_cancelled(app: LoopbackPlane) -> None:
    import modal

    work = function("work")
    running = [await work.spawn.aio("busy", 60.0) for _ in range(2)]
    for _ in running:
        await started("busy")
    waiting = await work.spawn.aio("waiting")
    await waiting.cancel.aio()
    with pytest.raises(modal.exception.RemoteError):
        await waiting.get.aio(timeout=20)
    await running[0].cancel.aio()
    # It would have arrived before this one.
    await work.remote.aio("after")
    assert app.queue_lengths("sample-events").get("waiting") is None


@pytest.mark.parametrize(
    ("name", "app_name", "environment"),
    [("absent", APP, "main"), ("double", "absent", "main"), ("double", APP, "absent")],
)
async def test_plane_undeployed_app_or_function_not_found(
    app: LoopbackPlane, name: str, app_name: str, environment: str
) -> None:
    import modal

    with pytest.raises(modal.exception.NotFoundError, match="absent"):
        await modal.Function.from_name(app_name, name, environment_name=environment).hydrate.aio()


def test_plane_wrong_token_refused(app: LoopbackPlane) -> None:
    import modal

    client = app.client(token_secret="as-wrong")  # noqa: S106
    with pytest.raises(modal.exception.AuthError):
        modal.Function.from_name(APP, "double", client=client).hydrate()
    right = app.client()
    assert modal.Function.from_name(APP, "double", client=right).hydrate().object_id.startswith("fu-")


async def test_plane_refused_request_retried_by_client(app: LoopbackPlane) -> None:
    import modal
    from grpclib import Status

    app.faults.fail("FunctionGet", Status.UNAVAILABLE, times=2)
    await function("double").hydrate.aio()
    assert app.count("FunctionGet") == 3
    app.faults.fail("FunctionGet", Status.NOT_FOUND, message="scripted")
    with pytest.raises(modal.exception.NotFoundError, match="scripted"):
        await function("double").hydrate.aio()
    await function("double").hydrate.aio()


async def test_plane_delayed_or_hanging_answer_simulated(app: LoopbackPlane) -> None:
    app.faults.delay("FunctionGet", 0.3, times=1)
    begin = time.monotonic()
    await function("double").hydrate.aio()
    assert time.monotonic() - begin >= 0.3

    app.faults.hang("FunctionGet")
    stuck = asyncio.create_task(function("double").hydrate.aio())
    await asyncio.to_thread(app.wait_for, lambda: app.count("FunctionGet") == 2)
    assert not (await asyncio.wait([stuck], timeout=0.2))[0]
    app.faults.clear()
    await asyncio.wait_for(stuck, 5)


async def test_plane_submit_with_lost_reply_runs_once(app: LoopbackPlane) -> None:
    app.faults.lose_reply("FunctionMap")
    task = await function("work").remote.aio("once")
    assert app.count("FunctionMap") == 2
    assert await started("once") == task
    assert app.queue_lengths("sample-events").get("once") is None


async def test_plane_lost_output_never_arrives(app: LoopbackPlane) -> None:
    app.faults.lose_outputs()
    spawned = await function("double").spawn.aio(1)
    await asyncio.to_thread(app.wait_for, lambda: app.count("FunctionPutOutputs", side="container") == 1)
    with pytest.raises(TimeoutError):
        await spawned.get.aio(timeout=0.2)


async def test_plane_expired_outputs_raise(app: LoopbackPlane) -> None:
    import modal

    spawned = await function("double").spawn.aio(1)
    assert await spawned.get.aio(timeout=20) == 2
    app.expire_outputs(spawned.object_id)
    with pytest.raises(modal.exception.OutputExpiredError):
        await spawned.get.aio(timeout=0)


async def test_plane_preempted_input_runs_in_other_container(app: LoopbackPlane) -> None:
    spawned = await function("work").spawn.aio("preempted", 0.5)
    first = await started("preempted")
    await asyncio.to_thread(app.preempt, spawned.object_id)
    assert await spawned.get.aio(timeout=20) == await started("preempted") != first


@pytest.mark.parametrize(
    ("out_of_memory", "kind", "words"),
    [(False, "InternalFailure", "SIGKILL"), (True, "RemoteError", "memory")],
)
async def test_plane_killed_container_fails_its_input(
    app: LoopbackPlane, out_of_memory: bool, kind: str, words: str
) -> None:
    import modal

    spawned = await function("work").spawn.aio("killed", 60.0)
    await started("killed")
    await asyncio.to_thread(app.kill_container, spawned.object_id, out_of_memory=out_of_memory)
    with pytest.raises(getattr(modal.exception, kind), match=words):
        await spawned.get.aio(timeout=20)


async def test_plane_container_end_kills_its_child_processes(app: LoopbackPlane) -> None:
    import modal

    spawned = await function("leave_child").spawn.aio()
    child = await started("child")
    (container,) = app.containers("leave_child")
    assert child in app.processes()
    assert container.pid is not None
    os.kill(container.pid, 9)  # Not by the plane.
    with pytest.raises(modal.exception.InternalFailure, match="SIGKILL"):
        await spawned.get.aio(timeout=20)
    assert child not in app.processes()


async def test_plane_function_timeout_enforced(app: LoopbackPlane) -> None:
    import modal

    begin = time.monotonic()
    with pytest.raises(modal.exception.FunctionTimeoutError, match="1s"):
        await function("overrun").remote.aio()
    assert 1 <= time.monotonic() - begin < 5


async def test_plane_spawned_call_retried_by_plane(app: LoopbackPlane) -> None:
    spawned = await function("third_time").spawn.aio("retries")
    assert await spawned.get.aio(timeout=20) == 3
    assert app.count("FunctionRetryInputs") == 0


async def test_plane_unimportable_module_fails_call(app: LoopbackPlane) -> None:
    app.container_environment["SAMPLE_BREAKS"] = "1"
    with pytest.raises(RuntimeError, match="lacks something"):
        await function("has_module").remote.aio("sys")


async def test_plane_stop_and_redeploy_makes_handles_stale(app: LoopbackPlane) -> None:
    import modal

    stale = function("double")
    assert await stale.remote.aio(1) == 2
    app.stop_and_redeploy(APP)
    with pytest.raises(modal.exception.NotFoundError):
        await stale.remote.aio(1)
    assert await function("double").remote.aio(1) == 2
    assert await modal.Function.from_name(APP, "double", version=1).remote.aio(1) == 2


def test_plane_interrupted_deploy_keeps_previous_version(app: LoopbackPlane) -> None:
    from grpclib import Status

    before = app.functions(APP)
    app.faults.fail("AppPublish", Status.FAILED_PRECONDITION, message="cut off")
    failed = deploy(app)
    assert (failed.returncode, "cut off" in failed.stderr) == (1, True)
    assert app.functions(APP) == before
    assert deploy(app).returncode == 0
    after = app.functions(APP)
    assert {name: one.function_id for name, one in after.items()} == {
        name: one.function_id for name, one in before.items()
    }
    assert after["double"].definition_id != before["double"].definition_id


@pytest.mark.parametrize("strategy", ["rolling", "recreate"])
async def test_plane_redeploy_replaces_warm_containers(app: LoopbackPlane, strategy: str) -> None:
    await asyncio.to_thread(app.end_containers)  # --strategy recreate stops those of all functions
    variable = function("variable")
    assert await variable.remote.aio("SAMPLE_VERSION") == "1"
    (old,) = app.containers("variable")
    try:
        completed = await asyncio.to_thread(deploy, app, "--strategy", strategy, SAMPLE_VERSION="2")
        assert completed.returncode == 0, completed.stderr
        assert await variable.remote.aio("SAMPLE_VERSION") == "2"
        await asyncio.to_thread(app.wait_for, lambda: old not in app.containers("variable"))
        assert app.count("ContainerStop") == (strategy == "recreate")
    finally:
        await asyncio.to_thread(deploy_here, app)


async def test_plane_handle_with_options_calls_variant(app: LoopbackPlane) -> None:
    import modal

    hurried = function("work").with_options(gpu="L4", timeout=1)
    with pytest.raises(modal.exception.FunctionTimeoutError, match="1s"):
        await hurried.remote.aio("variant", 60.0)
    (bound,) = [request for rpc, request in app.requests if rpc == "FunctionBindParams"]
    assert bound.function_options.resources.gpu_config.gpu_type == "L4"


async def test_plane_stopped_app_ends_running_calls(app: LoopbackPlane) -> None:
    import modal

    spawned = await function("work").spawn.aio("stopped", 60.0)
    await started("stopped")
    app.stop_app(APP)
    try:
        with pytest.raises(modal.exception.RemoteError):
            await spawned.get.aio(timeout=20)
        with pytest.raises(modal.exception.NotFoundError):
            await function("work").hydrate.aio()
    finally:
        await asyncio.to_thread(deploy_here, app)


async def test_plane_fault_affects_only_named_requests(app: LoopbackPlane) -> None:
    import modal
    from grpclib import Status

    app.faults.fail("QueuePut", Status.FAILED_PRECONDITION, side="container", message="not from there")
    queue = modal.Queue.from_name("sample-events", create_if_missing=True)
    await queue.put.aio("from the host", partition="sides")
    with pytest.raises(modal.exception.ConflictError, match="not from there"):
        await function("work").remote.aio("sides")
    app.faults.fail("*", Status.PERMISSION_DENIED, where=lambda request: getattr(request, "object_tag", "") == "work")
    await function("double").hydrate.aio()
    with pytest.raises(modal.exception.PermissionDeniedError):
        await function("work").hydrate.aio()


async def test_plane_queue_partitions_expire_and_are_bounded(app: LoopbackPlane) -> None:
    import queue

    import modal

    events = modal.Queue.from_name("sample-limits", create_if_missing=True)
    await events.put_many.aio(list(range(5_000)), partition="full")
    with pytest.raises(queue.Full):
        await events.put.aio("one more", block=False, partition="full")
    await events.put.aio("soon gone", partition="short", partition_ttl=1)
    assert app.queue_lengths("sample-limits")["short"] == 1
    app.pass_time(2.0)
    assert app.queue_lengths("sample-limits") == {"full": 5_000}
    with pytest.raises(modal.exception.InvalidError, match="1 MiB"):
        await events.put.aio(b"x" * (1 << 20), partition="large")


def test_plane_deploy_without_secret_fails(app: LoopbackPlane) -> None:
    app.remove_secret("sample-secret")
    try:
        absent = deploy(app)
        app.create_secret("sample-secret", {"ANOTHER_KEY": "sesame"})
        incomplete = deploy(app)
    finally:
        app.create_secret("sample-secret", {"SAMPLE_KEY": "sesame"})
    assert (absent.returncode, "sample-secret" in absent.stderr) == (1, True)
    assert (incomplete.returncode, "SAMPLE_KEY" in incomplete.stderr) == (1, True)


def test_plane_failing_image_build_fails_deploy(app: LoopbackPlane) -> None:
    app.faults.fail_image_build("no such package", log=("ERROR: No matching distribution\n",))
    failed = deploy(app)
    assert failed.returncode == 1
    assert "no such package" in failed.stderr
    assert "No matching distribution" in failed.stdout


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[LoopbackPlane]:
    """A plane whose containers have only modal."""
    from tests.integration.loopback.plane import LoopbackPlane

    python = only_packages(tmp_path / "python", ["modal"])
    with LoopbackPlane(tmp_path / "plane", container_python=python) as plane:
        plane.create_secret("sample-secret", {"SAMPLE_KEY": "sesame"})
        yield plane
    assert not plane.processes()


def test_plane_containers_have_only_their_packages(narrow: LoopbackPlane) -> None:
    import modal

    deploy_here(narrow)
    has_module = modal.Function.from_name(APP, "has_module", client=narrow.client())
    assert [has_module.remote(name) for name in ("modal", "pytest", "reel_modal")] == [True, False, False]


def test_plane_close_ends_busy_container(tmp_path: Path) -> None:
    import modal
    from tests.integration.loopback.plane import LoopbackPlane

    with LoopbackPlane(tmp_path) as plane:
        plane.create_secret("sample-secret", {"SAMPLE_KEY": "sesame"})
        deploy_here(plane)
        modal.Function.from_name(APP, "work", client=plane.client()).spawn("closing", 60.0)
        plane.wait_for(lambda: any(container.call_ids for container in plane.containers()))
        assert plane.processes()
    assert not plane.processes()
