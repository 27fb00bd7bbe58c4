"""The tiny app of `loopback/sample` on the loopback plane, for tests that call functions of any app."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

APP = "loopback-sample"
SAMPLE = Path(__file__).parent / "loopback" / "sample"


def deploy(
    plane: LoopbackPlane, *arguments: str, module: str = "loopback_sample", folder: Path = SAMPLE, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `modal deploy` as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "modal", "deploy", *arguments, "-m", module],
        cwd=folder,
        env={**os.environ, **plane.environment(), "PYTHONIOENCODING": "utf-8", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def deploy_here(plane: LoopbackPlane, path: Path = SAMPLE / "loopback_sample.py") -> Any:
    """Deploy the app of a module from this process, which has loaded modal; return the app.

    Another source of a module needs another folder, because bytecode is valid for a whole second.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module.app.deploy(environment_name="main", client=plane.client())


@pytest.fixture(scope="module")
def sample(shared_plane: LoopbackPlane) -> None:
    shared_plane.create_secret("sample-secret", {"SAMPLE_KEY": "sesame"})
    deploy_here(shared_plane)
