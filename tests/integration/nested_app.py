"""The app of `loopback/sample` whose functions call one another, on the loopback plane, in versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.integration.sample_app import SAMPLE, deploy_here

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

APP = "loopback-nested"
_MODULE = "loopback_nested"


def deploy_code(plane: LoopbackPlane, folder: Path, code: int) -> int:
    """Deploy the app with a number in its source, in a folder without another one; return the version."""
    source = (SAMPLE / f"{_MODULE}.py").read_text()
    folder.mkdir(exist_ok=True)
    path = folder / f"{_MODULE}.py"
    path.write_text(source.replace("CODE = 1\n", f"CODE = {code}\n"))
    version = deploy_here(plane, path).info().lifecycle.version
    assert isinstance(version, int)
    return version


@pytest.fixture(scope="module")
def nested_version(shared_plane: LoopbackPlane, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Deploy the app with code 1, and return the version of the deployment."""
    return deploy_code(shared_plane, tmp_path_factory.mktemp("nested"), 1)


def function(name: str, version: int | None = None) -> Any:
    import modal

    return modal.Function.from_name(APP, name, version=version)


async def event(partition: str) -> Any:
    """Wait for an event from a function of the app in a partition, and return it."""
    import modal

    return await modal.Queue.from_name("nested-events", create_if_missing=True).get.aio(
        partition=partition, timeout=20
    )


async def send_event(partition: str) -> None:
    """Put an event into a partition for which a function of the app waits."""
    import modal

    await modal.Queue.from_name("nested-events", create_if_missing=True).put.aio("go", partition=partition)
