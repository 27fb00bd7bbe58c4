"""The preflight step: import the app and run each body on one second of video, on this machine without a GPU.

It detects errors that would otherwise appear in a container, such as a wrong name or a missing package. It sends no
request to Modal.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from reel_modal._support.scratch import scratch_dir
from reel_modal.deploy.children import run_to_end, temporary_files_in
from reel_modal.deploy.console import Console
from reel_modal.deploy.exit_codes import deployment_error
from reel_modal.errors import RequestError
from reel_modal.functions.catalog import MODULES_VARIABLE, AnyFunction
from reel_modal.functions.contract import PACKAGE_NAME, package_folder
from reel_modal.functions.specs import SHIPPED_SUFFIXES
from reel_modal.schema import store_key
from reel_modal.schema.requests import Request
from reel_modal.testing import make_clip

__all__ = ["Interpreter", "not_sent", "run_preflight", "trial_request"]

_STEP_SECONDS: Final = 300.0
_TAIL_LINES: Final = 15
_SIZE: Final = (320, 180)
_INHERITED: Final = frozenset({"PATH", "HOME", "LANG", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "USERPROFILE"})


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python interpreter with the packages of the image.

    Attributes:
        python: Path of the interpreter.
        modal_path: Folder with the package modal, which Modal adds to a container; None if it is already importable.
    """

    python: Path
    modal_path: Path | None = None


def run_preflight(
    interpreter: Interpreter, functions: Iterable[AnyFunction], variables: Mapping[str, str], console: Console
) -> None:
    """Test everything that will be deployed.

    Args:
        interpreter: An interpreter with only the packages of the image.
        functions: The functions that will be deployed with this image.
        variables: The environment variables of the deployment.
        console: Console for messages.

    Raises:
        DeploymentError: A step failed; the message contains the end of its traceback.
        FFmpegError: The synthetic clip could not be created.
    """
    functions = tuple(functions)
    with scratch_dir() as folder:
        sources, store, temporary = folder / "sources", folder / "store", folder / "temporary"
        for directory in (sources, store, temporary):
            directory.mkdir()
        for package in dict.fromkeys((PACKAGE_NAME, *(each.package for each in functions))):
            _copy_package(package, sources)
        own = {
            "REEL_MODAL_FUNCTIONS": ",".join(each.name for each in functions),
            MODULES_VARIABLE: ",".join(dict.fromkeys(each.module for each in functions)),
        }
        step = _Step(interpreter, sources, {**variables, **own}, temporary)
        console.info(f"trial: {step('app', with_modal=True).strip()}")
        clip = store / store_key("in.mp4", "user", "trial")
        clip.parent.mkdir(parents=True)
        make_clip(clip, size=_SIZE, seconds=1, audio_seconds=1)
        for function in functions:
            payload = json.dumps(trial_request(function).to_dict())
            result = json.loads(step("run", function.module, function.name, store.as_uri(), stdin=payload))
            if "encoder" in result:
                made = f"rendered {result['frames']} frames, {result['encoder']}"
            else:
                made = f"published {result['bytes']} bytes"
            console.info(f"trial: {function.name} {made}")


def trial_request(function: AnyFunction) -> Request[Any]:
    """Return the request of the trial of a function.

    Raises:
        DeploymentError: The function declares no trial, and its request needs more than the keys.
    """
    keys = {"job_id": "trial", "user_id": "trial", "input_key": "in.mp4", "output_key": f"{function.name}.mp4"}
    try:
        return function.to_request(function.trial_request(keys))
    except RequestError as error:
        cure = "declare trial=, which returns a small request from the keys"
        raise deployment_error("preflight", f"{function.name} has no valid trial ({error}); {cure}") from error


def _copy_package(name: str, sources: Path) -> None:
    """Copy the files of a top-level package, or a top-level module, that are sent to a container."""
    package = package_folder(name)
    if package.is_file():
        shutil.copy(package, sources)
    else:
        shutil.copytree(package, sources / name, ignore=not_sent)


def not_sent(folder: str, names: list[str]) -> list[str]:
    """Return the files of a folder that are not sent to a container; an `ignore` function of `shutil.copytree`."""
    return [name for name in names if Path(name).suffix not in SHIPPED_SUFFIXES and not Path(folder, name).is_dir()]


@dataclass(frozen=True, slots=True)
class _Step:
    interpreter: Interpreter
    sources: Path
    variables: Mapping[str, str]
    temporary: Path

    def __call__(self, step: str, *arguments: str, stdin: str = "", with_modal: bool = False) -> str:
        """Run one step in the interpreter and return the last line of its stdout."""
        name = arguments[1] if arguments else step
        command = [str(self.interpreter.python), "-s", "-P", "-m", "reel_modal.deploy.trial", step, *arguments]
        try:
            done = run_to_end(
                command,
                stdin_text=stdin,
                env=self._environment(with_modal=with_modal),
                folder=self.sources,
                timeout_seconds=_STEP_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise deployment_error("preflight", f"{name} was not finished after {_STEP_SECONDS:g} s") from error
        if done.returncode != 0:
            tail = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-_TAIL_LINES:])
            raise deployment_error("preflight", f"{name} fails with only the packages of the image:\n{tail}")
        return done.stdout.strip().splitlines()[-1]

    def _environment(self, *, with_modal: bool) -> dict[str, str]:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if key.upper() in _INHERITED or key.startswith("REEL_MODAL_")
        }
        paths = [self.sources]
        if with_modal and self.interpreter.modal_path is not None:
            paths.append(self.interpreter.modal_path)
        return {
            **inherited,
            **self.variables,
            # A killed step leaves its temporary files in this folder, which is removed.
            **temporary_files_in(self.temporary),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONUTF8": "1",
        }
