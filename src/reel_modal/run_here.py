"""One request, rendered in this process with a bar on the terminal: for the command line and the demo.

A host uses the registry instead, which gives each job a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from reel_modal.config import Settings
from reel_modal.errors import MediaError
from reel_modal.functions import render_overlay
from reel_modal.functions.context import JobContext, Reporter
from reel_modal.functions.requests import function_of
from reel_modal.media import probe
from reel_modal.progress import ProgressPlan
from reel_modal.progress.timing_history import TimingHistory
from reel_modal.progress.timings import HERE
from reel_modal.schema import OverlayRequest, RenderResult
from reel_modal.scratch import scratch_folder
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
    settings = settings or Settings.from_env()
    history = TimingHistory(settings.timings)
    plan, started = _plan(history, request, settings), time.monotonic()
    with scratch_folder() as workdir, progress_bar(plan) as show:
        context = JobContext(
            storage=PathStorage(),
            workdir=workdir,
            settings=settings,
            reporter=Reporter(show),
        )
        result = run(request, context)
    seconds, duration = time.monotonic() - started, float(result.duration_seconds)
    # No process was started for it: that is the warm start of this machine.
    history.learn(result, gpu=HERE, startup_seconds=0.0, cold=False)
    speed = f"{result.frames / seconds:.1f} fps, {duration / seconds:.2f} times real time"
    return result, f"{result.frames} frames, {duration:.2f} s of video, rendered in {seconds:.2f} s: {speed}"


def _plan(history: TimingHistory, request: object, settings: Settings) -> ProgressPlan:
    name, size, frames = function_of(request), None, None
    if isinstance(request, OverlayRequest):  # its output is as long and as large as its input
        try:
            media = probe(request.input_key, settings=settings)
            plan = render_overlay.plan_for(request, media)
        except (MediaError, OSError):
            return history.plan(name, gpu=HERE, cold=False)  # the function itself says what is wrong with it
        size, frames = media.size, max(1, plan.frames_rendered) if plan.kind == "smart" else media.expected_frames
    return history.plan(name, gpu=HERE, size=size, frames=frames, cold=False)
