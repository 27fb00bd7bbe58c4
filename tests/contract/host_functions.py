"""Functions of a host whose requests are a frozen dataclass and a pydantic model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from reel_modal import JobContext, StoreOptions, render_function

GLOBAL = StoreOptions(input_scope="global", output_scope="global")


@dataclass(frozen=True)
class CopyRequest:
    job_id: str
    input_key: str
    output_key: str
    store: StoreOptions = GLOBAL
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class CopyResult:
    copied_bytes: int
    labels: tuple[str, ...] = ()


@render_function(name="copy_clip", request=CopyRequest, result=CopyResult, cpu=0.5, memory_mb=512, timeout_seconds=60)
def copy_clip(request: CopyRequest, context: JobContext) -> CopyResult:
    """Copy a file."""
    output = _copy(context.fetch(request.input_key), context)
    context.publish(output, request.output_key)
    return CopyResult(output.stat().st_size, request.labels)


class CountRequest(BaseModel):
    job_id: str
    user_id: str
    input_key: str
    output_key: str


class CountResult(BaseModel):
    input_bytes: int


@render_function(
    name="count_bytes", request=CountRequest, result=CountResult, cpu=0.5, memory_mb=512, timeout_seconds=60
)
def count_bytes(request: CountRequest, context: JobContext) -> CountResult:
    """Count the bytes of a file, and publish a copy of it."""
    output = _copy(context.fetch(request.input_key), context)
    context.publish(output, request.output_key)
    return CountResult(input_bytes=output.stat().st_size)


def _copy(source: Path, context: JobContext) -> Path:
    with context.reporter.phase("copy", total=1) as advance:
        output = Path(shutil.copy(source, context.workdir / "copy"))
        advance(1)
    return output
