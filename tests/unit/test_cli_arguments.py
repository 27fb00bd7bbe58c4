"""Invalid command-line arguments: exit status 2, one line, before any file is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reel_modal.cli import main

Run = Callable[..., tuple[int, str]]
REGION = {
    "id": "a",
    "start_time": 0,
    "end_time": 5,
    "keyframes": [{"time": 0, "x": 1, "y": 1, "radiusX": 4, "radiusY": 4}],
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process; return its status and its stderr. Its stdout must be empty."""

    def command(*arguments: str | Path) -> tuple[int, str]:
        status = main([str(each) for each in arguments])
        printed = capsys.readouterr()
        assert printed.out == ""
        return status, printed.err

    return command


@pytest.fixture
def regions(tmp_path: Path) -> Path:
    path = tmp_path / "regions.json"
    path.write_text(json.dumps([REGION]))
    return path


def refused_output(kind: str, folder: Path, source: Path) -> Path:
    """Create an OUT that cannot be written and return it."""
    out = folder / "out.mp4"
    match kind:
        case "missing folder":
            out = folder / "nowhere" / "out.mp4"
        case "folder that takes no files":
            out = Path("/proc/out.mp4")
        case "file as a folder":
            (folder / "file").write_text("")
            out = folder / "file" / "out.mp4"
        case "folder":
            out.mkdir()
        case "link to a folder":
            out.symlink_to(folder)
        case "fifo":
            os.mkfifo(out)
        case "device":
            out = Path("/dev/null")
        case "input itself":
            out = source
        case "input by another path":
            out = source.parent / ".." / source.parent.name / source.name
        case "hard link to the input":
            out.hardlink_to(source)
        case "symbolic link to the input":
            out.symlink_to(source)
        case "long name":
            out = folder / ("x" * 300 + ".mp4")
    return out


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing folder", "is in a folder that does not exist; create it first"),
        ("folder that takes no files", "cannot be written"),
        ("file as a folder", "is in a folder that does not exist"),
        ("folder", "is a folder; use a file name in it"),
        ("link to a folder", "is a folder; use a file name in it"),
        ("fifo", "is not a regular file"),
        ("device", "is not a regular file"),
        ("input itself", "is the same file as the input; use another file"),
        ("input by another path", "is the same file as the input; use another file"),
        ("hard link to the input", "is the same file as the input; use another file"),
        ("symbolic link to the input", "is the same file as the input; use another file"),
        ("long name", "has a name of more than 240 bytes"),
    ],
)
def test_cli_unwritable_output_is_refused_before_reading(run: Run, tmp_path: Path, kind: str, words: str) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(b"not a video, which reading would find out")
    out = refused_output(kind, tmp_path, source)
    before = sorted(tmp_path.rglob("*"))
    for command in (
        ("render-overlay", source, out, "--regions", tmp_path / "not-read.json"),
        ("process-framing", source, out, "--spec", tmp_path / "not-read.json"),
        ("apply-upscale", source, out, "--scale", "2"),
    ):
        status, stderr = run(*command)
        assert (status, stderr.startswith("error: OUT: "), words in stderr, len(stderr.splitlines())) == (
            2,
            True,
            True,
            1,
        ), stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert source.read_bytes() == b"not a video, which reading would find out"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("deep.json", "[" * 200_000, "is nested too deeply"),
        ("digits.json", '{"regions": [], "jobId": ' + "9" * 100_000 + "}", "a number has 100000 digits"),
        ("constant.json", '{"regions": NaN}', "NaN is not JSON"),
        ("twice.json", '{"regions": [], "regions": []}', "'regions' appears twice in one object"),
        ("long.json", " " * 9_000_000, "is too long"),
        ("bytes.json", "\udcff", "is not JSON"),
        ("folder", None, "cannot be read"),
        ("/dev/zero", None, "is too long"),
    ],
)
def test_cli_hostile_spec_is_a_usage_error(
    run: Run, tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content, errors="surrogateescape")
    elif not path.exists():
        path.mkdir()
    status, stderr = run("render-overlay", tmp_path / "in.mp4", tmp_path / "out.mp4", "--regions", path)
    assert (status, words in stderr, len(stderr.splitlines())) == (2, True, 1), stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--encoder", "no_such_encoder"), "encode.encoder: encoder 'no_such_encoder' does not start"),
        (("--encoder", "-y"), "encode.encoder"),
        (("--preset", "fastest"), "encode.preset: is 'fastest'; use one of ultrafast"),
        (("--quality", "52"), "encode.quality: is 52"),
    ],
)
def test_cli_invalid_encoder_is_refused_before_reading(
    run: Run, tmp_path: Path, regions: Path, arguments: tuple[str, ...], words: str
) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(b"not a video, which reading would find out")
    joined = [f"{arguments[0]}={arguments[1]}"]
    status, stderr = run("render-overlay", source, tmp_path / "out.mp4", "--regions", regions, *joined)
    assert (status, words in stderr) == (2, True), stderr


@pytest.mark.parametrize("name", ["reel.gif", "reel", "reel.txt", ".mp4", "reel.webm --encoder libx264"])
def test_cli_container_unsupported_by_encoder_is_a_usage_error(
    run: Run, tmp_path: Path, regions: Path, name: str
) -> None:
    name, *more = name.split()
    status, stderr = run("render-overlay", tmp_path / "in.mp4", tmp_path / name, "--regions", regions, *more)
    assert (status, stderr.startswith("error: output_key: "), "; use " in stderr) == (2, True, True), stderr
    assert repr(str(tmp_path / name)) in stderr


def test_cli_null_character_in_path_is_a_usage_error(run: Run, tmp_path: Path, regions: Path) -> None:
    status, stderr = run("render-overlay", tmp_path / "in.mp4", tmp_path / "a\0.mp4", "--regions", regions)
    assert (status, "has a null character" in stderr) == (2, True), stderr
    status, stderr = run("render-overlay", tmp_path / "in\0.mp4", tmp_path / "a.mp4", "--regions", regions)
    assert (status, stderr.splitlines()[-1].startswith("error: ")) == (1, True), stderr


def test_cli_unwritable_demo_folder_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "demo", "/proc/demo"):
        status, stderr = run("demo", "--output", folder)
        assert (status, stderr.startswith("error: --output: ")) == (2, True), stderr
