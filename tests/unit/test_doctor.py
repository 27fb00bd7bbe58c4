"""The doctor command: libraries are tested by use; Modal's token is found by Modal's rules and never shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reel_modal.cli import doctor
from reel_modal.cli.doctor import Finding, modal_token
from reel_modal.settings import Settings

VARIABLES = {"MODAL_TOKEN_ID": "ak-secret", "MODAL_TOKEN_SECRET": "as-secret"}
FILE = """
[work]
token_id = "ak-secret"
token_secret = "as-secret"
active = true

[half]
token_id = "ak-secret"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "modal.toml"
    path.write_text(FILE)
    return path


def check_token(env: dict[str, str], **settings: object) -> Finding:
    finding = modal_token(Settings(**settings), env)  # type: ignore[arg-type]
    assert "-secret" not in str(finding.to_dict())
    return finding


def test_modal_token_variables_come_first_and_app_is_named(config: Path) -> None:
    finding = check_token(VARIABLES | {"MODAL_CONFIG_PATH": str(config)}, environment="staging")
    assert finding.ok
    assert finding.detail == (
        "found in MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, not verified; jobs go to the app reel-modal-staging"
    )


def test_modal_token_active_profile_is_named(config: Path) -> None:
    finding = check_token({"MODAL_CONFIG_PATH": str(config)})
    assert finding.ok
    assert f"profile 'work' of {config}" in finding.detail


@pytest.mark.parametrize("profile", ["half", "absent"])
def test_modal_token_incomplete_profile_shows_the_cure(config: Path, profile: str) -> None:
    finding = check_token({"MODAL_CONFIG_PATH": str(config), "MODAL_PROFILE": profile})
    assert not finding.ok
    assert "token_secret not found" in finding.detail
    assert f"profile {profile!r}" in finding.detail
    assert "modal token new" in finding.cure


def test_modal_token_may_be_split_over_file_and_environment(config: Path) -> None:
    env = {"MODAL_CONFIG_PATH": str(config), "MODAL_PROFILE": "half", "MODAL_TOKEN_SECRET": "as-secret"}
    assert check_token(env).ok


def test_modal_token_missing_is_required_only_if_enabled(tmp_path: Path) -> None:
    env = {"MODAL_CONFIG_PATH": str(tmp_path / "absent.toml")}
    assert [check_token(env, modal_enabled=enabled).required for enabled in (False, True)] == [False, True]
    assert not check_token(env).ok


def test_modal_token_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "modal.toml"
    path.write_text("not toml")
    assert str(path) in check_token({"MODAL_CONFIG_PATH": str(path)}).detail


def test_doctor_failing_pyav_names_working_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_: object, **__: object) -> None:
        raise TypeError("open() got an unexpected keyword argument 'metadata_errors'")

    assert doctor._pyav(Settings()).ok
    monkeypatch.setattr(doctor, "probe", changed)
    finding = doctor._pyav(Settings())
    assert (finding.ok, finding.required) == (False, True)
    assert "TypeError: open() got an unexpected keyword argument" in finding.detail
    assert re.fullmatch(r"pip install 'av[<>=0-9.,]+'", finding.cure)


def test_doctor_pyav_losing_frames_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.InProcessDecoder, "frames", lambda _: iter(()))
    assert "0 of 5 frames" in doctor._pyav(Settings()).detail


def test_doctor_opencv_drawing_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._opencv().ok
    monkeypatch.setattr(doctor.OverlayRenderer, "render", lambda *_: None)
    finding = doctor._opencv()
    assert (finding.ok, finding.required) == (False, True)
    assert "OpenCV does not draw on a frame" in finding.detail
