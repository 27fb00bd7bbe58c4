"""Tests of the versions of the loopback plane with the real client and container runtime."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.nested_app import APP, deploy_code, event, function, nested_version, send_event

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["nested_version"]


async def use_siblings(version: int, lookup: str) -> list[Any]:
    """Start a pinned call and one that is not pinned, and return both when they wait for an event."""
    calls = [await function("use_sibling", pin).spawn.aio(lookup) for pin in (version, None)]
    assert [await event("siblings") for _ in calls] == ["ready", "ready"]
    return calls


async def test_plane_pinned_handle_keeps_old_version(
    plane: LoopbackPlane, nested_version: int, tmp_path: Path
) -> None:
    pinned, current = function("part", nested_version), function("part")
    assert (await pinned.remote.aio(0))["code"] == (await current.remote.aio(0))["code"] == 1
    (warm,) = [one for one in plane.containers("part") if one.pinned_version]
    version = await asyncio.to_thread(deploy_code, plane, tmp_path, 2)
    assert version == nested_version + 1
    assert ((await pinned.remote.aio(0))["code"], (await current.remote.aio(0))["code"]) == (1, 2)
    # The redeploy ends the containers of the other handle alone.
    assert warm in plane.containers("part")
    late = function("part", nested_version)
    assert (await late.remote.aio(0))["code"] == 1
    assert {one.pinned_version for one in plane.containers("part")} == {nested_version, 0}
    infos = [await function("part", number).info.aio() for number in (nested_version, version, None)]
    assert [info.timeout for info in infos] == [100, 200, 200]


async def test_plane_absent_version_not_found(plane: LoopbackPlane, nested_version: int) -> None:
    import modal

    with pytest.raises(modal.exception.NotFoundError, match="version 999"):
        await function("part", 999).hydrate.aio()
    with pytest.raises(modal.exception.NotFoundError, match="absent"):
        await function("absent", nested_version).hydrate.aio()


@pytest.mark.parametrize(("lookup", "code"), [("module", 3), ("name", 4)])
async def test_plane_pinned_function_calls_its_version(
    plane: LoopbackPlane, nested_version: int, tmp_path: Path, lookup: str, code: int
) -> None:
    pinned, current = await use_siblings(nested_version, lookup)
    await asyncio.to_thread(deploy_code, plane, tmp_path, code)
    for _ in range(2):
        await send_event("go")
    assert await pinned.get.aio(timeout=20) == (1, 1)
    # The one that is not pinned started before the deploy too, but calls the new version.
    own, sibling = await current.get.aio(timeout=20)
    assert own < sibling == code


async def test_plane_preempted_pinned_input_keeps_version(
    plane: LoopbackPlane, nested_version: int, tmp_path: Path
) -> None:
    pinned, current = await use_siblings(nested_version, "name")
    await asyncio.to_thread(deploy_code, plane, tmp_path, 5)
    for call in (pinned, current):
        await asyncio.to_thread(plane.preempt, call.object_id)
    for _ in range(2):
        assert await event("siblings") == "ready"  # of a second attempt
        await send_event("go")
    assert await pinned.get.aio(timeout=20) == (1, 1)
    assert await current.get.aio(timeout=20) == (5, 5)


async def test_plane_container_finds_all_but_its_version(
    plane: LoopbackPlane, nested_version: int, tmp_path: Path
) -> None:
    latest = await asyncio.to_thread(deploy_code, plane, tmp_path, 6)
    spawned = await function("introspect", nested_version).spawn.aio()
    found = await spawned.get.aio(timeout=20)
    (container,) = plane.containers("introspect")
    assert (found["app"], found["environment"]) == (APP, "main")
    assert (found["call"], found["task"]) == (spawned.object_id, container.task_id)
    assert found["app_id"].startswith("ap-")
    assert found["input"].startswith("in-")
    # modal has no request for the version of the calling container, so the caller must pass it.
    assert found["latest_version"] == latest > nested_version == container.pinned_version


async def test_plane_pinned_handle_with_options_keeps_version(
    plane: LoopbackPlane, nested_version: int, tmp_path: Path
) -> None:
    await asyncio.to_thread(deploy_code, plane, tmp_path, 7)
    await asyncio.to_thread(plane.end_containers)
    variant = function("part", nested_version).with_options(timeout=7)
    assert (await variant.remote.aio(0))["code"] == 1
    (container,) = plane.containers("part")
    assert container.pinned_version == nested_version
