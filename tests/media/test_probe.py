"""probe on real, unusual and malicious files."""

from __future__ import annotations

import json
import os
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.clips import Clips

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.errors import InvalidMediaError
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.media import probe
from reel_modal.settings import MediaLimits, Settings
from reel_modal.testing import make_clip


@pytest.mark.parametrize(
    ("name", "size", "fps", "frames"),
    [
        ("bikes.mp4", (640, 272), Fraction(25), 250),
        ("bigbuckbunny.mp4", (1280, 720), Fraction(25), 132),
        ("carphone_pristine.mp4", (176, 144), Fraction(30000, 1001), 120),
        ("25.mp4", (320, 180), Fraction(25), 25),
        ("29_97.mp4", (320, 180), Fraction(30000, 1001), 30),
        ("50.mp4", (320, 180), Fraction(50), 50),
        ("59_94.mp4", (320, 180), Fraction(60000, 1001), 60),
        ("milliseconds.mkv", (320, 180), Fraction(30000, 1001), 60),
        ("stream.ts", (320, 180), Fraction(25), 50),
        ("odd.webm", (161, 121), Fraction(25), 25),
        ("edit_list.mp4", (320, 180), Fraction(25), 37),
    ],
)
def test_probe_reads_size_rate_and_count(
    clips: Clips, name: str, size: tuple[int, int], fps: Fraction, frames: int
) -> None:
    info = probe(clips.get(name), scan=True)
    assert (info.size, info.fps, info.constant_rate) == (size, fps, True)
    assert info.scan is not None
    assert (info.scan.frame_count, info.scan.fps, info.scan.constant_rate) == (frames, fps, True)
    assert info.expected_frames == frames
    assert probe(clips.get(name)).scan is None


def test_probe_variable_rate_detected(clips: Clips) -> None:
    info = probe(clips.get("vfr.mp4"), scan=True)
    assert info.scan is not None
    assert (info.constant_rate, info.scan.constant_rate, info.fps) == (False, False, 25)
    assert info.scan.frame_count == 42
    assert info.expected_frames == 50


@pytest.mark.parametrize("name", ["corner.mp4", "turned_90.mp4", "turned_180.mp4", "turned_270.mp4"])
@pytest.mark.parametrize("mirror", ["", "mirrored"])
def test_probe_and_reader_every_orientation_is_upright(clips: Clips, name: str, mirror: str) -> None:
    turn = 0 if name == "corner.mp4" else int(name[7:-4])
    path = clips.get(f"mirrored_{turn}.mp4") if mirror else clips.get(name)
    info = probe(path)
    assert info.coded_size == (160, 96)
    assert info.size == ((96, 160) if turn in {90, 270} else (160, 96))
    with FrameReader(path, pixel_format="gray8") as reader:
        upright = next(iter(reader)).image.copy()
    # The output of a player, taken from ffmpeg itself, which rotates frames by default.
    assert np.array_equal(upright > 180, _as_played(path, info.size) > 180)
    white = np.argwhere(upright > 180).mean(axis=0) / upright.shape
    assert all(min(abs(share - 0.25), abs(share - 0.75)) < 0.02 for share in white)


