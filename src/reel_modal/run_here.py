"""One request, rendered in this process with a bar on the terminal: for the command line and the demo.

A host uses the registry instead, which gives each job a process of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from reel_modal.config import Settings
from reel_modal.functions.context import JobContext, Reporter
from reel_modal.schema import RenderResult
from reel_modal.storage import PathStorage
from reel_modal.terminal import progress_bar

__all__ = ["run_here"]

Q = TypeVar("Q")


def run_here(
    run: Callable[[Q, JobContext], RenderResult], request: Q, settings: Settings | None = None
) -> tuple[RenderResult, str]:
    """Run a function body for `request`, whose keys are paths, and return the result and a line on its speed.

    Args:
        run: The body, such as `render_overlay.run`.
        request: What it takes.
        settings: Default: of the environment.

    Raises:
        ReelModalError: What the function raises; nothing is left behind.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reel_modal-") as workdir, progress_bar() as show:
        context = JobContext(
            storage=PathStorage(),
            workdir=Path(workdir),
            settings=settings or Settings.from_env(),
            reporter=Reporter(show),
        )
        result = run(request, context)
    seconds, duration = time.monotonic() - started, float(result.duration_seconds)
    speed = f"{result.frames / seconds:.1f} fps, {duration / seconds:.2f} times real time"
    return result, f"{result.frames} frames, {duration:.2f} s of video, rendered in {seconds:.2f} s: {speed}"
