"""ONNX Runtime, as loaded by this library, writes no device id and sends no DNS request."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime
import pytest

UPSCALE = """
import numpy as np
from reel_modal._upscaling.session import UpscaleSession
from reel_modal._upscaling.model import UpscaleModel
session = UpscaleSession(UpscaleModel.load("small-x2"), provider="cpu", threads=1)
assert session.run(np.zeros((1, 1, 32, 32), np.uint8)).shape == (1, 1, 64, 64)
"""
DOCTOR = """
import sys
from reel_modal.cli import main
sys.exit(main(["doctor", "--json"]))
"""
# If one of these is set, ONNX Runtime sends nothing anyway, and this test would prove nothing.
SILENCING = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "GITHUB_ACTIONS", "TF_BUILD"}

has_telemetry = pytest.mark.skipif(
    tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 29), reason="this ONNX Runtime has no telemetry"
)


def environment_of_a_user(home: Path) -> dict[str, str]:
    """Return this process's environment with an empty home folder and without variables that disable telemetry."""
    home.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in SILENCING}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        environment[name] = str(home / name)
    return {**environment, "HOME": str(home)}


def run(code: str, home: Path, **variables: str) -> None:
    environment = {**environment_of_a_user(home), **variables}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("code", [UPSCALE, DOCTOR], ids=["upscale", "doctor"])
def test_telemetry_disabled_writes_no_file_at_home(code: str, tmp_path: Path) -> None:
    run(code, tmp_path)
    assert files(tmp_path) == []


@has_telemetry
def test_telemetry_enabled_by_user_writes_a_device_id(tmp_path: Path) -> None:
    """This also proves that the other tests would detect a device id."""
    run(UPSCALE, tmp_path, ORT_DISABLE_TELEMETRY="0")
    assert "deviceid" in files(tmp_path)


@has_telemetry
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.slow
def test_telemetry_disabled_opens_no_internet_socket(tmp_path: Path) -> None:
    """With telemetry, the first request comes about ten seconds after the start; a control process shows when."""
    ours, control = tmp_path / "ours", tmp_path / "control"
    with tracing(ours), tracing(control, ORT_DISABLE_TELEMETRY="0"):
        deadline = time.monotonic() + 60
        while not internet_sockets(control):
            assert time.monotonic() < deadline, "telemetry that is on looks up no host: this test proves nothing"
            time.sleep(0.1)
    assert internet_sockets(ours) == []


@contextmanager
def tracing(log: Path, **variables: str) -> Iterator[None]:
    """Run UPSCALE in a process that lasts until the block ends, in which opening a socket fails."""
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=socket", "-e", "inject=socket:error=EACCES"]
    command += [sys.executable, "-c", f"{UPSCALE}\nimport sys\nsys.stdin.read()"]
    environment = environment_of_a_user(log.with_suffix(".home"))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, env={**environment, **variables})
    try:
        yield
        assert process.poll() is None, "the process has ended early"
    finally:
        process.communicate()


def internet_sockets(log: Path) -> list[str]:
    return re.findall(r".*\bAF_INET6?\b.*", log.read_text()) if log.exists() else []
