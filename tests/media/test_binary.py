"""Selection of the ffmpeg binary, and errors for an unusable one."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ffmpegs import REAL, executable, renamed, without

from reel_modal import FramePipe
from reel_modal._ffmpeg import binary as ffmpeg_binary
from reel_modal._ffmpeg.binary import binaries, find_ffmpeg
from reel_modal.errors import EncoderUnavailableError, FFmpegNotFoundError, FFmpegUnsupportedError
from reel_modal.settings import Settings


@pytest.fixture
def no_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine without an imageio-ffmpeg binary, with only `tmp_path` on PATH."""
    package = tmp_path / "site" / "imageio_ffmpeg"
    (package / "binaries").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "imageio_ffmpeg", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    ffmpeg_binary._warn_once.cache_clear()


def test_find_ffmpeg_prefers_settings_then_wheel_then_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path, mine = renamed(tmp_path / "ffmpeg"), renamed(tmp_path / "mine", "N-118193-g5f38c82536")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("REEL_MODAL_FFMPEG", raising=False)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", mine)  # a variable of imageio-ffmpeg
    binary = find_ffmpeg()
    assert (binary.path, binary.origin) == (REAL, "imageio-ffmpeg")
    monkeypatch.setenv("REEL_MODAL_FFMPEG", mine)
    assert (find_ffmpeg().path, find_ffmpeg().origin) == (mine, "settings")
    order = [(binary.path, binary.origin) for binary in binaries(Settings.from_env())]
    assert order == [(mine, "settings"), (REAL, "imageio-ffmpeg"), (on_path, "PATH")]


def test_one_binary_under_two_names_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffmpeg").symlink_to(REAL)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [binary.origin for binary in binaries(Settings())] == ["imageio-ffmpeg"]
    assert [binary.origin for binary in binaries(Settings(ffmpeg=REAL))] == ["settings"]
    other = renamed(tmp_path / "other")
    (tmp_path / "ffmpeg").unlink()
    (tmp_path / "ffmpeg").symlink_to(other)
    assert [binary.origin for binary in binaries(Settings(ffmpeg=other))] == ["settings", "imageio-ffmpeg"]


@pytest.mark.usefixtures("no_wheel")
def test_ffmpeg_on_path_is_used_without_wheel_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    on_path = renamed(tmp_path / "ffmpeg")
    with caplog.at_level(logging.WARNING, "reel_modal"):
        lookups = [find_ffmpeg(Settings()) for _ in range(3)]
    assert {(ffmpeg.path, ffmpeg.origin, ffmpeg.version) for ffmpeg in lookups} == {(on_path, "PATH", (5, 1, 9))}
    (record,) = caplog.records
    assert "imageio-ffmpeg has no binary for this machine" in record.getMessage()
    assert "5.1.9-0+deb12u1" in record.getMessage()


@pytest.mark.usefixtures("no_wheel")
def test_machine_without_ffmpeg_names_cure() -> None:
    with pytest.raises(FFmpegNotFoundError, match=r"ffmpeg not found: .*pip install imageio-ffmpeg"):
        find_ffmpeg(Settings())


def test_build_differs_between_binaries_and_not_between_runs(tmp_path: Path) -> None:
    real, other = find_ffmpeg(Settings()), find_ffmpeg(Settings(ffmpeg=renamed(tmp_path / "other")))
    assert real.build != other.build
    assert find_ffmpeg(Settings(ffmpeg=REAL)).build == real.build
    assert str(other) == f"5.1.9-0+deb12u1 (build {other.build}) from settings"


def test_build_without_version_number_checked_by_features(tmp_path: Path) -> None:
    able = find_ffmpeg(Settings(ffmpeg=renamed(tmp_path / "able", "N-118193-g5f38c82536")))
    assert able.version > (99,)
    lacking = without(tmp_path / "old", "tpad", "No such filter: 'tpad'", version="N-95000-gabcdef0123")
    with pytest.raises(FFmpegUnsupportedError, match=r"ffmpeg N-95000-gabcdef0123 .*lacks the filter tpad"):
        find_ffmpeg(Settings(ffmpeg=lacking))


@pytest.mark.parametrize(
    ("word", "complaint", "lack"),
    [
        ("-fps_mode", "Unrecognized option 'fps_mode'.", "the option -fps_mode"),
        ("tpad", "No such filter: 'tpad'", "the filter tpad"),
        ("aac", "Unknown encoder 'aac'", "the encoder aac"),
        (
            "direct=1",
            "[fc#0 @ 0x5] Error applying option 'direct' to filter 'metadata': Option not found",
            "the option direct of the filter metadata",
        ),
        ("metadata=", "[x @ 0x5] Something else is wrong", "a required feature (Something else is wrong)"),
    ],
)
def test_unsupported_ffmpeg_error_names_version_lack_and_cure(
    word: str, complaint: str, lack: str, tmp_path: Path
) -> None:
    old = without(tmp_path / "old", word, complaint)
    with pytest.raises(FFmpegUnsupportedError) as caught:
        find_ffmpeg(Settings(ffmpeg=old))
    message = caught.value.message
    assert message.startswith(f"ffmpeg 4.4.6-static (from settings: {old}) is unsupported: it lacks {lack}.")
    assert message.endswith("or unset it to use the ffmpeg of the package imageio-ffmpeg, or the one on PATH")


