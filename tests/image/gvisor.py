"""A container of Modal in gVisor, as on Modal: Debian's `runsc`, whose kernel intercepts each system call by ptrace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

NAME = "gvisor"
_OPTIONS = ("--platform=ptrace", "--network=host", "--ignore-cgroups")


def gvisor_command(
    state: Path,
    root: Path,
    *,
    process: Sequence[str],
    variables: Mapping[str, str],
    read_only: Mapping[str, Path],
    writable: Mapping[str, Path],
    user: int,
) -> list[str]:
    """Write the bundle of a container below `state`, and return the command line that runs it.

    Args:
        state: Folder of all containers of a test run.
        root: Root of the image.
        process: Command line inside.
        variables: Variables inside.
        read_only: Files and folders by their path inside.
        writable: The same, for those that are writable.
        user: Id of the user and of the group.
    """
    name = uuid4().hex
    bundle = state / name
    top = bundle / "root"
    top.mkdir(parents=True)
    mounts = [_mount("/proc", "proc", "proc"), _mount("/dev", "tmpfs", "tmpfs")]
    for path in sorted(root.iterdir()):
        if path.is_symlink():
            (top / path.name).symlink_to(path.readlink())
        elif path.is_dir() and path.name not in {"dev", "proc", "root", "tmp"}:
            mounts.append(_bind(top, f"/{path.name}", path, "ro"))
    mounts += [_bind(top, inside, path, "ro") for inside, path in read_only.items()]
    mounts += [_bind(top, inside, path, "rw") for inside, path in writable.items()]
    for path in (top / "proc", top / "dev"):
        path.mkdir()
    config = {
        "ociVersion": "1.0.0",
        "hostname": "modal",
        "process": {
            "user": {"uid": user, "gid": user},
            "args": list(process),
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": "/root",
        },
        "root": {"path": str(top), "readonly": True},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }
    (bundle / "config.json").write_text(json.dumps(config))
    return ["runsc", *_OPTIONS, f"--root={state / 'state'}", "run", "-bundle", str(bundle), name]


def _mount(inside: str, kind: str, source: str, *options: str) -> dict[str, object]:
    return {"destination": inside, "type": kind, "source": source, "options": list(options)}


def _bind(top: Path, inside: str, path: Path, mode: str) -> dict[str, object]:
    """Return a mount, and make its place in the root if the image has none."""
    place = top / inside.lstrip("/")
    if place.parent in {top, top / "__modal"}:
        place.parent.mkdir(exist_ok=True)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            place.touch()
    return _mount(inside, "bind", str(path), mode, "rbind")


def delete_all(state: Path) -> None:
    """End all containers below `state`: one whose `runsc` was killed would stay."""
    command = ["runsc", f"--root={state / 'state'}"]
    if not (state / "state").is_dir():
        return
    listed = subprocess.run([*command, "list", "-quiet"], capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        subprocess.run([*command, "delete", "-force", name], capture_output=True, check=True)
