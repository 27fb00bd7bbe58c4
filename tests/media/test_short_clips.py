"""Clips of one to five pictures, at frame rates that no container can name."""

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
def test_render_three_pictures_at_unusual_rate(suffix: str, rate: str, function: str, tmp_path: Path) -> None:
    source, output = tmp_path / f"in{suffix}", tmp_path / "out.mp4"
    picture = ("-f", "lavfi", "-i", f"testsrc2=size=160x96:rate={rate}", "-frames:v", "3")
    ffmpeg(*picture, "-c:v", "libx264", "-bf", "2", "-pix_fmt", "yuv420p", source)
    kind, fields = FUNCTIONS[function]
    result = rendered(kind, source, output, **fields)
    output_media = probe(output, scan=True)
    assert output_media.scan is not None
    assert (result.frames, output_media.scan.frame_count) == (3, 3)
    assert float(output_media.scan.duration_seconds) == pytest.approx(3 / float(rate), abs=0.0015)


@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mkv"])
@pytest.mark.parametrize("rate", [25, 30, 50])
def test_render_one_picture_gives_one_frame_at_its_rate(suffix: str, rate: int, tmp_path: Path) -> None:
    source = tmp_path / f"in{suffix}"
    picture = ("-f", "lavfi", "-i", f"testsrc2=size=160x96:rate={rate}", "-frames:v", "1")
    ffmpeg(*picture, "-c:v", "libx264", "-pix_fmt", "yuv420p", source)
    result = rendered(OverlayRequest, source, tmp_path / "out.mp4", regions=(), encode=FULL)
    assert (result.frames, result.fps) == (1, rate)


@pytest.mark.parametrize("rate", [Fraction(116921, 962), Fraction(119), Fraction(241, 2), Fraction(30)])
def test_pipe_given_rate_is_written(rate: Fraction, tmp_path: Path) -> None:
    with FramePipe(tmp_path / "out.mp4", size=(64, 48), fps=rate, pixel_format="yuv420p", encoder="libx264") as pipe:
        for _ in range(30):
            pipe.write(bytes(64 * 48 * 3 // 2))
    output = probe(tmp_path / "out.mp4", scan=True)
    assert output.scan is not None
    assert output.scan.duration_seconds == 30 / rate
