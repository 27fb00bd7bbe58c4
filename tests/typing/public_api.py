"""Types of the public names, checked by pyright and mypy; never run."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import assert_type

import numpy as np

from reel_modal import (
    Degradation,
    EncodeOptions,
    Frame,
    FramePipe,
    FrameReader,
    FramingRequest,
    HighlightKeyframe,
    HighlightRegion,
    MediaInfo,
    OverlayRequest,
    RenderResult,
    Settings,
    StoreOptions,
    probe,
)
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.functions.builtin import render_overlay
from reel_modal.functions.context import JobContext


def frames(path: Path) -> None:
    with FramePipe(path, size=(2, 2), fps=Fraction(30000, 1001), pixel_format="yuv420p") as pipe:
        assert_type(pipe, FramePipe)
        pipe.write(np.zeros((3, 2), np.uint8))
        pipe.write(b"123456")
    assert_type(pipe.result, PipeResult)
    assert_type(pipe.result.fps, Fraction)
    with FrameReader(path) as reader:
        for frame in reader:
            assert_type(frame, Frame)
            assert_type(frame.pts_seconds, Fraction)


def requests(path: Path, context: JobContext) -> None:
    assert_type(probe(path), MediaInfo)
    request = OverlayRequest.parse({"job_id": "j"})
    assert_type(request, OverlayRequest)
    assert_type(render_overlay(request, context), RenderResult)
    assert_type(Settings.from_env().budget_usd, float | None)


def values() -> None:
    keyframe = HighlightKeyframe(time_seconds=0.5, x=1, y=Fraction(1, 2), radius_x=3, radius_y=3)
    assert_type(keyframe.time_seconds, Fraction)
    region = HighlightRegion(id=7, start_seconds="1/2", end_seconds=2, keyframes=[keyframe, {"time": 1}])
    assert_type(region.keyframes, tuple[HighlightKeyframe, ...])
    request = FramingRequest(
        job_id=1,
        user_id="u",
        input_key="in.mp4",
        output_key="out.mp4",
        aspect="9:16",
        fps=29.97,
        encode={"crf": 18},
    )
    assert_type(request.fps, Fraction | None)
    assert_type(request.encode, EncodeOptions)
    assert_type(FramingRequest.parse({}, user_id="u", store=StoreOptions()), FramingRequest)


def wrong(path: Path) -> None:
    HighlightKeyframe(time_seconds=[], x=1, y=1, radius_x=1, radius_y=1)  # pyright: ignore[reportArgumentType]
    EncodeOptions(quality="high")  # pyright: ignore[reportArgumentType]
    StoreOptions(existing="keep")  # pyright: ignore[reportArgumentType]
    FramingRequest.parse({}, user="u")  # pyright: ignore[reportCallIssue]
    FramePipe(path, size=(2, 2))  # pyright: ignore[reportCallIssue]
    FramePipe(path, size=(2, 2), fps=25, pixel_format="rgba")  # pyright: ignore[reportArgumentType]
    FramePipe(path, (2, 2), 25)  # pyright: ignore[reportCallIssue]
    OverlayRequest(job_id="j")  # pyright: ignore[reportCallIssue]
    Degradation("unheard_of", "a note")  # pyright: ignore[reportArgumentType]
    probe(3)  # pyright: ignore[reportArgumentType]
