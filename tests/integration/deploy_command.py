"""The deploy command with a loopback plane."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.integration.modal_app import Deployed, deploy
from tests.run_function import DEPLOYED

from reel_modal.deploy.command import main
from reel_modal.functions.contract import local_contract

APP = "deploys-test"
NAME = ("--app", "deploys", "--environment", "test")
QUICK = (*NAME, "--no-preflight")
L4 = {"REEL_MODAL_RENDER_OVERLAY_GPU": "L4"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, python_of_image: Path) -> Iterator[tuple[Deployed, Path]]:
    """A plane without deployments, and a Python with the packages of the image for its containers."""
    from tests.integration.loopback.plane import LoopbackPlane

    folder = tmp_path_factory.mktemp("deploys")
    with LoopbackPlane(folder / "plane", container_python=python_of_image) as plane:
        plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": folder.as_uri()})
        yield Deployed(plane, folder), python_of_image
    assert not plane.processes()


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Deploys:
    """The deploy command, its plane, and its environment."""

    def __init__(self, plane_of: Deployed, python: Path, folder: Path) -> None:
        self.plane, self.python, self.folder = plane_of.plane, python, folder
        self.log = folder / "deploy.log"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "reel_modal.deploy", "--log-file", str(self.log), *arguments]

    def environment(self, **variables: str) -> dict[str, str]:
        return {**os.environ, **self.plane.environment(), **variables}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**variables),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding=variables.get("PYTHONIOENCODING", "utf-8"),
            timeout=240,
            check=False,
        )

    def run_in_process(self, *arguments: str, **variables: str) -> Done:
        """Run the command in this process, in which modal is already loaded."""
        from tests.integration.loopback.fixtures import forget_client

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in variables.items():
                patch.setenv(name, value)
            forget_client()
            try:
                status = main(["--log-file", str(self.log), *arguments])
            except SystemExit as exit_error:  # argparse ends a process with it
                status = int(str(exit_error.code))
        return Done(status, out.getvalue(), err.getvalue())

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def scratch(self) -> Path:
        """Return an empty temporary directory."""
        folder = self.folder / f"scratch-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return folder

    def publishes(self) -> int:
        """Return how often the app was published in this test."""
        return self.plane.count("AppPublish")

    def gpu(self) -> tuple[str, ...]:
        return self.plane.functions(APP)["render_overlay"].gpus


@pytest.fixture
def deploys(shared: tuple[Deployed, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deploys]:
    """The command, without a deployment of the app."""
    from tests.integration.loopback.fixtures import fresh

    deployed, python = shared
    if deployed.plane.functions(APP):
        deployed.plane.stop_app(APP)
    with fresh(deployed.plane, monkeypatch):
        yield Deploys(deployed, python, tmp_path)


@pytest.fixture
def first(shared: tuple[Deployed, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deploys]:
    """The command, with a first version deployed."""
    from tests.integration.loopback.fixtures import fresh

    deployed, python = shared
    deployed_functions = deployed.plane.functions(APP)
    if set(deployed_functions) != {*DEPLOYED, local_contract({}).name} or deployed_functions[
        "render_overlay"
    ].gpus != ("T4",):
        deploy(deployed.plane, REEL_MODAL_APP="deploys")
    with fresh(deployed.plane, monkeypatch):
        yield Deploys(deployed, python, tmp_path)
