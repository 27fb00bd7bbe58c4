"""Run any request through the real function body, with paths as keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.local_files import key_of, root_storage
from tests.run_function import run_function

from reel_modal.functions.context import JobContext
from reel_modal.schema import RenderResult
from reel_modal.settings import Settings


def rendered(kind: type[Any], source: Path, output: Path, **fields: object) -> RenderResult:
    """Make `output` from `source` with the function of the request type `kind`."""
    keys = {"job_id": "j", "user_id": "u", "input_key": key_of(source), "output_key": key_of(output)}
    workdir = output.parent / f"work-{output.name}"
    workdir.mkdir()
    context = JobContext(storage=root_storage(), workdir=workdir, settings=Settings.from_env())
    return run_function(kind(**keys, **fields), context)
