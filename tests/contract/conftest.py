"""Run every contract test in memory, in local worker processes, and on Modal."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.clips import Clips, made_clip
from tests.contract.places import Local, Memory, Modal, Place
from tests.integration.loopback.fixtures import plane, plane_of_file, shared_plane
from tests.integration.modal_app import APP, deploy

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

__all__ = ["plane", "plane_of_file", "shared_plane"]


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory, clips: Clips) -> Path:
    """The store that all backends read from and publish to."""
    store = tmp_path_factory.mktemp("contract-store")
    made_clip(store / "short.mp4", seconds=1, fps=25, size=(320, 180))
    made_clip(store / "medium.mp4", seconds=8, fps=25, size=(320, 180))
    made_clip(store / "long.mp4", seconds=60, fps=25, size=(320, 180))
    (store / "garbage.mp4").write_bytes(clips.get("garbage.mp4").read_bytes())
    return store


@pytest.fixture(scope="session")
def deployed(shared_plane: LoopbackPlane, shared_store: Path) -> str:
    """Deploy the app on the plane; return its name."""
    shared_plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": shared_store.as_uri()})
    deploy(shared_plane)
    return APP


@pytest.fixture(params=["memory", "local", "modal"])
def place(
    request: pytest.FixtureRequest, shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    if request.param == "memory":
        return Memory()
    if sys.platform != "linux":
        pytest.skip("looks at processes through /proc")
    if request.param == "local":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        return Local(shared_store, tmp_path)
    app = request.getfixturevalue("deployed")
    return Modal(request.getfixturevalue("plane"), shared_store, app)
