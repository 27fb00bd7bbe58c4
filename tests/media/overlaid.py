"""Run overlay requests through the real function body, on clips that are copied into a store."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from tests.run_function import run_function

from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.progress import ProgressEvent
from reel_modal.schema import EncodeOptions, HighlightKeyframe, HighlightRegion, OverlayRequest, RenderResult
from reel_modal.settings import Settings
from reel_modal.storage import FolderStorage

FAST = EncodeOptions(encoder="libx264", preset="ultrafast", quality=18)


def spotlight(start: str = "0", end: str = "1000") -> tuple[HighlightRegion, ...]:
    """Return one region in the middle of the picture, between two times in seconds."""
    key = HighlightKeyframe(time_seconds=Fraction(0), x=0.5, y=0.5, radius_x=0.25, radius_y=0.25)
    return (
        HighlightRegion(
            id="r", start_seconds=Fraction(start), end_seconds=Fraction(end), keyframes=(key,), video_size=(1, 1)
        ),
    )


def render(
    clip: Path,
    store: Path,
    *,
    events: list[ProgressEvent] | None = None,
    token: CancellationToken | None = None,
    **fields: object,
) -> tuple[Path, RenderResult]:
    """Copy `clip` into the store and render it there."""
    (store / f"in{clip.suffix}").write_bytes(clip.read_bytes())
    workdir = store.parent / "work"
    workdir.mkdir(exist_ok=True)
    request = OverlayRequest(
        **{  # type: ignore[arg-type]
            "job_id": "j",
            "user_id": "u",
            "input_key": f"in{clip.suffix}",
            "output_key": "made/out.mp4",
            "regions": spotlight(),
            "encode": FAST,
        }
        | fields
    )
    context = JobContext(
        storage=FolderStorage(store),
        workdir=workdir,
        settings=Settings.from_env(),
        reporter=Reporter((events if events is not None else []).append, interval_seconds=0),
        cancellation=token or CancellationToken(),
    )
    return store / request.output_key, run_function(request, context)
