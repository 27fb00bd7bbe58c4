"""The trial before a deploy: import the app and run each body on a second of video, without a GPU, on this machine.

What a container would trip over, a wrong name or a package that the image lacks, is found here, where it costs
nothing. It must not talk to Modal.
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

from reel_modal.deploy.children import run_to_end, temporary_files_in
from reel_modal.deploy.console import Console
from reel_modal.deploy.outcome import deployment_error
from reel_modal.functions.specs import SHIPPED_SUFFIXES
from reel_modal.schema import FramingRequest, OverlayRequest, UpscaleRequest, store_key
from reel_modal.scratch import scratch_folder
from reel_modal.testing import make_clip

__all__ = ["TRIALS", "Interpreter", "not_sent", "run_preflight"]

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_STEP_SECONDS: Final = 300.0
_TAIL_LINES: Final = 15
_SIZE: Final = (320, 180)
_KEPT: Final = frozenset({"PATH", "HOME", "LANG", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "USERPROFILE"})


def _overlay(keys: Mapping[str, str]) -> dict[str, object]:
    keyframes = [{"time": time, "x": x, "y": 90, "radiusX": 60, "radiusY": 50} for time, x in ((0, 80), (1, 240))]
    region = {"id": "trial", "startTime": 0, "endTime": 1, "keyframes": keyframes}
    return OverlayRequest.parse({**keys, "regions": [region]}).to_dict()


def _framing(keys: Mapping[str, str]) -> dict[str, object]:
    crop = [{"time": time, "x": x, "y": 0, "width": 100, "height": 180} for time, x in ((0, 0), (1, 200))]
    segments = [{"start": 0.2, "end": 0.6, "speed": 0.5}]
    return FramingRequest.parse({**keys, "crop": crop, "segments": segments, "trimStart": 0.1}).to_dict()


def _upscale(keys: Mapping[str, str]) -> dict[str, object]:
    # There is no GPU here: what is tried is that body and network are there and load.
    return UpscaleRequest.parse({**keys, "scale": 2, "provider": "cpu"}).to_dict()


TRIALS: Final[Mapping[str, Callable[[Mapping[str, str]], dict[str, object]]]] = {
    "render_overlay": _overlay,
    "process_framing": _framing,
    "apply_upscale": _upscale,
}
"""For each body a request that goes through its frames and its sound."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that has what the image installs.

    Attributes:
        python: Its path.
        modal_path: Where it finds modal, which Modal itself brings into a container; None when it has it anyway.
    """

    python: Path
    modal_path: Path | None = None


def run_preflight(
    interpreter: Interpreter, functions: Iterable[str], variables: Mapping[str, str], console: Console
) -> None:
    """Try everything that will be deployed.

    Args:
        interpreter: Has what the image installs, and nothing else.
        functions: Those that will be deployed.
        variables: The deployment's own environment variables.
        console: Where each step is told.

    Raises:
        DeploymentError: A step failed; with the end of its traceback.
        FFmpegError: The synthetic clip could not be made.
    """
    with scratch_folder() as folder:
        sources, store, temporary = folder / "sources", folder / "store", folder / "temporary"
        for one in (sources, store, temporary):
            one.mkdir()
        shutil.copytree(_PACKAGE, sources / _PACKAGE.name, ignore=not_sent)
        step = _Step(interpreter, sources, variables, temporary)
        console.say(f"trial: {step('app', with_modal=True).strip()}")
        bodies = json.loads(step("bodies"))
        clip = store / store_key("in.mp4", "user", "trial")
        clip.parent.mkdir(parents=True)
        make_clip(clip, size=_SIZE, seconds=1, audio_seconds=1)
        for function in functions:
            if function not in bodies:
                console.say(f"trial: {function} has no body in this version: it will refuse every job")
            elif function not in TRIALS:
                raise deployment_error(
                    "preflight", f"there is no trial for {function}; add it to deploy/preflight.py"
                )
            else:
                keys = {"jobId": "trial", "userId": "trial", "inputKey": "in.mp4", "outputKey": f"{function}.mp4"}
                result = json.loads(step(function, store.as_uri(), given=json.dumps(TRIALS[function](keys))))
                console.say(f"trial: {function} made {result['frames']} frames, {result['encoder']}")


def not_sent(folder: str, names: list[str]) -> list[str]:
    """Return which files of a folder are in no container, for `shutil.copytree`."""
    return [name for name in names if Path(name).suffix not in SHIPPED_SUFFIXES and not Path(folder, name).is_dir()]


@dataclass(frozen=True, slots=True)
class _Step:
    interpreter: Interpreter
    sources: Path
    variables: Mapping[str, str]
    temporary: Path

    def __call__(self, what: str, *more: str, given: str = "", with_modal: bool = False) -> str:
        """Run one step in the clean interpreter and return what it printed last."""
        command = [str(self.interpreter.python), "-s", "-P", "-m", "reel_modal.deploy.trial", what, *more]
        try:
            done = run_to_end(
                command,
                given=given,
                env=self._environment(with_modal=with_modal),
                folder=self.sources,
                timeout_seconds=_STEP_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise deployment_error("preflight", f"{what} was not through after {_STEP_SECONDS:g} s") from error
        if done.returncode != 0:
            tail = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-_TAIL_LINES:])
            raise deployment_error("preflight", f"{what} fails where only the image's packages are:\n{tail}")
        return done.stdout.strip().splitlines()[-1]

    def _environment(self, *, with_modal: bool) -> dict[str, str]:
        ours = {
            key: value for key, value in os.environ.items() if key.upper() in _KEPT or key.startswith("REEL_MODAL_")
        }
        paths = [self.sources]
        if with_modal and self.interpreter.modal_path is not None:
            paths.append(self.interpreter.modal_path)
        return {
            **ours,
            **self.variables,
            # A step that is ended by force leaves what it has in there, and the folder is removed.
            **temporary_files_in(self.temporary),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONUTF8": "1",
        }
