"""Real files that PyAV 18 and 19 read differently."""

from __future__ import annotations

import json
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
from tests.clips import Clips, ffmpeg
from tests.media.splices import render

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.media import probe
from reel_modal.media.orientation import Orientation
from reel_modal.media.pyav import fraction
from reel_modal.settings import Settings

LATIN_1 = b"title=caf\xe9"


def motion_jpeg(path: Path, exif_orientation: int) -> Path:
    """Make a Motion JPEG clip whose frames have EXIF data, as cameras write it."""
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x96:rate=5:duration=1", "-f", "image2", path.parent / "%02d.jpg")
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x0112, 3, 1, exif_orientation) + bytes(4)
    exif = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    pictures = [picture.read_bytes() for picture in sorted(path.parent.glob("*.jpg"))]
    command = [find_ffmpeg(Settings()).path, "-v", "error", "-y", "-f", "image2pipe", "-framerate", "5"]
    command += ["-c:v", "mjpeg", "-i", "-", "-c", "copy", str(path)]
    subprocess.run(command, input=b"".join(one[:2] + segment + one[2:] for one in pictures), check=True, timeout=60)
    return path


@pytest.mark.parametrize(
    ("exif_orientation", "expected"),
    [(1, Orientation()), (2, Orientation(0, mirrored=True)), (3, Orientation(180)), (6, Orientation(90))],
)
def test_probe_unknown_side_data_keeps_orientation(
    tmp_path: Path, exif_orientation: int, expected: Orientation
) -> None:
    """PyAV 18 has no name for EXIF, type 31: "31 is not a valid Type"."""
    assert probe(motion_jpeg(tmp_path / "camera.avi", exif_orientation)).orientation == expected


def titled(clips: Clips, folder: Path) -> Path:
    """Make a clip with an audio title in Latin-1."""
    path = folder / "titled.mkv"
    command = [find_ffmpeg(Settings()).path, "-v", "error", "-y", "-i", str(clips.get("with_sound.mp4"))]
    subprocess.run([*command, "-c", "copy", "-metadata:s:a:0", LATIN_1, str(path)], check=True, timeout=60)
    return path


def test_probe_non_utf8_tag_can_be_printed(clips: Clips, tmp_path: Path) -> None:
    info = probe(titled(clips, tmp_path))
    assert info.audio[0].title == "caf\N{REPLACEMENT CHARACTER}"
    assert json.dumps(info.to_dict(), ensure_ascii=False).encode()


def test_splice_non_utf8_tag_keeps_bytes(clips: Clips, tmp_path: Path) -> None:
    rendering = render(titled(clips, tmp_path), tmp_path, (0.5, 0.6))
    assert b"caf\xe9" in rendering.path.read_bytes()


def test_splice_output_does_not_contain_libavformat_version(clips: Clips, tmp_path: Path) -> None:
    """The bytes of an output must not depend on the version of PyAV."""
    source = clips.get("25.mp4")
    assert b"Lavf" in source.read_bytes()
    assert b"Lavf" not in render(source, tmp_path, (0.5, 0.6)).path.read_bytes()


def test_fraction_unset_ratio_is_none() -> None:
    assert fraction(Fraction(1001, 30000)) == Fraction(1001, 30000)
    assert fraction(None) is None
    assert fraction(Fraction(0)) is None


def test_fraction_infinite_ratio_is_none() -> None:
    av = pytest.importorskip("av.rational", reason="PyAV 18 has Fractions alone", exc_type=ImportError)
    assert fraction(av.AVRational(1, 0)) is None
    assert fraction(av.AVRational(2, 60)) == Fraction(1, 30)
