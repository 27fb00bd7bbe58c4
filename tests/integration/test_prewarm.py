"""Containers that are kept warm in advance, on the loopback plane with the real client and real containers."""

from __future__ import annotations

import asyncio
import sys
import time

import modal
import pytest
from google.protobuf.message import Message
from grpclib import Status
from modal_proto import api_pb2
from tests.clips import made_clip
from tests.integration.loopback.views import RunningContainer
from tests.integration.modal_app import APP, Deployed, app, app_plane, deploy
from tests.jobs import overlay

from reel_modal import FunctionRegistry, Settings
from reel_modal._support.clock import ManualClock
from reel_modal.backends.modal import ModalBackend
from reel_modal.backends.modal.scaling import activity_of, scaling_of, set_minimum
from reel_modal.errors import ConfigError, UnavailableError
from reel_modal.functions import container
from reel_modal.functions.specs import SUBMITTED_AT

__all__ = ["app", "app_plane"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

FUNCTION = "render_overlay"


async def minimum() -> int:
    return (await scaling_of(ModalBackend(APP), FUNCTION)).min_containers


async def running(app: Deployed, count: int) -> list[RunningContainer]:
    """Wait until a number of containers wait for a job or run one, and return them."""

    def look() -> list[RunningContainer] | None:
        found = app.plane.containers(FUNCTION)
        return found if len(found) == count and all(one.ready for one in found) else None

    return await asyncio.to_thread(app.plane.wait_for, look) or []


async def none_running(app: Deployed) -> None:
    await asyncio.to_thread(app.plane.wait_for, lambda: not app.plane.containers(FUNCTION))


@pytest.fixture
def cold(app: Deployed) -> Deployed:
    """The app without a container, whose idle containers end soon."""
    app.plane.end_containers()
    app.plane.limit_idle_seconds(0.2)
    return app


async def test_prewarm_keeps_containers_and_releases_them(cold: Deployed) -> None:
    async with FunctionRegistry(cold.settings) as registry:
        async with registry.prewarm(FUNCTION, containers=2, for_seconds=600):
            warm = await running(cold, 2)
            await asyncio.to_thread(
                cold.plane.wait_for, lambda: all(one.idle_rounds > 2 for one in cold.plane.containers(FUNCTION))
            )
            assert [one.task_id for one in await running(cold, 2)] == [one.task_id for one in warm]
            assert await minimum() == 2
        await none_running(cold)
        assert await minimum() == 0


async def test_prewarm_job_runs_in_warm_container(cold: Deployed) -> None:
    made_clip(cold.store / "in.mp4", seconds=1)
    async with FunctionRegistry(cold.settings) as registry:
        async with registry.prewarm(FUNCTION, containers=1, for_seconds=600):
            (warm,) = await running(cold, 1)
            result = await registry.run(overlay("warm"))
            (used,) = await running(cold, 1)
        assert used.task_id == warm.task_id
        assert result.frames == 25


async def test_prewarm_error_in_block_releases(cold: Deployed) -> None:
    async with FunctionRegistry(cold.settings) as registry:
        with pytest.raises(ValueError, match="of the host"):
            async with registry.prewarm(FUNCTION, containers=1, for_seconds=600):
                raise ValueError("of the host")
    assert await minimum() == 0


async def test_prewarm_cancelled_block_releases(cold: Deployed) -> None:
    entered = asyncio.Event()

    async def block(registry: FunctionRegistry) -> None:
        async with registry.prewarm(FUNCTION, containers=1, for_seconds=600):
            entered.set()
            await asyncio.Event().wait()

    async with FunctionRegistry(cold.settings) as registry:
        task = asyncio.ensure_future(block(registry))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await none_running(cold)
    assert await minimum() == 0


async def test_prewarm_cancelled_entry_releases(cold: Deployed) -> None:
    """Modal has received the request, but its answer does not come before the cancellation."""

    def raises_minimum(request: Message) -> bool:
        return (
            isinstance(request, api_pb2.FunctionUpdateSchedulingParamsRequest) and request.settings.min_containers > 0
        )

    cold.plane.faults.delay("FunctionUpdateSchedulingParams", 1.0, where=raises_minimum)

    async def block(registry: FunctionRegistry) -> None:
        async with registry.prewarm(FUNCTION, containers=1, for_seconds=600):
            raise AssertionError("it was entered")

    def sent() -> bool:
        return cold.plane.count("FunctionUpdateSchedulingParams") == 2

    async with FunctionRegistry(cold.settings) as registry:
        task = asyncio.ensure_future(block(registry))
        await asyncio.to_thread(cold.plane.wait_for, sent)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(cold.plane.wait_for, lambda: cold.plane.minimums(FUNCTION)[-1:] == [0])
    assert await minimum() == 0


async def test_prewarm_releases_after_its_time(cold: Deployed) -> None:
    clock = ManualClock()
    async with FunctionRegistry(cold.settings, clock=clock) as registry:
        async with registry.prewarm(FUNCTION, containers=1, for_seconds=60):
            await clock.advance(59)
            assert await minimum() == 1
            await clock.advance(1)
            await asyncio.to_thread(cold.plane.wait_for, lambda: cold.plane.minimums(FUNCTION)[-1] == 0)
        # The end of the block sends no further request.
        assert cold.plane.minimums(FUNCTION) == [1, 0]


async def test_prewarm_never_raises_minimum_at_its_end(cold: Deployed) -> None:
    backend = ModalBackend(APP)
    await set_minimum(backend, FUNCTION, 2)
    async with FunctionRegistry(cold.settings) as registry:
        async with registry.prewarm(FUNCTION, containers=3, for_seconds=60):
            await set_minimum(backend, FUNCTION, 0)  # the prewarm of another host has ended
        assert await minimum() == 0
        await set_minimum(backend, FUNCTION, 2)
        async with registry.prewarm(FUNCTION, containers=1, for_seconds=60):
            assert await minimum() == 2
        assert await minimum() == 2


async def test_prewarm_more_than_allowed_is_refused(cold: Deployed) -> None:
    async with FunctionRegistry(cold.settings) as registry:
        with pytest.raises(ConfigError, match="containers=11 is more than the 10"):
            async with registry.prewarm(FUNCTION, containers=11, for_seconds=60):
                pass
    assert cold.plane.minimums(FUNCTION) == []


async def test_prewarm_release_is_retried(cold: Deployed) -> None:
    registry = FunctionRegistry(cold.settings)
    async with registry.prewarm(FUNCTION, containers=1, for_seconds=60):
        cold.plane.faults.fail("FunctionUpdateSchedulingParams", Status.INTERNAL, times=1)
    assert await minimum() == 0


async def test_prewarm_release_failed_names_cost(cold: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reel_modal._jobs.prewarm._UNDO_SECONDS", 0.1)
    async with FunctionRegistry(cold.settings) as registry:
        with pytest.raises(UnavailableError, match="keeps 1 containers of it running, and bills them"):
            async with registry.prewarm(FUNCTION, containers=1, for_seconds=60):
                cold.plane.faults.fail("FunctionUpdateSchedulingParams", Status.INTERNAL, times=1000)


def test_prewarm_sync_block_releases(cold: Deployed) -> None:
    registry = FunctionRegistry(cold.settings)
    with registry.prewarm(FUNCTION, containers=1, for_seconds=60):
        assert cold.plane.minimums(FUNCTION) == [1]
    assert cold.plane.minimums(FUNCTION) == [1, 0]


async def test_prewarm_deploy_resets_it(cold: Deployed) -> None:
    async with FunctionRegistry(cold.settings) as registry:
        async with registry.prewarm(FUNCTION, containers=1, for_seconds=60):
            await asyncio.to_thread(deploy, cold.plane)
            assert await minimum() == 0
        # The containers of the version to which this host is pinned are released.
        assert cold.plane.minimums(FUNCTION) == [1, 0]
        assert await minimum() == 0


async def test_activity_counts_containers(cold: Deployed) -> None:
    async with FunctionRegistry(cold.settings).prewarm(FUNCTION, containers=2, for_seconds=60):
        await running(cold, 2)
        activity = await activity_of(ModalBackend(APP), FUNCTION)
    assert (activity.backlog, activity.running, activity.containers) == (0, 0, 2)
    assert activity.min_containers == (2 if hasattr(modal.Function, "autoscaler") else None)  # not in modal 1.6.0


async def test_prewarm_local_backend_does_nothing() -> None:
    async with FunctionRegistry(Settings()) as registry, registry.prewarm(FUNCTION, containers=3, for_seconds=60):
        pass


@pytest.mark.parametrize(
    ("containers", "for_seconds", "problem"),
    [(0, 60, "containers=0"), (True, 60, "containers=True"), (1, 0, "for_seconds=0"), (1, float("nan"), "nan")],
)
def test_prewarm_arguments_out_of_range_are_refused(containers: int, for_seconds: float, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        FunctionRegistry(Settings()).prewarm(FUNCTION, containers=containers, for_seconds=for_seconds)


def test_prewarm_unknown_function_is_refused() -> None:
    with pytest.raises(KeyError, match="render_overlya"):
        FunctionRegistry(Settings()).prewarm("render_overlya", containers=1, for_seconds=60)


@pytest.mark.parametrize(
    ("submitted_seconds_ago", "started_for_it"), [(101.0, True), (97.0, True), (90.0, False), (0.0, False)]
)
def test_container_started_before_submission_is_not_cold(
    submitted_seconds_ago: float, started_for_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that was started in advance has not started for the job, and its wait is not that of the job."""
    monkeypatch.setattr(container, "seconds_since_process_start", lambda: 100.0)
    payload = {SUBMITTED_AT: time.time() - submitted_seconds_ago}
    assert container._started_for(payload) is started_for_it
    assert container._started_for({})
