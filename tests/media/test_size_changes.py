"""Pictures that change size are scaled to the first size, and the result has a note."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.clips import Clips, ffmpeg
from tests.media.framed import FAITHFUL, crops, request_for, run
from tests.media.rendered import rendered

from reel_modal._ffmpeg.reader import Decoder
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.media import probe
from reel_modal.media.picture_sizes import changes_size
from reel_modal.schema import EncodeOptions, OverlayRequest, UpscaleRequest
from reel_modal.settings import Settings

FIRST = (128, 96)
ODD = (127, 95)
CHANGES = {"smaller": (64, 48), "turned": (96, 128), "larger": (256, 192)}
CONTAINERS = {".webm": ("libvpx", "-deadline", "realtime"), ".ts": ("libx264", "-bf", "0")}


def call(clips: Clips, change: str, suffix: str, first: tuple[int, int] = FIRST) -> Path:
    """Make a second of the size `first` in white, then a second of another size in white."""
    path = clips.folder / f"call_{first[0]}_{change}{suffix}"
    if not path.exists():
        parts = []
        for number, (width, height) in enumerate((first, CHANGES[change])):
            part = path.with_name(f"{path.stem}_{number}{suffix}")
            source = f"color=white:s={width}x{height}:r=25:d=1"
            offset = ("-output_ts_offset", str(number)) if suffix == ".ts" else ()
            ffmpeg(
                "-f", "lavfi", "-i", source, "-c:v", *CONTAINERS[suffix], "-g", "25", "-bsf:v", "null", *offset, part
            )
            parts.append(part)
        if suffix == ".ts":
            path.write_bytes(b"".join(part.read_bytes() for part in parts))
        else:
            listed = path.with_suffix(".txt")
            listed.write_text("".join(f"file {part.name}\n" for part in parts))
            ffmpeg("-f", "concat", "-i", listed, "-c", "copy", path)
    return path


def white_share(change: str) -> float:
    """Return the part of FIRST that a scaled picture of the other size fills."""
    width, height = CHANGES[change]
    scale = min(FIRST[0] / width, FIRST[1] / height)
    return width * scale * height * scale / (FIRST[0] * FIRST[1])


@pytest.mark.parametrize("decoder", ["process", "in_process"])
@pytest.mark.parametrize(("suffix", "first"), [(".webm", FIRST), (".ts", FIRST), (".webm", ODD)])
@pytest.mark.parametrize("change", CHANGES)
def test_reader_size_change_scales_pictures(
    clips: Clips, change: str, suffix: str, first: tuple[int, int], decoder: Decoder
) -> None:
    with FrameReader(call(clips, change, suffix, first), pixel_format="gray8", decoder=decoder) as reader:
        shares = [float(np.mean(frame.image > 128)) for frame in reader]
    assert len(shares) == 50
    assert min(shares[:25]) > 0.99
    assert shares[25:] == pytest.approx([white_share(change)] * 25, abs=0.04)
    assert reader.fitted == (25 if decoder == "in_process" else 0)


@pytest.mark.parametrize("suffix", [".webm", ".ts"])
@pytest.mark.parametrize("change", CHANGES)
def test_crop_size_change_uses_scaled_pictures(clips: Clips, tmp_path: Path, change: str, suffix: str) -> None:
    source, output = call(clips, change, suffix), tmp_path / "out.mp4"
    crop = crops((0, 16, 8, 96, 80))
    result = run(request_for(source, output, crop=crop, output_size=(96, 80), encode=FAITHFUL), tmp_path / "work")
    assert [note.code for note in result.degraded if "scaled to fit" in note.message] == ["pictures_fitted"]
    assert result.engine == "opencv-yuv420p"
    assert (result.frames, result.size) == (50, (96, 80))
    with FrameReader(output, pixel_format="gray8") as reader:
        middles = [float(frame.image[40, 48]) for frame in reader]
    assert min(middles) > 200


@pytest.mark.parametrize("suffix", [".webm", ".ts"])
def test_overlay_and_upscale_size_change_is_noted(clips: Clips, tmp_path: Path, suffix: str) -> None:
    source, encode = call(clips, "turned", suffix), EncodeOptions(encoder="libx264")
    fields: dict[type, dict[str, object]] = {OverlayRequest: {"regions": []}, UpscaleRequest: {"scale": 2}}
    for kind, options in fields.items():
        result = rendered(kind, source, tmp_path / f"{kind.__name__}.mp4", encode=encode, **options)
        [note] = [note for note in result.degraded if note.code == "pictures_fitted"]
        assert "25 frames" in note.message


def test_changes_size_constant_size_is_false(clips: Clips) -> None:
    assert not changes_size(probe(clips.get("bikes.mp4")), Settings())
    assert changes_size(probe(call(clips, "smaller", ".webm")), Settings())
