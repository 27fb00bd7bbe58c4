"""A container as a local process: its files, its environment, its termination. Linux only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from modal_proto import api_pb2
from tests.processes import ends_until
from tests.watchdog import MARK

from .wire import TASK_HEADER

# Modal mounts sources under /root and starts there.
SOURCE_FOLDER = "root"
# The runtime asks for cancellations in a long poll; a short one limits the delay between two of them.
HEARTBEAT_SECONDS = 5.0
_END_SECONDS = 10.0
# The mark of the test run, and the limit of numpy's threads, which would take the cores from other tests.
_PASSED_ON = (MARK, "OPENBLAS_NUM_THREADS")


def write_mounts(root: Path, files: list[api_pb2.MountFile], contents: Mapping[str, bytes]) -> Path:
    """Write mounted files below `root`, once, and return the folder that represents /root."""
    source = root / SOURCE_FOLDER
    if not source.exists():
        source.mkdir(parents=True)
        for file in files:
            path = root / file.filename.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[file.sha256_hex])
    return source


def container_environment(url: str, task_id: str, environment: str, arguments: Path, source: Path) -> dict[str, str]:
    """Return the variables for the container runtime, with only those of `_PASSED_ON` from the environment of the tests."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(arguments.parent),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(source),
        "PYTHONUNBUFFERED": "1",
        "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
        "MODAL_IS_REMOTE": "1",
        "MODAL_TASK_ID": task_id,
        "MODAL_ENVIRONMENT": environment,
        "MODAL_SERVER_URL": url,
        "MODAL_OVERRIDE_HEADERS": f"{TASK_HEADER}:{task_id}",
        "MODAL_HEARTBEAT_INTERVAL": str(HEARTBEAT_SECONDS),
        "MODAL_CONFIG_PATH": str(arguments.parent / "no-modal.toml"),
        "MODAL_DISABLE_API_PROXY": "1",
        "NO_PROXY": "127.0.0.1",
    } | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def processes_of(task_id: str) -> list[int]:
    """Return the living processes of a container, including those in other sessions."""
    marker = f"MODAL_TASK_ID={task_id}".encode()
    pids = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # It ended meanwhile, or belongs to another user.
        if marker in variables:
            pids.append(int(folder.name))
    return pids


def end_all(task_id: str) -> None:
    """Kill every process of a container, and return when the last one has ended."""
    deadline = time.monotonic() + _END_SECONDS
    while (pids := processes_of(task_id)) and time.monotonic() < deadline:
        kill_all(task_id)
        for pid in pids:
            ends_until(pid, deadline)


def kill_all(task_id: str) -> None:
    """Kill every process of a container, as the end of a real one does."""
    for pid in processes_of(task_id):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
