"""The pytest fixtures of the plane; import them in a conftest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane


@pytest.fixture(scope="session")
def shared_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPlane]:
    """One plane for the whole run. Deploy through it once; tests that make calls use `plane`."""
    if sys.platform != "linux":
        pytest.skip("the loopback plane runs containers as Linux processes")
    from tests.integration.loopback.plane import LoopbackPlane

    with LoopbackPlane(tmp_path_factory.mktemp("loopback")) as plane:
        yield plane
    assert not plane.processes()


@pytest.fixture(scope="module")
def plane_of_file(shared_plane: LoopbackPlane) -> Iterator[LoopbackPlane]:
    """The shared plane; its containers end after each file, so that they are not child processes of the next one."""
    yield shared_plane
    shared_plane.end_containers()


@pytest.fixture
def plane(plane_of_file: LoopbackPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackPlane]:
    """The shared plane, reset by `fresh`."""
    with fresh(plane_of_file, monkeypatch):
        yield plane_of_file


@contextmanager
def fresh(plane: LoopbackPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove faults and records of other tests from `plane`, and point modal's settings at it."""
    for name, value in plane.environment().items():
        monkeypatch.setenv(name, value)
    forget_client()
    plane.reset()
    yield
    forget_client()
    plane.reset()
    assert not plane.take_errors(), "the plane itself failed"


def forget_client() -> None:
    """Close modal's process-wide client, so that the next use reads the settings again."""
    from modal._utils.async_utils import synchronizer
    from modal.client import _Client
    from tests.integration.loopback.plane import close_client

    client = _Client._client_from_env
    _Client._client_from_env = None
    if client is not None and not client.is_closed():
        close_client(synchronizer._translate_out(client))
