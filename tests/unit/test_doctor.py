"""What doctor finds: libraries by trying them, modal's token by modal's own rules and without a word of what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reel_modal import doctor
from reel_modal.config import Settings
from reel_modal.doctor import Finding, modal_token

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


def look(env: dict[str, str], **settings: object) -> Finding:
    finding = modal_token(Settings(**settings), env)  # type: ignore[arg-type]
    assert "-secret" not in str(finding.to_dict())
    return finding


def test_variables_win_and_the_app_is_named(config: Path) -> None:
    finding = look(VARIABLES | {"MODAL_CONFIG_PATH": str(config)}, environment="staging")
    assert finding.ok
    assert finding.detail == (
        "found in MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, not tried; jobs go to the app reel-modal-staging"
    )


def test_the_active_profile_of_the_file_is_named(config: Path) -> None:
    finding = look({"MODAL_CONFIG_PATH": str(config)})
    assert finding.ok
    assert f"profile 'work' of {config}" in finding.detail


@pytest.mark.parametrize("profile", ["half", "absent"])
def test_a_profile_without_a_token_is_a_lack_with_its_cure(config: Path, profile: str) -> None:
    finding = look({"MODAL_CONFIG_PATH": str(config), "MODAL_PROFILE": profile})
    assert not finding.ok
    assert "no token_secret" in finding.detail
    assert f"profile {profile!r}" in finding.detail
    assert "modal token new" in finding.cure


def test_half_of_it_may_come_from_the_environment(config: Path) -> None:
    env = {"MODAL_CONFIG_PATH": str(config), "MODAL_PROFILE": "half", "MODAL_TOKEN_SECRET": "as-secret"}
    assert look(env).ok


def test_without_a_token_only_a_host_that_uses_modal_lacks_something(tmp_path: Path) -> None:
    env = {"MODAL_CONFIG_PATH": str(tmp_path / "absent.toml")}
    assert [look(env, modal_enabled=enabled).required for enabled in (False, True)] == [False, True]
    assert not look(env).ok


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "modal.toml"
    path.write_text("not toml")
    assert str(path) in look({"MODAL_CONFIG_PATH": str(path)}).detail


def test_doctor_pyav_that_fails_names_the_versions_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(*_: object, **__: object) -> None:
        raise TypeError("open() got an unexpected keyword argument 'metadata_errors'")

    assert doctor._pyav(Settings()).ok
    monkeypatch.setattr(doctor, "probe", changed)
    finding = doctor._pyav(Settings())
    assert (finding.ok, finding.required) == (False, True)
    assert "TypeError: open() got an unexpected keyword argument" in finding.detail
    assert re.fullmatch(r"pip install 'av[<>=0-9.,]+'", finding.cure)


def test_doctor_pyav_that_loses_frames_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.InProcessDecoder, "frames", lambda _: iter(()))
    assert "0 of 5 frames" in doctor._pyav(Settings()).detail


def test_doctor_opencv_that_draws_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._opencv().ok
    monkeypatch.setattr(doctor.OverlayRenderer, "render", lambda *_: None)
    finding = doctor._opencv()
    assert (finding.ok, finding.required) == (False, True)
    assert "OpenCV does not draw on a frame" in finding.detail
