"""Display duration of the last of a few slow pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.clips import ffmpeg
from tests.media.rendered import rendered

from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, FramingRequest, OverlayRequest, UpscaleRequest

FULL = EncodeOptions(smart=False)
FUNCTIONS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "smart": (OverlayRequest, {"regions": ()}),
    "full": (OverlayRequest, {"regions": (), "encode": FULL}),
    "source": (OverlayRequest, {"regions": (), "encode": FULL, "rate": "source"}),
    "framing": (FramingRequest, {"output_size": (80, 48)}),
    "upscale": (UpscaleRequest, {"scale": 2}),
}


def slides(path: Path, *, interval: Fraction, count: int, last: Fraction = Fraction(1, 30)) -> Path:
    """Make pictures every `interval` seconds, the last of which is displayed for `last` seconds."""
    picture = f"testsrc2=size=160x96:rate=30:duration={float((count - 1) * interval + last)}"
    chosen = f"select=not(mod(n\\,{int(30 * interval)}))"
    ffmpeg(
        *("-f", "lavfi", "-i", picture, "-vf", chosen, "-fps_mode", "vfr", "-c:v", "libx264"),
        *("-preset", "ultrafast", "-pix_fmt", "yuv420p", path),
    )
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_render_short_last_picture_keeps_duration(function: str, suffix: str, tmp_path: Path) -> None:
    source = slides(tmp_path / f"in{suffix}", interval=Fraction(10), count=2)
    kind, fields = FUNCTIONS[function]
    result = rendered(kind, source, tmp_path / "out.mp4", **fields)
    output = probe(tmp_path / "out.mp4", scan=True)
    assert output.scan is not None
    assert float(output.scan.duration_seconds) == pytest.approx(10 + 1 / 30, abs=0.021)
    assert output.scan.duration_seconds == pytest.approx(result.duration_seconds, abs=0.001)


def test_render_short_last_of_many_slides_uses_index(tmp_path: Path) -> None:
    media = probe(slides(tmp_path / "in.mp4", interval=Fraction(1, 2), count=150))
    assert (media.constant_rate, media.rate_by_all) == (False, True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_probe_equal_slides_have_constant_rate(suffix: str, tmp_path: Path) -> None:
    source = tmp_path / f"in{suffix}"
    picture = "testsrc2=size=160x96:rate=1/2:duration=8"
    ffmpeg("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-pix_fmt", "yuv420p", source)
    media = probe(source, scan=True)
    assert media.scan is not None
    assert (media.constant_rate, media.fps, media.scan.duration_seconds) == (True, Fraction(1, 2), 8)