def _as_played(path: Path, size: tuple[int, int]) -> np.ndarray:
    command = [find_ffmpeg(Settings.from_env()).path, "-loglevel", "error", "-i", path, "-frames:v", "1"]
    command += ["-f", "rawvideo", "-pix_fmt", "gray", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(size[1], size[0])


def test_probe_cover_art_is_not_the_video(clips: Clips) -> None:
    info = probe(clips.get("cover_art.mp4"))
    assert (info.size, info.codec) == ((320, 180), "h264")


def test_probe_reads_aspect_depth_range_and_audio(clips: Clips) -> None:
    anamorphic = probe(clips.get("anamorphic.mp4"))
    assert (anamorphic.size, anamorphic.display_size) == ((320, 180), (427, 180))
    assert anamorphic.sample_aspect_ratio == Fraction(4, 3)
    assert probe(clips.get("carphone_pristine.mp4")).display_size == (193, 144)
    assert probe(clips.get("10bit.mp4")).bit_depth == 10
    assert probe(clips.get("full_range.mp4")).color.range == "pc"
    assert probe(clips.get("25.mp4")).audio == ()
    (sound,) = probe(clips.get("with_sound.mp4")).audio
    assert (sound.codec, sound.sample_rate_hz, sound.channels) == ("aac", 48000, 1)


def test_probe_late_video_has_start_time(clips: Clips) -> None:
    late = probe(clips.get("late_video.mkv"))
    with av.open(str(late.path)) as container:
        first = next(packet for packet in container.demux(audio=0))
        assert first.pts is not None
        # The encoder's first packet is 21 ms before its audio, at 0 or below depending on the version of the muxer.
        assert late.start_seconds == first.pts * first.time_base + Fraction(521, 1000)
    assert late.container_start_seconds == 0
    stream = probe(clips.get("stream.ts"))
    assert stream.start_seconds > 1
    with FrameReader(stream) as reader:
        assert next(iter(reader)).pts_seconds == stream.start_seconds


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("garbage.mp4", "cannot be read as a video"),
        ("truncated.mp4", "cannot be read as a video"),
        ("playlist.mp4", "cannot be read as a video"),
        ("script.mp4", "cannot be read as a video"),
        ("audio_only.mp4", "is not a video"),
        ("bomb.mkv", "declares 30000x30000 pixels"),
        ("large.mkv", "declares 9000x9000 pixels; at most 8192x8192"),
    ],
)
def test_probe_unsupported_file_refused(clips: Clips, name: str, words: str) -> None:
    path = clips.get(name)
    with pytest.raises(InvalidMediaError, match=words) as caught:
        probe(path)
    assert name in str(caught.value)


def test_probe_missing_empty_or_folder_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(InvalidMediaError, match="not found"):
        probe(tmp_path / "missing.mp4")
    for path in (tmp_path / "empty.mp4", tmp_path):
        with pytest.raises(InvalidMediaError, match="cannot be read as a video"):
            probe(path)


def test_probe_limits_come_from_settings(clips: Clips) -> None:
    clip = clips.get("with_sound.mp4")
    for limits, words in [
        (MediaLimits(max_width_px=300), "declares 320x180 pixels"),
        (MediaLimits(max_frame_pixels=50_000), "50000 in total"),
        (MediaLimits(max_duration_seconds=1), "declares 2 s; at most 1 s"),
    ]:
        with pytest.raises(InvalidMediaError, match=words):
            probe(clip, settings=Settings(limits=limits))


def test_probe_playlist_opens_no_other_file(tmp_path: Path) -> None:
    """Opening the pipe in the playlist would block, so probe returns only if it was not opened."""
    os.mkfifo(tmp_path / "trap.ts")
    playlist = tmp_path / "clip.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path / 'trap.ts'}\n#EXT-X-ENDLIST\n")
    with pytest.raises(InvalidMediaError):
        probe(playlist)


def test_probe_leaves_no_file_open(clips: Clips) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        probe(clips.get("with_sound.mp4"), scan=True)
        with pytest.raises(InvalidMediaError):
            probe(clips.get("garbage.mp4"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_media_to_dict_is_json(clips: Clips) -> None:
    parsed = json.loads(json.dumps(probe(clips.get("29_97.mp4"), scan=True).to_dict()))
    assert (parsed["fps"], parsed["size"]) == ("30000/1001", [320, 180])
    assert parsed["orientation"] == {"rotation_degrees": 0, "mirrored": False}
    assert parsed["scan"]["frame_count"] == 30


def test_probe_audio_with_unknown_codec_ignored(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", audio_seconds=1, options=("-c:a", "aac"))
    assert [stream.codec for stream in probe(clip).audio] == ["aac"]
    data = clip.read_bytes()
    assert data.count(b"A_AAC") == 1
    clip.write_bytes(data.replace(b"A_AAC", b"A_XYZ"))
    assert probe(clip).audio == ()
    with FrameReader(clip) as reader:
        assert sum(1 for _ in reader) == 25


def test_probe_video_with_unknown_codec_refused_by_name(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv")
    data = clip.read_bytes()
    assert data.count(b"V_MPEG4/ISO/AVC") == 1
    clip.write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    with pytest.raises(InvalidMediaError, match="no video stream with a known codec"):
        probe(clip)
