"""The tiny app of `loopback/sample` on the loopback plane, for tests that call functions of any app."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

APP = "loopback-sample"
SAMPLE = Path(__file__).parent / "loopback" / "sample"


def deploy(
    plane: LoopbackPlane,
    *arguments: str,
    folder: Path = SAMPLE,
    module: str = "loopback_sample",
    **variables: str,
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


@pytest.fixture(scope="module")
def sample(shared_plane: LoopbackPlane) -> None:
    shared_plane.create_secret("sample-secret", {"SAMPLE_KEY": "sesame"})
    completed = deploy(shared_plane)
    assert completed.returncode == 0, completed.stdout + completed.stderr
