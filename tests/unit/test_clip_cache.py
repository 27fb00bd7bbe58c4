"""The cache of clips: what determines a clip is in its key, and each test gets a private copy."""

from __future__ import annotations

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
        (*PICTURE, "%02d.jpg"),
        (*PICTURE, "-"),
    ],
)
def test_command_key_other_files_are_not_cached(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("file 'in.mp4'")
    assert key_of_command([each.format(folder=tmp_path) for each in arguments]) is None
    assert key_of_command([*PICTURE, "out.mp4"]) is not None
