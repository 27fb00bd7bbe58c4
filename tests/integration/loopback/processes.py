"""The container as a process of this machine: its files, its environment, its end. Linux only."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from modal_proto import api_pb2
from tests.watchdog import MARK

from .wire import TASK_HEADER

# Modal mounts sources under /root and starts there.
SOURCE_FOLDER = "root"
# The runtime asks for cancellations in a long poll; a short one bounds the pause between two of them.
HEARTBEAT_SECONDS = 5.0


def write_mounts(root: Path, files: list[api_pb2.MountFile], contents: Mapping[str, bytes]) -> Path:
    """Write mounted files below `root`, once, and give the folder that stands for /root."""
    source = root / SOURCE_FOLDER
    if not source.exists():
        source.mkdir(parents=True)
        for file in files:
            path = root / file.filename.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[file.sha256_hex])
    return source


def container_environment(url: str, task_id: str, environment: str, arguments: Path, source: Path) -> dict[str, str]:
    """What the container runtime needs, and nothing of the environment that the tests run in but their mark."""
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
    } | ({MARK: os.environ[MARK]} if MARK in os.environ else {})


def processes_of(task_id: str) -> list[int]:
    """The living processes of a container, those in sessions of their own included."""
    wanted = f"MODAL_TASK_ID={task_id}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # It ended meanwhile, or belongs to somebody else.
        if wanted in variables:
            found.append(int(folder.name))
    return found


def kill_all(task_id: str) -> None:
    """End every process of a container, as the end of a real one does."""
    for pid in processes_of(task_id):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
