"""Tests of calls that functions make in containers of the loopback plane, with the real client and runtime."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.nested_app import deploy_code, event, function, nested_version, send_event

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["nested_version"]


@pytest.fixture
def app(plane: LoopbackPlane, nested_version: int) -> LoopbackPlane:
    """A plane with the deployed app, without events of other tests."""
    import modal

    modal.Queue.from_name("nested-events", create_if_missing=True).clear(all=True)
    return plane


def children(app: LoopbackPlane) -> list[str]:
    """Return the parents' inputs of the calls that containers have made."""
    return [request.parent_input_id for rpc, request in app.container_requests if rpc == "FunctionMap"]


def most_at_once(parts: list[dict[str, Any]]) -> int:
    """Return how many parts ran at the same time, at most."""
    return max(sum(one["started_at"] <= part["started_at"] < one["ended_at"] for one in parts) for part in parts)


async def test_plane_coordinator_spawns_and_awaits_siblings(app: LoopbackPlane) -> None:
    parent = await function("coordinate").spawn.aio(6, 0.2)
    await event("waiting")
    assert len(app.containers("part")) == 2  # its max_containers
    parts = await parent.get.aio(timeout=20)
    assert [part["number"] for part in parts] == list(range(6))
    assert 1 <= most_at_once(parts) <= 2
    assert app.count("FunctionGet", side="container") == 1
    made = children(app)
    assert (len(made), len(set(made)), made[0][:3]) == (6, 1, "in-")


async def test_plane_container_cancels_one_call_by_id(app: LoopbackPlane) -> None:
    assert await function("cancel_one").remote.aio() == "cancelled, and 0 was kept"


async def test_plane_single_use_container_counts_for_limit(app: LoopbackPlane) -> None:
    alone = function("alone")
    first = await alone.spawn.aio()
    await event("alone")
    second = await alone.spawn.aio()
    assert [container.call_ids for container in app.containers("alone")] == [(first.object_id,)]
    for spawned in (first, second):
        await send_event("go")
        assert await spawned.get.aio(timeout=20) is None


async def test_plane_cancelled_parent_leaves_its_children(app: LoopbackPlane) -> None:
    import modal

    parent = await function("coordinate").spawn.aio(2, 2.0)
    assert await event("waiting") == parent.object_id
    await parent.cancel.aio()
    with pytest.raises(modal.exception.RemoteError):
        await parent.get.aio(timeout=20)
    ids = [await event(parent.object_id), await event(parent.object_id)]
    parts = [await modal.FunctionCall.from_id(child).get.aio(timeout=20) for child in ids]
    assert [part["number"] for part in parts] == [0, 1]


async def test_plane_cancelled_parent_can_cancel_children(app: LoopbackPlane) -> None:
    import modal

    parent = await function("tidy").spawn.aio(60.0)
    ids = [await event("tidy"), await event("tidy")]
    await event("parts")
    await parent.cancel.aio()
    for call_id in (parent.object_id, *ids):
        with pytest.raises(modal.exception.RemoteError):
            await modal.FunctionCall.from_id(call_id).get.aio(timeout=20)


async def test_plane_killed_parent_leaves_its_children(app: LoopbackPlane) -> None:
    import modal

    parent = await function("coordinate").spawn.aio(1, 2.0)
    await event("waiting")
    await asyncio.to_thread(app.kill_container, parent.object_id)
    with pytest.raises(modal.exception.InternalFailure):
        await parent.get.aio(timeout=20)
    child = modal.FunctionCall.from_id(await event(parent.object_id))
    assert (await child.get.aio(timeout=20))["number"] == 0


async def test_plane_preempted_parent_finds_its_children(app: LoopbackPlane) -> None:
    parent = await function("coordinate").spawn.aio(3, 1.0)
    assert await event("waiting") == parent.object_id
    await asyncio.to_thread(app.preempt, parent.object_id)
    assert await event("waiting") == parent.object_id
    parts = await parent.get.aio(timeout=20)
    assert [part["number"] for part in parts] == [0, 1, 2]
    assert len(children(app)) == 3


@pytest.mark.parametrize(
    ("seconds", "act", "end"),
    [(0.0, None, "result"), (60.0, "cancel", "RemoteError"), (60.0, "kill", "InternalFailure")],
)
async def test_plane_child_detects_end_of_parent(
    app: LoopbackPlane, seconds: float, act: str | None, end: str
) -> None:
    import modal

    parent = await function("start_child").spawn.aio(seconds)
    child = modal.FunctionCall.from_id(await event("children"))
    await event("watching")
    if act == "cancel":
        await parent.cancel.aio()
    elif act == "kill":
        await asyncio.to_thread(app.kill_container, parent.object_id)
    assert await child.get.aio(timeout=20) == end


async def test_plane_child_outlives_preemption_of_its_parent(app: LoopbackPlane) -> None:
    import modal

    parent = await function("start_child").spawn.aio(60.0)
    child = modal.FunctionCall.from_id(await event("children"))
    await event("watching")
    await asyncio.to_thread(app.preempt, parent.object_id)
    await event("watching")  # of the second attempt
    with pytest.raises(TimeoutError):
        await child.get.aio(timeout=0)
    await parent.cancel.aio()
    assert await child.get.aio(timeout=20) == "RemoteError"


async def test_plane_call_graph_has_parent_and_children(app: LoopbackPlane) -> None:
    import modal
    from modal.types import InputStatus

    parent = await function("coordinate").spawn.aio(2)
    await parent.get.aio(timeout=20)
    child = modal.FunctionCall.from_id(await event(parent.object_id))
    (root,) = await child.get_call_graph.aio()
    assert (root.function_call_id, root.function_name) == (parent.object_id, "coordinate")
    assert [one.function_name for one in root.children] == ["part", "part"]
    assert {root.status, *(one.status for one in root.children)} == {InputStatus.SUCCESS}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[LoopbackPlane]:
    """A plane that runs one container at a time."""
    from tests.integration.loopback.plane import LoopbackPlane

    with LoopbackPlane(tmp_path / "plane", container_limit=1) as plane:
        deploy_code(plane, tmp_path / "code", 1)
        yield plane
    assert not plane.processes()


def test_plane_full_of_parents_runs_their_children(small: LoopbackPlane) -> None:
    import modal

    client = small.client()
    events = modal.Queue.from_name("nested-events", create_if_missing=True, client=client)
    coordinate = modal.Function.from_name("loopback-nested", "coordinate", client=client)
    parents = [coordinate.spawn(2, 0.3) for _ in range(2)]
    # The second attempt needs a place that only the end of a child makes free.
    preempted = events.get(partition="waiting", timeout=30)
    small.preempt(preempted)
    for parent in parents:
        assert [part["number"] for part in parent.get(timeout=30)] == [0, 1]
