"""pytest fixtures around the plane. Load them with `from tests.integration.loopback.fixtures import ...`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("the loopback plane runs containers as Linux processes", allow_module_level=True)

from modal._utils.async_utils import synchronizer
from modal.client import _Client

from .plane import LoopbackPlane


@pytest.fixture(scope="session")
def shared_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackPlane]:
    """One plane for the whole run."""
    with LoopbackPlane(tmp_path_factory.mktemp("loopback")) as plane:
        yield plane
    assert not plane.processes()


@pytest.fixture
def plane(shared_plane: LoopbackPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackPlane]:
    """The plane of the run, without faults or records of other tests; modal's own settings point at it."""
    for name, value in shared_plane.environment().items():
        monkeypatch.setenv(name, value)
    shared_plane.reset()
    _forget_client()
    yield shared_plane
    _forget_client()
    shared_plane.reset()
    errors = list(shared_plane.errors)
    shared_plane.errors.clear()
    assert not errors, "the plane itself failed:\n" + "\n".join(errors)


def _forget_client() -> None:
    """Close the client that modal keeps for the process, so that the next use reads the settings again."""
    client = _Client._client_from_env
    _Client._set_env_client(None)
    if client is not None and not client.is_closed():
        synchronizer._translate_out(client).close()
