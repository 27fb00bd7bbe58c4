"""One request, rendered in this process with a bar on the terminal: for the command line and the demo.

A host uses the registry instead, which gives each job a process of its own.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from reel_modal.config import Settings
from reel_modal.errors import MediaError, RequestError
from reel_modal.functions import render_overlay
from reel_modal.functions.bodies import check_encoder
from reel_modal.functions.context import JobContext, Reporter
from reel_modal.functions.output_rate import rendered_rate
from reel_modal.functions.pictures import as_rendered
from reel_modal.functions.requests import function_of
from reel_modal.media import probe
from reel_modal.progress import ProgressPlan
from reel_modal.progress.timing_history import TimingHistory
from reel_modal.progress.timings import HERE
from reel_modal.schema import OverlayRequest, RenderResult
from reel_modal.schema.requests import Request
from reel_modal.scratch import scratch_folder
from reel_modal.storage import PathStorage
from reel_modal.terminal import progress_bar

__all__ = ["check_output", "keys_of", "run_here"]

Q = TypeVar("Q", bound=Request)

# File systems take names of 255 bytes, and a staging name is 15 longer than the name that it stands for.
_LONGEST_NAME_BYTES: Final = 240


def keys_of(output: Path) -> dict[str, str]:
    """Return the fields of a request whose input and output are files of this machine.

    A request has keys and no paths; `run_here` says which files they are.
    """
    return {"job_id": "cli", "user_id": "cli", "input_key": "in", "output_key": f"out{output.suffix}"}


def check_output(source: Path, output: Path) -> None:
    """Refuse an output that cannot be written, or that is the input, before anything is read.

    Raises:
        RequestError: It is one; the path is `OUT`.
    """
    try:
        problem = _output_problem(source, output)
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
    except ValueError as error:
        problem = f"is not a name of a file: {error}"
    if problem is not None:
        raise RequestError("OUT", f"{str(output)[:200]!r} {problem}")


def _output_problem(source: Path, output: Path) -> str | None:
    if "\0" in str(output):
        return "has a null character"
    if len(os.fsencode(output.name)) > _LONGEST_NAME_BYTES:
        return f"has a name of more than {_LONGEST_NAME_BYTES} bytes"
    if output.exists():
        mode = output.stat().st_mode
        if not stat.S_ISREG(mode):
            return "is a folder; name a file in it" if stat.S_ISDIR(mode) else "is not a regular file"
        if source.exists() and source.samefile(output):
            return "is IN itself; name another file"
    if not output.parent.is_dir():
        return "is in a folder that does not exist; create it first"
    with tempfile.TemporaryFile(dir=output.parent):
        return None


def run_here(
    run: Callable[[Q, JobContext], RenderResult],
    request: Q,
    source: Path,
    output: Path,
    settings: Settings | None = None,
) -> tuple[RenderResult, str]:
    """Run a function body for `request` on files of this machine; return the result and a line on its speed.

    Args:
        run: The body, such as `render_overlay.run`.
        request: What it takes, with the keys of `keys_of`.
        source: The input.
        output: The file to write.
        settings: Default: of the environment.

    Returns:
        The result, whose `output_key` is the path, and the line.

    Raises:
        RequestError: The output cannot be written, or the encoder does not start here.
        ReelModalError: What the function raises; nothing is left behind.
    """
    settings = settings or Settings.from_env()
    check_output(source, output)
    check_encoder(request.encode, settings)
    history = TimingHistory(settings.timings)
    plan, started = _plan(history, request, source, settings), time.monotonic()
    with scratch_folder() as workdir, progress_bar(plan) as show:
        context = JobContext(
            storage=PathStorage(),
            workdir=workdir,
            settings=settings,
            reporter=Reporter(show),
            places=(str(source), str(output)),
        )
        result = replace(run(request, context), output_key=str(output), stored_key=str(output))
    seconds, duration = time.monotonic() - started, float(result.duration_seconds)
    # No process was started for it: that is the warm start of this machine.
    history.learn(result, gpu=HERE, startup_seconds=0.0, cold=False)
    speed = f"{result.frames / seconds:.1f} fps, {duration / seconds:.2f} times real time"
    return result, f"{result.frames} frames, {duration:.2f} s of video, rendered in {seconds:.2f} s: {speed}"


def _plan(history: TimingHistory, request: Request, source: Path, settings: Settings) -> ProgressPlan:
    name, size, frames = function_of(request), None, None
    if isinstance(request, OverlayRequest):  # its output is as long and as large as its input
        try:
            media = probe(source, settings=settings)
            plan = render_overlay.plan_for(request, media)
        except (MediaError, OSError):
            return history.plan(name, gpu=HERE, cold=False)  # the function itself raises the error
        media = as_rendered(media, request.encode)
        rate = rendered_rate(request, media) or media.fps
        size, frames = media.size, max(1, plan.frames_rendered) if plan.kind == "smart" else media.frames_at(rate)
    return history.plan(name, gpu=HERE, size=size, frames=frames, cold=False)
