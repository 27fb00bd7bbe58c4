"""Where settings come from, and what a wrong variable says."""

from __future__ import annotations

import dataclasses
import math

import pytest

from reel_modal.config import Settings
from reel_modal.errors import ConfigError

TEXTS = {
    "app": "REEL_MODAL_APP",
    "environment": "REEL_MODAL_ENVIRONMENT",
    "store_url": "REEL_MODAL_STORE_URL",
    "ffmpeg": "REEL_MODAL_FFMPEG",
    "timings": "REEL_MODAL_TIMINGS",
}


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.modal_enabled, settings.app, settings.environment) == (False, "reel-modal", None)


@pytest.mark.parametrize(("name", "variable"), TEXTS.items())
def test_an_argument_beats_the_environment_and_that_the_default(name: str, variable: str) -> None:
    env = {variable: "from-env"}
    assert getattr(Settings.from_env(env, **{name: "argument"}), name) == "argument"  # type: ignore[arg-type]
    assert getattr(Settings.from_env(env), name) == "from-env"


@pytest.mark.parametrize(("name", "variable"), TEXTS.items())
def test_an_empty_variable_counts_as_unset(name: str, variable: str) -> None:
    assert getattr(Settings.from_env({variable: ""}), name) == getattr(Settings(), name)


def test_the_flag_and_the_budget_are_typed_and_an_argument_beats_them() -> None:
    env = {"MODAL_ENABLED": "true", "REEL_MODAL_BUDGET_USD": "0.25"}
    read = Settings.from_env(env)
    assert (read.modal_enabled, read.budget_usd) == (True, 0.25)
    given = Settings.from_env(env, modal_enabled=False, budget_usd=2.0)
    assert (given.modal_enabled, given.budget_usd) == (False, 2.0)


def test_an_argument_spares_a_wrong_variable() -> None:
    env = {"MODAL_ENABLED": "perhaps", "REEL_MODAL_BUDGET_USD": "much"}
    assert Settings.from_env(env, modal_enabled=True, budget_usd=1.0).modal_enabled


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_ENABLED", "on")
    monkeypatch.setenv("REEL_MODAL_APP", "studio")
    settings = Settings.from_env()
    assert (settings.modal_enabled, settings.app) == (True, "studio")
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "1", "yes", "on", " true ", "On\n"])
def test_spellings_that_enable_modal(word: str) -> None:
    assert Settings.from_env({"MODAL_ENABLED": word}).modal_enabled


@pytest.mark.parametrize("word", ["false", "False", "FALSE", "0", "no", "off", "", "  ", " Off "])
def test_spellings_that_keep_work_on_this_machine(word: str) -> None:
    assert not Settings.from_env({"MODAL_ENABLED": word}).modal_enabled


@pytest.mark.parametrize("word", ["tru", "2", "-1", "enabled", "None", "true,false", "1.0"])
def test_a_flag_that_is_neither_is_refused_with_the_spellings(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"MODAL_ENABLED": word})
    message = str(caught.value)
    assert f"MODAL_ENABLED={word!r}" in message
    assert all(cure in message for cure in ("true", "false", "1", "0", "yes", "no", "on", "off"))


@pytest.mark.parametrize("word", ["", "   "])
def test_an_empty_budget_sets_no_bound(word: str) -> None:
    assert Settings.from_env({"REEL_MODAL_BUDGET_USD": word}).budget_usd is None


@pytest.mark.parametrize(
    ("word", "cure"),
    [
        ("much", "such as 0.25"),
        ("$5", "such as 0.25"),
        ("0,25", "such as 0.25"),
        ("0", "positive, finite"),
        ("-1", "positive, finite"),
        ("nan", "positive, finite"),
        ("inf", "positive, finite"),
        ("1e999", "positive, finite"),
    ],
)
def test_a_wrong_budget_is_refused_with_its_variable_and_the_cure(word: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"REEL_MODAL_BUDGET_USD": word})
    assert f"REEL_MODAL_BUDGET_USD={word!r}" in str(caught.value)
    assert cure in str(caught.value)
    assert "US dollars" in str(caught.value)


@pytest.mark.parametrize("dollars", [0, -1, -0.01, math.nan, math.inf])
def test_a_budget_that_is_an_argument_is_checked_like_the_variable(dollars: float) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"REEL_MODAL_BUDGET_USD": "0.25"}, budget_usd=dollars)
    assert f"budget_usd={dollars!r} must be a positive, finite number of US dollars" in str(caught.value)


def test_settings_cannot_be_changed_behind_a_running_job() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().app = "other"  # type: ignore[misc]
