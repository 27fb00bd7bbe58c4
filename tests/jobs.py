"""Short requests, results and events for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from reel_modal.functions.builtin import render_overlay
from reel_modal.functions.receipts import Receipt
from reel_modal.progress import ProgressEvent
from reel_modal.schema import (
    EncodeOptions,
    HighlightKeyframe,
    HighlightRegion,
    OverlayRequest,
    RenderResult,
    StoreOptions,
)
from reel_modal.storage import FolderStorage

GLOBAL = StoreOptions(input_scope="global", output_scope="global")
"""Keys are used unchanged, without a user's folder."""

PHASES = ("fetch", "render", "verify", "publish")


def overlay(
    job_id: str = "job", *, source: str = "in.mp4", output: str | None = None, preset: str = "ultrafast"
) -> OverlayRequest:
    """Return a request with one highlight in the middle of the picture."""
    keyframe = HighlightKeyframe(time_seconds=Fraction(0), x=0.5, y=0.5, radius_x=0.25, radius_y=0.25)
    region = HighlightRegion(
        id="player",
        start_seconds=Fraction(0),
        end_seconds=Fraction(1000),
        keyframes=(keyframe,),
        video_size=(1, 1),
    )
    return OverlayRequest(
        job_id=job_id,
        user_id="user",
        input_key=source,
        output_key=output or f"out/{job_id}.mp4",
        regions=(region,),
        encode=EncodeOptions(encoder="libx264", preset=preset),
        store=GLOBAL,
    )


def rendered(request: Mapping[str, object], *, frames: int = 25) -> dict[str, object]:
    """Return the result of a function for `request`, which is an `OverlayRequest.to_dict()`."""
    return RenderResult(
        job_id=str(request["job_id"]),
        function="render_overlay",
        output_key=str(request["output_key"]),
        stored_key=str(request["output_key"]),
        frames=frames,
        size=(320, 180),
        fps=Fraction(25),
        duration_seconds=Fraction(frames, 25),
        bytes=1000,
        engine="opencv-yuv420p",
        encoder="libx264",
        seconds_by_phase=dict.fromkeys(PHASES, 0.1),
    ).to_dict()


def publish(request: OverlayRequest, store: Path) -> RenderResult:
    """Publish an output and its receipt, as a function body does at its end."""
    storage = FolderStorage(store)
    video = store / "made.mp4"
    video.write_bytes(b"a video" * 1000)
    key = f"users/user/{request.output_key}"
    result = RenderResult.parse(rendered(request.to_dict()) | {"output_key": key})
    Receipt(storage, key, request.request_hash(), render_overlay).write(result, video, "version")
    storage.publish(video, key)
    return replace(result, output_key=request.output_key, stored_key=key)


def event(sequence: int, phase: str = "render", *, at: float = 0.0, done: int = 0) -> ProgressEvent:
    """Return a progress event, reported `at` seconds after the start of the body."""
    return ProgressEvent(phase=phase, done=done, total=None, elapsed_seconds=at, sequence=sequence)
