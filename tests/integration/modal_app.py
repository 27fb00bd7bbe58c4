"""The package's app on the loopback plane, deployed with the real command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.loopback.interpreters import only_packages
from tests.jobs import GLOBAL
from tests.run_function import SPECS

from reel_modal.schema import OverlayRequest
from reel_modal.settings import Settings

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

APP = "reel-modal-test"


@dataclass(frozen=True)
class Deployed:
    """The plane with the deployed app, and the folder that is its store."""

    plane: LoopbackPlane
    store: Path

    @property
    def settings(self) -> Settings:
        return Settings.from_env({}, modal_enabled=True, environment="test", store_url=self.store.as_uri())


def deploy(plane: LoopbackPlane, **variables: str) -> None:
    """Run `modal deploy` as a user does; the app is that of the test environment."""
    subprocess.run(
        [sys.executable, "-m", "modal", "deploy", "-m", "reel_modal.functions.app"],
        env={
            **os.environ,
            **plane.environment(),
            "REEL_MODAL_ENVIRONMENT": "test",
            "PYTHONIOENCODING": "utf-8",
            **variables,
        },
        capture_output=True,
        timeout=240,
        check=True,
    )


@pytest.fixture(scope="session")
def python_of_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with modal and the packages of the images."""
    return image_python(tmp_path_factory.mktemp("image") / "python")


@pytest.fixture(scope="session")
def session_plane(tmp_path_factory: pytest.TempPathFactory, python_of_image: Path) -> Iterator[Deployed]:
    """A plane with the deployed app, whose containers have only the packages of the image."""
    if sys.platform != "linux":
        pytest.skip("the loopback plane runs containers as Linux processes")
    from tests.integration.loopback.plane import LoopbackPlane

    folder = tmp_path_factory.mktemp("app")
    store = folder / "store"
    store.mkdir()
    with LoopbackPlane(folder / "plane", container_python=python_of_image, container_limit=8) as plane:
        plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": store.as_uri()})
        deploy(plane)
        yield Deployed(plane, store)
    assert not plane.processes()


@pytest.fixture(scope="module")
def app_plane(session_plane: Deployed) -> Iterator[Deployed]:
    """The plane of the session with an empty store; its containers end, and its app is restored, after each file."""
    plane, deployed = session_plane.plane, session_plane.plane.functions(APP)
    yield session_plane
    plane.end_containers()
    if plane.functions(APP) != deployed:
        deploy(plane)
    for path in session_plane.store.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.fixture
def app(app_plane: Deployed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """The deployed app, without the faults and records of other tests."""
    from tests.integration.loopback.fixtures import fresh

    with fresh(app_plane.plane, monkeypatch):
        yield app_plane


def request(job_id: str, *, source: str = "in.mp4", output: str = "") -> OverlayRequest:
    """Return a request with a highlight that moves for 1.5 seconds."""
    region = {
        "id": "player",
        "startTime": 0,
        "endTime": 1.5,
        "keyframes": [
            {"time": 0, "x": 80, "y": 90, "radiusX": 40, "radiusY": 30},
            {"time": 1.5, "x": 200, "y": 90, "radiusX": 40, "radiusY": 30},
        ],
    }
    return OverlayRequest.parse(
        {
            "jobId": job_id,
            "userId": "u",
            "inputKey": source,
            "outputKey": output or f"out/{job_id}.mp4",
            "highlightRegions": [region],
            "store": GLOBAL.to_dict(),
        }
    )


def image_python(folder: Path) -> Path:
    """Make a Python with modal and the packages of the images."""
    requirements = dict.fromkeys(
        requirement for spec in SPECS.values() for requirement in spec.image.packages_without_gpu
    )
    installed = [requirement.partition("==")[0] for requirement in requirements]
    return only_packages(folder, ["modal", *installed])
