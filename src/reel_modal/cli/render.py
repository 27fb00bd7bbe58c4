"""Render one request in this process with a progress bar, for the command line and the demo.

A host application uses `FunctionRegistry` instead, which runs each job in a separate process.
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

from reel_modal._progress.history import TimingHistory
from reel_modal._progress.timing_model import LOCAL
from reel_modal._support.scratch import scratch_dir
from reel_modal.cli.progress_bar import progress_bar
from reel_modal.errors import MediaError, RequestError
from reel_modal.functions import render_overlay
from reel_modal.functions.context import JobContext, Reporter
from reel_modal.functions.output_rate import rendered_rate
from reel_modal.functions.pictures import as_rendered
from reel_modal.functions.requests import function_of
from reel_modal.functions.runner import check_encoder
from reel_modal.media import probe
from reel_modal.progress import ProgressPlan
from reel_modal.schema import OverlayRequest, RenderResult
from reel_modal.schema.requests import Request
from reel_modal.settings import Settings
from reel_modal.storage import PathStorage

__all__ = ["check_output", "keys_of", "run_in_process"]

Q = TypeVar("Q", bound=Request)

# File systems allow names of 255 bytes, and a staging name is 15 bytes longer than the final name.
_LONGEST_NAME_BYTES: Final = 240


def keys_of(output: Path) -> dict[str, str]:
    """Return the required fields of a request whose input and output are local files.

    A request contains keys instead of paths; `run_in_process` maps the keys to the files.
    """
    return {"job_id": "cli", "user_id": "cli", "input_key": "in", "output_key": f"out{output.suffix}"}


def check_output(source: Path, output: Path) -> None:
    """Check, before anything is read, that the output can be written and is not the input.

    Raises:
        RequestError: The output cannot be written, or is the input; the error's path is `OUT`.
    """
    try:
        problem = _output_problem(source, output)
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
    except ValueError as error:
        problem = f"is not a valid file name: {error}"
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
            return "is a folder; use a file name in it" if stat.S_ISDIR(mode) else "is not a regular file"
        if source.exists() and source.samefile(output):
            return "is the same file as IN; use another file"
    if not output.parent.is_dir():
        return "is in a folder that does not exist; create it first"
    with tempfile.TemporaryFile(dir=output.parent):
        return None


def run_in_process(
    run: Callable[[Q, JobContext], RenderResult],
    request: Q,
    source: Path,
    output: Path,
    settings: Settings | None = None,
) -> tuple[RenderResult, str]:
    """Run a function body for `request` on local files; return the result and a line about its speed.

    Args:
        run: The body, such as `render_overlay.run`.
        request: The request, with the keys of `keys_of`.
        source: The input file.
        output: The file to write.
        settings: The settings; default `Settings.from_env()`.

    Returns:
        The result, whose `output_key` is the path of the output, and a line about the speed.

    Raises:
        RequestError: The output cannot be written, or the encoder does not start on this machine.
        ReelModalError: The function failed; no file is left.
    """
    settings = settings or Settings.from_env()
    check_output(source, output)
    check_encoder(request.encode, settings)
    history = TimingHistory(settings.timings)
    plan, started = _plan(history, request, source, settings), time.monotonic()
    with scratch_dir() as workdir, progress_bar(plan) as show:
        context = JobContext(
            storage=PathStorage(),
            workdir=workdir,
            settings=settings,
            reporter=Reporter(show),
            places=(str(source), str(output)),
        )
        result = replace(run(request, context), output_key=str(output), stored_key=str(output))
    seconds, duration = time.monotonic() - started, float(result.duration_seconds)
    # No process was started, so this counts as a warm start.
    history.learn(result, gpu=LOCAL, startup_seconds=0.0, cold=False)
    speed = f"{result.frames / seconds:.1f} fps, {duration / seconds:.2f} times real time"
    return result, f"{result.frames} frames, {duration:.2f} s of video, rendered in {seconds:.2f} s: {speed}"


def _plan(history: TimingHistory, request: Request, source: Path, settings: Settings) -> ProgressPlan:
    name, size, frames = function_of(request), None, None
    if isinstance(request, OverlayRequest):  # its output has the duration and the size of its input
        try:
            media = probe(source, settings=settings)
            plan = render_overlay.plan_for(request, media)
        except (MediaError, OSError):
            return history.plan(name, gpu=LOCAL, cold=False)  # the function itself raises the error
        media = as_rendered(media, request.encode)
        rate = rendered_rate(request, media) or media.fps
        size, frames = media.size, max(1, plan.frames_rendered) if plan.kind == "smart" else media.frames_at(rate)
    return history.plan(name, gpu=LOCAL, size=size, frames=frames, cold=False)
