"""Create virtual environments with only the Python packages of an image, cached by package list."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

from reel_modal.deploy.children import run_to_end, temporary_files_in
from reel_modal.deploy.console import Console
from reel_modal.deploy.exit_codes import deployment_error
from reel_modal.deploy.preflight import Interpreter
from reel_modal.functions.specs import ImageSpec

__all__ = ["image_interpreter"]

_INSTALL_SECONDS: Final = 1800.0
_TAIL_LINES: Final = 15


def image_interpreter(image: ImageSpec, console: Console, *, cache: Path | None = None) -> Interpreter:
    """Return the interpreter for `image`; the first call creates it, which takes as long as pip takes.

    Debian packages and the CUDA libraries are not installed: ffmpeg is the one of this machine.

    Args:
        image: The image, with its packages.
        console: Console for messages.
        cache: Folder of the interpreters; default a folder in the user's cache directory.

    Raises:
        DeploymentError: pip could not install the packages.
    """
    base = _base_python(image.python_version, console)
    packages = [f"modal=={metadata.version('modal')}", *image.packages_without_gpu]
    digest = hashlib.sha256("\n".join([str(base), image.python_version, *packages]).encode()).hexdigest()[:16]
    folder = (cache or user_cache_path("reel-modal") / "preflight") / digest
    python = Path("Scripts", "python.exe") if sys.platform == "win32" else Path("bin", "python")
    if not folder.exists():
        console.info(f"trial: installing the packages of the image into {folder}; this is done once")
        building = folder.with_name(f"{digest}.{os.getpid()}")
        temporary = building / "temporary"
        try:
            temporary.mkdir(parents=True)
            _run([base, "-m", "venv", building], temporary, "a virtual environment could not be created")
            pip: list[str | Path] = [building / python, "-m", "pip", "install", "--quiet", "--no-compile"]
            _run([*pip, *image.packages_without_gpu], temporary, "pip could not install the image's packages")
            # In a container Modal's client is on a separate path. The same here detects a body that uses a package
            # which only modal needs.
            _run([*pip, "--target", building / "modal", packages[0]], temporary, "pip could not install modal")
            shutil.rmtree(temporary)
            try:
                building.rename(folder)
            except OSError:
                # Another deploy command may have created it in the meantime.
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return Interpreter(folder / python, folder / "modal")


def _base_python(version: str, console: Console) -> Path:
    if sys.version_info[:2] == tuple(map(int, re.findall(r"\d+", version)[:2])):
        return Path(sys.executable)
    if (path := shutil.which(f"python{version}")) is not None:
        return Path(path)
    own_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    console.info(f"trial: the image has Python {version}, which is not on PATH; the trial uses {own_version} instead")
    return Path(sys.executable)


def _run(command: Iterable[str | Path], temporary: Path, problem: str) -> None:
    arguments = [str(part) for part in command]
    env = {**os.environ, **temporary_files_in(temporary), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        done = run_to_end(arguments, env=env, timeout_seconds=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise deployment_error("preflight", f"{problem} within {_INSTALL_SECONDS:g} s") from error
    if done.returncode != 0:
        tail = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).splitlines()[-_TAIL_LINES:])
        raise deployment_error("preflight", f"{problem}:\n{tail}")
