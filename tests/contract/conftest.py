"""Every test of the contract runs in memory, in worker processes of this machine, and on Modal."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.clips import Clips
from tests.contract.places import Local, Memory, Modal, Place
from tests.integration.loopback.fixtures import plane, plane_of_file, shared_plane
from tests.integration.modal_app import APP, deploy

from reel_modal.testing import make_clip

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

__all__ = ["plane", "plane_of_file", "shared_plane"]


@pytest.fixture(scope="session")
def contract_store(tmp_path_factory: pytest.TempPathFactory, clips: Clips) -> Path:
    """What all places read from and publish to."""
    store = tmp_path_factory.mktemp("contract-store")
    make_clip(store / "short.mp4", seconds=1, fps=25, size=(320, 180))
    make_clip(store / "long.mp4", seconds=60, fps=25, size=(320, 180))
    (store / "garbage.mp4").write_bytes(clips.get("garbage.mp4").read_bytes())
    return store


@pytest.fixture(scope="session")
def contract_scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the jobs of all places have their temporary files."""
    return tmp_path_factory.mktemp("contract-scratch")


@pytest.fixture(scope="session")
def deployed(shared_plane: LoopbackPlane, contract_store: Path, contract_scratch: Path) -> str:
    """The app on the plane; its name."""
    variables = {"REEL_MODAL_STORE_URL": contract_store.as_uri(), "TMPDIR": str(contract_scratch)}
    shared_plane.create_secret("reel-modal-storage", variables)
    deploy(shared_plane)
    return APP


@pytest.fixture(params=["memory", "local", "modal"])
def place(
    request: pytest.FixtureRequest,
    contract_store: Path,
    contract_scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    if request.param == "memory":
        yield Memory()
        return
    if sys.platform != "linux":
        pytest.skip("looks at processes through /proc")
    monkeypatch.setattr(tempfile, "tempdir", str(contract_scratch))
    monkeypatch.setenv("TMPDIR", str(contract_scratch))
    if request.param == "local":
        yield Local(contract_store, contract_scratch)
    else:
        app = request.getfixturevalue("deployed")
        yield Modal(request.getfixturevalue("plane"), contract_store, contract_scratch, app)
