"""Clips of one to five pictures, at rates that no container has a word for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.clips import ffmpeg
from tests.media.rendered import rendered

from reel_modal.ffmpeg_pipe import FramePipe
from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, FramingRequest, OverlayRequest, UpscaleRequest

FULL = EncodeOptions(smart=False, preset="ultrafast")
FUNCTIONS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "overlay": (OverlayRequest, {"regions": (), "encode": FULL}),
    "framing": (FramingRequest, {"output_size": (80, 48), "encode": FULL}),
    "upscale": (UpscaleRequest, {"scale": 2, "encode": FULL}),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("rate", ["121.5", "119", "97.3", "29.8"])
@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mkv"])
def test_three_pictures_of_an_odd_rate_are_rendered(suffix: str, rate: str, function: str, tmp_path: Path) -> None:
    source, output = tmp_path / f"in{suffix}", tmp_path / "out.mp4"
    picture = ("-f", "lavfi", "-i", f"testsrc2=size=160x96:rate={rate}", "-frames:v", "3")
    ffmpeg(*picture, "-c:v", "libx264", "-bf", "2", "-pix_fmt", "yuv420p", source)
    kind, fields = FUNCTIONS[function]
    result = rendered(kind, source, output, **fields)
    made = probe(output, scan=True)
    assert made.scan is not None
    assert (result.frames, made.scan.frame_count) == (3, 3)
    assert float(made.scan.duration_seconds) == pytest.approx(3 / float(rate), abs=0.0015)


@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mkv"])
@pytest.mark.parametrize("rate", [25, 30, 50])
def test_one_picture_is_one_frame_of_its_rate(suffix: str, rate: int, tmp_path: Path) -> None:
    source = tmp_path / f"in{suffix}"
    picture = ("-f", "lavfi", "-i", f"testsrc2=size=160x96:rate={rate}", "-frames:v", "1")
    ffmpeg(*picture, "-c:v", "libx264", "-pix_fmt", "yuv420p", source)
    result = rendered(OverlayRequest, source, tmp_path / "out.mp4", regions=(), encode=FULL)
    assert (result.frames, result.fps) == (1, rate)


@pytest.mark.parametrize("rate", [Fraction(116921, 962), Fraction(119), Fraction(241, 2), Fraction(30)])
def test_pipe_writes_the_rate_that_it_is_given(rate: Fraction, tmp_path: Path) -> None:
    with FramePipe(tmp_path / "out.mp4", size=(64, 48), fps=rate, pixel_format="yuv420p", encoder="libx264") as pipe:
        for _ in range(30):
            pipe.write(bytes(64 * 48 * 3 // 2))
    made = probe(tmp_path / "out.mp4", scan=True)
    assert made.scan is not None
    assert made.scan.duration_seconds == 30 / rate