@pytest.mark.usefixtures("no_wheel")
def test_unsupported_ffmpeg_on_path_error_names_its_cure(tmp_path: Path) -> None:
    without(tmp_path / "ffmpeg", "-fps_mode", "Unrecognized option 'fps_mode'.")
    with pytest.raises(
        FFmpegUnsupportedError, match=r"\(from PATH: .*; pip install imageio-ffmpeg, or set REEL_MODAL_FFMPEG"
    ):
        find_ffmpeg(Settings())


@pytest.mark.parametrize("body", ["not python", "print('avconv version 11.12')", "raise SystemExit(1)"])
def test_program_that_is_not_an_ffmpeg_is_named(body: str, tmp_path: Path) -> None:
    other = executable(tmp_path / "other", body)
    with pytest.raises(FFmpegNotFoundError, match=r"other' is not an ffmpeg; correct REEL_MODAL_FFMPEG"):
        find_ffmpeg(Settings(ffmpeg=other))


def test_file_that_does_not_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "ffmpeg").write_bytes(b"\0")
    with pytest.raises(FFmpegNotFoundError, match=r"does not run as ffmpeg .*; correct REEL_MODAL_FFMPEG"):
        find_ffmpeg(Settings(ffmpeg=str(tmp_path / "ffmpeg")))


def test_missing_ffmpeg_is_named() -> None:
    with pytest.raises(
        FFmpegNotFoundError, match=r"ffmpeg not found at .* \(from settings\); correct REEL_MODAL_FFMPEG"
    ):
        find_ffmpeg(Settings(ffmpeg="no/such/ffmpeg"))


def test_replaced_binary_is_checked_again(tmp_path: Path) -> None:
    path = renamed(tmp_path / "ffmpeg", "6.0")
    assert find_ffmpeg(Settings(ffmpeg=path)).version == (6, 0)
    renamed(tmp_path / "ffmpeg", "7.0")
    os.utime(path, ns=(1, 1))
    assert find_ffmpeg(Settings(ffmpeg=path)).version == (7, 0)


def doctor(**env: str) -> tuple[int, dict[str, dict[str, object]]]:
    command = [sys.executable, "-m", "reel_modal", "doctor", "--json"]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)
    return done.returncode, {finding["name"]: finding for finding in json.loads(done.stdout)}


def test_doctor_unsupported_ffmpeg_names_version_lack_and_cure(tmp_path: Path) -> None:
    old = without(tmp_path / "old", "-fps_mode", "Unrecognized option 'fps_mode'.")
    status, findings = doctor(REEL_MODAL_FFMPEG=old)
    assert status == 3
    assert not findings["ffmpeg"]["ok"]
    assert "4.4.6-static" in str(findings["ffmpeg"]["detail"])
    assert "the option -fps_mode" in str(findings["ffmpeg"]["detail"])
    assert str(findings["ffmpeg"]["cure"]).startswith("correct REEL_MODAL_FFMPEG, or unset it")


def test_ffmpeg_without_libx264_named_by_doctor_and_first_use(tmp_path: Path) -> None:
    """Such a build can read, and write with other encoders."""
    lacking = without(tmp_path / "ffmpeg", "libx264", "Unknown encoder 'libx264'")
    binary = find_ffmpeg(Settings(ffmpeg=lacking))
    with (
        pytest.raises(EncoderUnavailableError) as caught,
        FramePipe(tmp_path / "out.mp4", size=(64, 48), fps=25, encoder="libx264", settings=Settings(ffmpeg=lacking)),
    ):
        pytest.fail("the block was entered")
    assert f"in ffmpeg {binary} ({lacking}): Unknown encoder 'libx264'; use another encoder" in caught.value.message
    assert "REEL_MODAL_FFMPEG" in caught.value.message
    status, findings = doctor(REEL_MODAL_FFMPEG=lacking)
    assert (status, findings["ffmpeg"]["ok"], findings["encoder libx264"]["ok"]) == (3, True, False)
    assert findings["encoder libx264"]["detail"] == "Unknown encoder 'libx264'"


def test_doctor_names_default_and_hardware_ffmpeg(tmp_path: Path) -> None:
    on_path = renamed(tmp_path / "ffmpeg")
    status, findings = doctor(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}", REEL_MODAL_FFMPEG="")
    assert status == 0
    assert f"from imageio-ffmpeg: {REAL}" in str(findings["ffmpeg"]["detail"])
    assert f"{on_path}, for hardware encoding and decoding only" in str(findings["ffmpeg of PATH"]["detail"])
    status, findings = doctor(REEL_MODAL_FFMPEG=on_path)
    assert "outputs may differ" in str(findings["ffmpeg"]["detail"])


def test_ffmpeg_pin_equal_on_hosts_and_in_images() -> None:
    import tomllib

    from tests.run_function import SPECS

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    (pin,) = [word for word in project["project"]["dependencies"] if word.startswith("imageio-ffmpeg")]
    assert "==" in pin
    assert all(pin in spec.image.packages for spec in SPECS.values())
