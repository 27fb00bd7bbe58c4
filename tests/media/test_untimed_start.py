"""Matroska with first pictures before zero, for which libav reads no times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.clips import ffmpeg
from tests.media.rendered import rendered

from reel_modal import FrameReader
from reel_modal._ffmpeg.reader import Decoder
from reel_modal.media import probe
from reel_modal.media.frames import U8Array
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest, OverlayRequest

STEADY = "testsrc2=size=160x96:rate=30:duration=4"
SLOW_AT_FIRST = "testsrc2=size=160x96:rate=30:duration=4,select='gt(t,1.4)+not(mod(n,3))'"


def make(path: Path, picture: str, *options: str) -> Path:
    sound = ("-f", "lavfi", "-i", "sine=duration=4", "-c:a", "aac")
    video = ("-c:v", "libx264", "-preset", "veryfast", "-g", "30", "-fps_mode", "passthrough")
    ffmpeg("-f", "lavfi", "-i", picture, *sound, *video, *options, path)
    return path


def before_zero(path: Path, picture: str = STEADY, *options: str) -> Path:
    """The clip of `make`, moved so that it begins 1.5 s before the zero of its container."""
    plain = make(path.with_stem("plain"), picture, *options)
    ffmpeg("-i", plain, "-c", "copy", "-output_ts_offset", "-1.5", "-avoid_negative_ts", "disabled", path)
    return path


def pictures(source: Path, decoder: Decoder) -> list[tuple[Fraction, U8Array]]:
    with FrameReader(source, decoder=decoder) as reader:
        return [(frame.pts_seconds, frame.image.copy()) for frame in reader]


@pytest.mark.parametrize("decoder", ["process", "in_process"])
@pytest.mark.parametrize("reordered", ["0", "3"])
def test_pictures_before_zero_get_times(decoder: Decoder, reordered: str, tmp_path: Path) -> None:
    decoded = pictures(before_zero(tmp_path / "in.mkv", STEADY, "-bf", reordered), decoder)
    expected = pictures(tmp_path / "plain.mkv", decoder)
    assert len(decoded) == len(expected) == 120
    for (seconds, image), (plain_seconds, plain_image) in zip(decoded, expected, strict=True):
        assert float(seconds) == pytest.approx(float(plain_seconds) - 1.5, abs=0.002)
        assert (image == plain_image).all()


def test_duration_includes_pictures_before_zero(tmp_path: Path) -> None:
    media = probe(before_zero(tmp_path / "in.mkv"), scan=True)
    assert media.scan is not None
    assert (media.start_seconds, media.fps, media.scan.frame_count) == (Fraction(-3, 2), 30, 120)
    assert media.scan.duration_seconds == media.expected_frames / media.fps == 4
    assert float(media.duration_seconds or 0) == pytest.approx(4, abs=0.03)


CROP = {"y": 0, "width": 80, "height": 48}
MOVING = (CropKeyframe(time_seconds=0, x=0, **CROP), CropKeyframe(time_seconds=4, x=20, **CROP))  # type: ignore[arg-type]
EDITS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "smart": (OverlayRequest, {"regions": ()}),
    "full": (OverlayRequest, {"regions": (), "encode": EncodeOptions(smart=False)}),
    "source": (OverlayRequest, {"regions": (), "rate": "source"}),
    "graph": (FramingRequest, {"output_size": (80, 48)}),
    "moving": (FramingRequest, {"output_size": (80, 48), "crop": MOVING}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_render_includes_pictures_before_zero(edit: str, tmp_path: Path) -> None:
    kind, fields = EDITS[edit]
    result = rendered(kind, before_zero(tmp_path / "in.mkv"), tmp_path / "out.mp4", **fields)
    assert (result.frames, result.duration_seconds) == (120, 4)
    assert {note.code for note in result.degraded} <= {"encoder_unavailable"}
    (sound,) = probe(tmp_path / "out.mp4").audio
    assert float(sound.start_seconds) == pytest.approx(0, abs=0.025)
    assert float(sound.duration_seconds or 0) == pytest.approx(4, abs=0.03)


def test_trim_times_count_from_first_picture(tmp_path: Path) -> None:
    source = before_zero(tmp_path / "in.mkv")
    trim = {"trim_start_seconds": 1, "trim_end_seconds": 2, "output_size": (160, 96)}
    rendered(FramingRequest, source, tmp_path / "out.mp4", **trim)
    decoded = pictures(tmp_path / "out.mp4", "in_process")
    assert len(decoded) == 30
    expected = pictures(source, "in_process")[30:60]
    for (_, image), (_, original) in zip(decoded, expected, strict=True):
        assert abs(image.astype(int) - original).mean() < 6


def test_uneven_pictures_before_zero_all_rendered(tmp_path: Path) -> None:
    """Their distances are unknown: they are spaced evenly, and none is dropped."""
    source = before_zero(tmp_path / "in.mkv", SLOW_AT_FIRST)
    count = len(pictures(source, "process"))
    result = rendered(OverlayRequest, source, tmp_path / "out.mp4", regions=(), rate="source")
    assert result.frames == count
