"""The example `own_function`, installed beside this package as a host installs it: its tests, its command, on Modal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.modal_app import image_python

from reel_modal.testing import make_clip

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_function"
APP = ("--app", "thumbs", "--environment", "test")
DEPLOY = ("-m", "reel_modal.deploy", *APP, "--functions", "thumbnails.function", "--only", "make_thumbnail")
LONGEST_SECONDS = 280

# A host that runs the same job on this machine and on Modal.
HOST = """
import asyncio, json, sys
from pathlib import Path
from thumbnails import ThumbnailRequest, make_thumbnail
from reel_modal import FunctionRegistry, Settings

async def main(store):
    made = {}
    for enabled in (False, True):
        settings = Settings.from_env(
            modal_enabled=enabled, app="thumbs", environment="test", store_url=store.as_uri(), timings="off"
        )
        async with FunctionRegistry(settings, functions=[make_thumbnail]) as registry:
            name = "modal" if enabled else "local"
            keys = {"job_id": name, "user_id": "u", "input_key": "in.mp4", "output_key": f"{name}/poster.jpg"}
            job = await registry.submit(ThumbnailRequest.parse({**keys, "cells": 9}))
            phases = list(dict.fromkeys([event.phase async for event in job.events()]))
            result = await job.result()
            files = {path.name: path.read_bytes().hex() for path in (store / "users/u" / name).glob("*.*")}
            made[name] = [phases, result.cell_size, result.usage.dollars > 0, files]
    print(json.dumps(made))

asyncio.run(main(Path(sys.argv[1])))
"""


def run(folder: Path, *arguments: str | Path, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, with the packages in `path`."""
    return subprocess.run(
        [sys.executable, "-P", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(path)} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip has installed the example."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(EXAMPLE)]
    subprocess.run(command, check=True, timeout=100)
    return folder


@pytest.mark.timeout(LONGEST_SECONDS + 20)
def test_tests_of_example_pass(site: Path, tmp_path: Path) -> None:
    for name in ("tests", "pyproject.toml"):
        source = EXAMPLE / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    others = ("-p", "no:asyncio", "-p", "no:anyio", "-p", "no:cacheprovider")  # old versions of these raise warnings
    done = run(tmp_path, "-m", "pytest", "-q", *others, "-W", "error", path=site)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_installed_function_is_a_command(site: Path, tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4", seconds=1)
    (tmp_path / "spec.json").write_text('{"cells": 4, "time": 0.5}')
    done = run(
        tmp_path, "-m", "reel_modal", "make-thumbnail", "clip.mp4", "poster.jpg", "--spec", "spec.json", path=site
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"poster.jpg", "poster-sprite.jpg", "poster-sprite.vtt"}
    assert "poster-sprite.jpg#xywh=160,90,160,90" in (tmp_path / "poster-sprite.vtt").read_text()


@pytest.fixture(scope="module")
def modal_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoopbackPlane, Path, Path]]:
    """A plane without deployments, the Python of its containers, and the folder of its store."""
    if sys.platform != "linux":
        pytest.skip("the loopback plane runs containers as Linux processes")
    from tests.integration.loopback.plane import LoopbackPlane

    folder = tmp_path_factory.mktemp("thumbs")
    store, python = folder / "store", image_python(folder / "python")
    (store / "users" / "u").mkdir(parents=True)
    make_clip(store / "users" / "u" / "in.mp4", seconds=2)
    with LoopbackPlane(folder / "plane", container_python=python) as plane:
        plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": store.as_uri()})
        yield plane, python, store
    assert not plane.processes()


@pytest.mark.modal
@pytest.mark.timeout(3 * LONGEST_SECONDS)
def test_changed_line_of_host_is_named_until_deployed(
    modal_plane: tuple[LoopbackPlane, Path, Path], tmp_path: Path
) -> None:
    plane, python, store = modal_plane
    package = shutil.copytree(EXAMPLE / "thumbnails", tmp_path / "thumbnails")
    log = ("--log-file", tmp_path / "deploy.log")

    def deploy(*options: str | Path) -> subprocess.CompletedProcess[str]:
        return run(tmp_path, *DEPLOY, *log, *options, path=tmp_path, **plane.environment())

    first = deploy("--preflight-python", python)
    assert first.returncode == 0, first.stderr
    assert "trial: make_thumbnail published " in first.stderr
    assert "make_thumbnail: ok" in first.stdout

    host = run(tmp_path, "-c", HOST, store, path=tmp_path, **plane.environment())
    assert host.returncode == 0, host.stderr
    made = json.loads(host.stdout)
    assert made["local"][0] == made["modal"][0] == ["fetch", "render", "publish"]
    assert made["local"][1] == made["modal"][1] == [160, 90]
    assert (made["local"][2], made["modal"][2]) == (False, True)
    assert made["local"][3] == made["modal"][3]
    assert set(made["modal"][3]) == {"poster.jpg", "poster-sprite.jpg", "poster-sprite.vtt"}

    drawing = package / "drawing.py"
    drawing.write_text(drawing.read_text().replace("_QUALITY = 85", "_QUALITY = 60"))
    changed = deploy("--verify-only")
    assert changed.returncode == 1, changed.stdout
    assert "make_thumbnail: package: thumbnails " in changed.stdout
    again = deploy("--no-preflight")  # it verifies as well
    assert (again.returncode, "make_thumbnail: ok" in again.stdout) == (0, True), again.stdout
