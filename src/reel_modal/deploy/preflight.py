"""The preflight step: import the app and run each body on one second of video, on this machine without a GPU.

It detects errors that would otherwise appear in a container, such as a wrong name or a missing package. It sends no
request to Modal.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reel_modal._support.scratch import scratch_dir
from reel_modal.deploy.children import run_to_end, temporary_files_in
from reel_modal.deploy.console import Console
from reel_modal.deploy.exit_codes import deployment_error
from reel_modal.functions.specs import SHIPPED_SUFFIXES
from reel_modal.schema import FramingRequest, OverlayRequest, UpscaleRequest, store_key
from reel_modal.testing import make_clip

__all__ = ["TRIALS", "Interpreter", "not_sent", "run_preflight"]

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_STEP_SECONDS: Final = 300.0
_TAIL_LINES: Final = 15
_SIZE: Final = (320, 180)
_INHERITED: Final = frozenset({"PATH", "HOME", "LANG", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "USERPROFILE"})


def _overlay(keys: Mapping[str, str]) -> dict[str, object]:
    keyframes = [{"time": time, "x": x, "y": 90, "radiusX": 60, "radiusY": 50} for time, x in ((0, 80), (1, 240))]
    region = {"id": "trial", "startTime": 0, "endTime": 1, "keyframes": keyframes}
    return OverlayRequest.parse({**keys, "regions": [region]}).to_dict()


def _framing(keys: Mapping[str, str]) -> dict[str, object]:
    crop = [{"time": time, "x": x, "y": 0, "width": 100, "height": 180} for time, x in ((0, 0), (1, 200))]
    segments = [{"start": 0.2, "end": 0.6, "speed": 0.5}]
    return FramingRequest.parse({**keys, "crop": crop, "segments": segments, "trimStart": 0.1}).to_dict()


def _upscale(keys: Mapping[str, str]) -> dict[str, object]:
    # Without a GPU, this only checks that the body and the network can be loaded and run.
    return UpscaleRequest.parse({**keys, "scale": 2, "provider": "cpu"}).to_dict()


TRIALS: Final[Mapping[str, Callable[[Mapping[str, str]], dict[str, object]]]] = {
    "render_overlay": _overlay,
    "process_framing": _framing,
    "apply_upscale": _upscale,
}
"""For each body, a function that returns a request; the request processes video and audio."""


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
    interpreter: Interpreter, functions: Iterable[str], variables: Mapping[str, str], console: Console
) -> None:
    """Test everything that will be deployed.

    Args:
        interpreter: An interpreter with only the packages of the image.
        functions: Names of the functions that will be deployed.
        variables: The environment variables of the deployment.
        console: Console for messages.

    Raises:
        DeploymentError: A step failed; the message contains the end of its traceback.
        FFmpegError: The synthetic clip could not be created.
    """
    with scratch_dir() as folder:
        sources, store, temporary = folder / "sources", folder / "store", folder / "temporary"
        for directory in (sources, store, temporary):
            directory.mkdir()
        shutil.copytree(_PACKAGE, sources / _PACKAGE.name, ignore=not_sent)
        step = _Step(interpreter, sources, variables, temporary)
        console.info(f"trial: {step('app', with_modal=True).strip()}")
        bodies = json.loads(step("bodies"))
        clip = store / store_key("in.mp4", "user", "trial")
        clip.parent.mkdir(parents=True)
        make_clip(clip, size=_SIZE, seconds=1, audio_seconds=1)
        for function in functions:
            if function not in bodies:
                console.info(f"trial: {function} has no body in this version: it will refuse every job")
            elif function not in TRIALS:
                raise deployment_error("preflight", f"{function} has no trial; add one to deploy/preflight.py")
            else:
                keys = {"jobId": "trial", "userId": "trial", "inputKey": "in.mp4", "outputKey": f"{function}.mp4"}
                result = json.loads(step(function, store.as_uri(), stdin=json.dumps(TRIALS[function](keys))))
                console.info(f"trial: {function} rendered {result['frames']} frames, {result['encoder']}")


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
            raise deployment_error("preflight", f"{step} was not finished after {_STEP_SECONDS:g} s") from error
        if done.returncode != 0:
            tail = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-_TAIL_LINES:])
            raise deployment_error("preflight", f"{step} fails with only the packages of the image:\n{tail}")
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
