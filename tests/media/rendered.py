"""Run any request through the real function body, with paths as keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.local_files import key_of, root_storage

from reel_modal.functions import apply_upscale, process_framing, render_overlay
from reel_modal.functions.context import JobContext
from reel_modal.schema import FramingRequest, OverlayRequest, RenderResult, UpscaleRequest
from reel_modal.settings import Settings

BODIES: dict[type[Any], Callable[[Any, JobContext], RenderResult]] = {
    OverlayRequest: render_overlay.run,
    FramingRequest: process_framing.run,
    UpscaleRequest: apply_upscale.run,
}


def rendered(kind: type[Any], source: Path, output: Path, **fields: object) -> RenderResult:
    """Make `output` from `source` with the function of the request type `kind`."""
    keys = {"job_id": "j", "user_id": "u", "input_key": key_of(source), "output_key": key_of(output)}
    workdir = output.parent / f"work-{output.name}"
    workdir.mkdir()
    context = JobContext(storage=root_storage(), workdir=workdir, settings=Settings.from_env())
    return BODIES[kind](kind(**keys, **fields), context)
