"""The cache of clips: what determines a clip is in its key, and each test gets a private copy."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests import clip_cache
from tests.clip_cache import cached, key_of_command

PICTURE = ("-f", "lavfi", "-i", "testsrc2=rate=30000/1001")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(clip_cache, "FOLDER", tmp_path / "cache")
    return tmp_path


def test_cached_second_call_copies_and_changes_stay_private(folder: Path) -> None:
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_bytes(b"clip")

    for name in ("a.mp4", "b.mp4"):
        cached("key", folder / name, make)
        assert (folder / name).read_bytes() == b"clip"
        (folder / name).write_bytes(b"changed by the test")
    assert made == [folder / "a.mp4"]
    cached("another key", folder / "c.mp4", make)
    assert len(made) == 2


def test_command_key_large_file_is_not_cached_if_packets_are_copied(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(bytes(4_000_001))
    assert key_of_command(["-i", source, "-c", "copy", "out.mkv"]) is None
    assert key_of_command(["-i", source, "-c:v", "libx264", "out.mkv"]) is not None
    source.write_bytes(bytes(4_000_000))
    assert key_of_command(["-i", source, "-c", "copy", "out.mkv"]) is not None


def test_cached_unused_files_are_deleted_after_a_week(folder: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        cached(name, folder / name, lambda path: path.write_bytes(b"clip"))
    old, new = sorted((folder / "cache").iterdir())
    week_ago = time.time() - 7 * 24 * 3600
    os.utime(old, (week_ago - 60, week_ago - 60))
    os.utime(new, (week_ago + 60, week_ago + 60))
    clip_cache.delete_unused()
    assert list((folder / "cache").iterdir()) == [new]


def test_cached_failure_keeps_nothing(folder: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("ffmpeg failed")

    with pytest.raises(OSError, match="ffmpeg failed"):
        cached("key", folder / "a.mp4", fail)
    assert list((folder / "cache").glob("*")) == []


def test_command_key_depends_on_options_content_and_suffix_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "in.mp4").write_bytes(b"same")
    keys = [
        key_of_command(["-i", tmp_path / name / "in.mp4", "-an", tmp_path / name / "o.mp4"])
        for name in ("one", "two")
    ]
    assert keys[0] == keys[1] is not None
    source = tmp_path / "one" / "in.mp4"
    others = [["-i", source, "-vn", "o.mp4"], ["-i", source, "-an", "o.mkv"]]
    source.write_bytes(b"other")
    others.append(["-i", source, "-an", "o.mp4"])
    assert len({keys[0], *map(key_of_command, others)}) == 4


@pytest.mark.parametrize(
    "arguments",
    [
        (*PICTURE, "/var/first.mp4", "second.mp4"),
        (*PICTURE, "-vf", "subtitles=/var/lines.srt", "out.mp4"),
        ("-f", "lavfi", "-i", "movie=/var/in.mp4", "out.mp4"),
        ("-f", "concat", "-i", "{folder}/list.txt", "out.mp4"),
        ("-i", "{folder}/list.m3u8", "out.mp4"),
        (*PICTURE, "%02d.jpg"),
        (*PICTURE, "-"),
    ],
)
def test_command_key_other_files_are_not_cached(arguments: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("list.txt", "list.m3u8"):
        (tmp_path / name).write_text("in.mp4")
    assert key_of_command([each.format(folder=tmp_path) for each in arguments]) is None
    assert key_of_command([*PICTURE, "out.mp4"]) is not None
