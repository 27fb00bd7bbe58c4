"""Render one request in this process with a progress bar, for the command line and the demo.

A host application uses `FunctionRegistry` instead, which runs each job in a separate process.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from reel_modal._jobs.estimates import Estimate, estimate_of
from reel_modal._jobs.timing_recorder import measured_model
from reel_modal._progress.history import TimingHistory
from reel_modal._progress.timing_model import LOCAL
from reel_modal._support.scratch import scratch_dir
from reel_modal.cli.progress_bar import progress_bar
from reel_modal.errors import InvalidKeyError, ReelModalError, RequestError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.context import JobContext, Reporter
from reel_modal.functions.inputs import media_of
from reel_modal.functions.runner import run_in_context
from reel_modal.functions.video_jobs import check_encoder
from reel_modal.media import probe
from reel_modal.schema import RenderResult
from reel_modal.schema.keys import check_key
from reel_modal.schema.requests import VideoRequest
from reel_modal.schema.results import Result
from reel_modal.settings import Settings
from reel_modal.storage import PathStorage

__all__ = ["check_output", "keys_of", "run_in_process"]

# File systems allow names of 255 bytes, and a staging name is 15 bytes longer than the final name.
_LONGEST_NAME_BYTES: Final = 240


def keys_of(output: Path) -> dict[str, str]:
    """Return the required fields of a request whose input and output are local files.

    A request contains keys instead of paths; `run_in_process` maps the keys to the files. The key of the output is
    the name of its file, so that further outputs, such as an index of it, are named after it.
    """
    name = output.name
    try:
        check_key(name)
    except InvalidKeyError:
        name = f"out{output.suffix}"
    source = "in" if name.lower() != "in" else "source"
    return {"job_id": "cli", "user_id": "cli", "input_key": source, "output_key": name}


def check_output(sources: Iterable[Path], output: Path) -> None:
    """Check, before anything is read, that the output can be written and is not an input.

    Raises:
        RequestError: The output cannot be written, or is an input; the error's path is `OUT`.
    """
    try:
        problem = _output_problem(sources, output)
    except OSError as error:
        problem = f"cannot be written: {error.strerror or error}"
    except ValueError as error:
        problem = f"is not a valid file name: {error}"
    if problem is not None:
        raise RequestError("OUT", f"{str(output)[:200]!r} {problem}")


def _output_problem(sources: Iterable[Path], output: Path) -> str | None:
    if "\0" in str(output):
        return "has a null character"
    if len(os.fsencode(output.name)) > _LONGEST_NAME_BYTES:
        return f"has a name of more than {_LONGEST_NAME_BYTES} bytes"
    if output.exists():
        mode = output.stat().st_mode
        if not stat.S_ISREG(mode):
            return "is a folder; use a file name in it" if stat.S_ISDIR(mode) else "is not a regular file"
        if any(source.exists() and source.samefile(output) for source in sources):
            return "is the same file as the input; use another file"
    if not output.parent.is_dir():
        return "is in a folder that does not exist; create it first"
    with tempfile.TemporaryFile(dir=output.parent):
        return None


def run_in_process(
    function: AnyFunction, request: Any, files: Mapping[str, Path], output: Path, settings: Settings | None = None
) -> tuple[Result, str]:
    """Run a function for `request` on local files; return the result and a line about its speed.

    Args:
        function: The function.
        request: The request, with the keys of `keys_of`.
        files: The file of each input key.
        output: The file to write.
        settings: The settings; default `Settings.from_env()`.

    Returns:
        The result, whose `output_key` is the path of the output, and a line about the speed.

    Raises:
        RequestError: The output cannot be written, or the encoder does not start on this machine.
        ReelModalError: The function failed; no file is left.
    """
    settings = settings or Settings.from_env()
    check_output(files.values(), output)
    submitted = function.to_request(request)
    if isinstance(submitted, VideoRequest):
        check_encoder(submitted.encode, settings)
    history = TimingHistory(settings.timings)
    expected, started = _expected(function, request, history, files, settings), time.monotonic()
    plan = (
        expected.plan
        if expected
        else history.plan(function.name, gpu=LOCAL, cold=False, published=function.published)
    )
    with scratch_dir() as workdir, progress_bar(plan) as show:
        context = JobContext(
            storage=PathStorage(),
            workdir=workdir,
            settings=settings,
            reporter=Reporter(show),
            input_place=lambda key: str(files[key]),
            output_place=lambda key: str(output if key == submitted.output_key else output.with_name(Path(key).name)),
        )
        result = replace(run_in_context(function, submitted, context), output_key=str(output), stored_key=str(output))
    seconds = time.monotonic() - started
    if not isinstance(result, RenderResult):
        return result, f"finished in {seconds:.2f} s"
    duration = float(result.duration_seconds)
    # No process was started, so this counts as a warm start.
    model = measured_model(result, expected)
    history.learn(result, gpu=LOCAL, startup_seconds=0.0, cold=False, model=model)
    speed = f"{result.frames / seconds:.1f} fps, {duration / seconds:.2f} times real time"
    return result, f"{result.frames} frames, {duration:.2f} s of video, rendered in {seconds:.2f} s: {speed}"


def _expected(
    function: AnyFunction, request: object, history: TimingHistory, files: Mapping[str, Path], settings: Settings
) -> Estimate | None:
    """Return the estimate; None if an input cannot be probed, which the function reports."""
    try:
        media = media_of(function.to_request(request), lambda key: probe(files[key], settings=settings))
        here = replace(settings, modal_enabled=False, store_url=None)
        return estimate_of(function, request, media, settings=here, history=history)
    except (ReelModalError, OSError):
        return None
