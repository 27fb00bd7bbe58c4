"""Run framing requests through the real function body."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from tests.local_files import key_of, root_storage
from tests.run_function import run_function

from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.progress import ProgressEvent
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest, RenderResult, SpeedSegment
from reel_modal.settings import Settings

FAST = EncodeOptions(encoder="libx264", preset="ultrafast")
FAITHFUL = EncodeOptions(encoder="libx264", preset="ultrafast", quality=1)
"""So little loss that samples can be compared."""


def crops(*rows: tuple[object, float, float, float, float]) -> tuple[CropKeyframe, ...]:
    """Return keyframes made from (seconds, x, y, width, height)."""
    return tuple(
        CropKeyframe(time_seconds=Fraction(str(at)), x=x, y=y, width=width, height=height)
        for at, x, y, width, height in rows
    )


def request_for(source: Path, output: Path, **fields: object) -> FramingRequest:
    """Return a request whose keys are paths."""
    fields_by_default = {
        "job_id": "j",
        "user_id": "u",
        "input_key": key_of(source),
        "output_key": key_of(output),
        "encode": FAST,
        **fields,
    }
    return FramingRequest(**fields_by_default)  # type: ignore[arg-type]


def speeds(*rows: tuple[object, object, object]) -> tuple[SpeedSegment, ...]:
    """Return segments made from (start, end, speed)."""
    return tuple(
        SpeedSegment(start_seconds=Fraction(str(a)), end_seconds=Fraction(str(b)), speed=Fraction(str(v)))
        for a, b, v in rows
    )


def run(
    request: FramingRequest,
    workdir: Path,
    *,
    cancellation: CancellationToken | None = None,
    send: Callable[[ProgressEvent], None] | None = None,
) -> RenderResult:
    """Run the body in `workdir`, which must be empty after a success."""
    workdir.mkdir(exist_ok=True)
    context = JobContext(
        storage=root_storage(),
        workdir=workdir,
        settings=Settings.from_env(),
        reporter=Reporter(send or [].append, interval_seconds=0),
        cancellation=cancellation or CancellationToken(),
    )
    result = run_function(request, context)
    assert list(workdir.iterdir()) == []
    return result


def framed(source: Path, folder: Path, **fields: object) -> tuple[RenderResult, Path]:
    """Frame `source` into `folder`; return the result and the file."""
    output = folder / "out.mp4"
    return run(request_for(source, output, **fields), folder / "work"), output
