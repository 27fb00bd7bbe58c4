"""Sources of settings, and error messages for wrong values and variables."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from reel_modal.errors import ConfigError
from reel_modal.settings import MediaLimits, ModelSource, Settings, usable_cores

SHA256 = "ab" * 32
FACE = ModelSource("https://models.example.org/face.onnx", SHA256)

VARIABLES: dict[str, tuple[str, str, Any]] = {
    "modal_enabled": ("MODAL_ENABLED", "true", True),
    "app": ("REEL_MODAL_APP", "studio", "studio"),
    "environment": ("REEL_MODAL_ENVIRONMENT", "staging", "staging"),
    "store_url": ("REEL_MODAL_STORE_URL", "s3://reels/media", "s3://reels/media"),
    "ffmpeg": ("REEL_MODAL_FFMPEG", "/opt/ffmpeg", "/opt/ffmpeg"),
    "budget_usd": ("REEL_MODAL_BUDGET_USD", "0.25", 0.25),
    "timings": ("REEL_MODAL_TIMINGS", "off", "off"),
    "on_drift": ("REEL_MODAL_ON_DRIFT", "ERROR", "error"),
    "upscale_provider": ("REEL_MODAL_UPSCALE_PROVIDER", "cuda", "cuda"),
    "cpu": ("REEL_MODAL_CPU", "2.5", 2.5),
    "stall_seconds": ("REEL_MODAL_STALL_SECONDS", "2.5", 2.5),
    "models": (
        "REEL_MODAL_MODELS",
        json.dumps({"face": {"source": FACE.source, "sha256": SHA256.upper()}}),
        {"face": FACE},
    ),
}
"""A non-default value of each setting: its variable, the variable's text, and the parsed value."""

LIMITS: dict[str, tuple[str, str, Any]] = {
    "max_width_px": ("REEL_MODAL_MAX_WIDTH_PX", "4096", 4096),
    "max_height_px": ("REEL_MODAL_MAX_HEIGHT_PX", "2304", 2304),
    "max_frame_pixels": ("REEL_MODAL_MAX_FRAME_PIXELS", "9437184", 9437184),
    "max_duration_seconds": ("REEL_MODAL_MAX_DURATION_SECONDS", "inf", math.inf),
}

ARGUMENTS: dict[str, Any] = {
    "modal_enabled": False,
    "app": "argument",
    "environment": "test",
    "store_url": "memory://argument",
    "ffmpeg": "argument",
    "budget_usd": 2.0,
    "timings": "argument",
    "on_drift": "off",
    "upscale_provider": "cpu",
    "cpu": 3.0,
    "stall_seconds": 7.0,
    "models": {"argument": FACE},
    "limits": MediaLimits(max_width_px=640),
}


def config_error(build: Any, *arguments: Any, **fields: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(*arguments, **fields)
    return str(caught.value)


def test_settings_of_an_empty_environment_are_the_defaults() -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.modal_enabled, settings.app, settings.environment) == (False, "reel-modal", None)


def test_from_env_takes_every_field() -> None:
    fields = {known.name for known in dataclasses.fields(Settings)}
    assert set(inspect.signature(Settings.from_env).parameters) == {*fields, "env"}
    assert fields == {*VARIABLES, "limits"} == set(ARGUMENTS)
    assert {known.name for known in dataclasses.fields(MediaLimits)} == set(LIMITS)


@pytest.mark.parametrize("name", VARIABLES)
def test_from_env_argument_beats_variable_beats_default(name: str) -> None:
    variable, text, value = VARIABLES[name]
    assert getattr(Settings.from_env({variable: text}), name) == value != getattr(Settings(), name)
    assert getattr(Settings.from_env({variable: text}, **{name: ARGUMENTS[name]}), name) == ARGUMENTS[name]
    assert getattr(Settings.from_env({variable: text}, **{name: None}), name) == value


@pytest.mark.parametrize("name", LIMITS)
def test_from_env_reads_each_limit(name: str) -> None:
    variable, text, value = LIMITS[name]
    assert Settings.from_env({variable: text}).limits == dataclasses.replace(MediaLimits(), **{name: value})
    assert Settings.from_env({variable: text}, limits=ARGUMENTS["limits"]).limits == ARGUMENTS["limits"]


@pytest.mark.parametrize("variable", [row[0] for row in (*VARIABLES.values(), *LIMITS.values())])
@pytest.mark.parametrize("blank", ["", "  \n"])
def test_from_env_blank_variable_counts_as_unset(variable: str, blank: str) -> None:
    assert Settings.from_env({variable: blank}) == Settings()


def test_from_env_argument_ignores_a_wrong_variable() -> None:
    wrong = {variable: "nonsense" for variable, _, _ in VARIABLES.values()}
    arguments = {name: value for name, value in ARGUMENTS.items() if name != "limits"}
    assert Settings.from_env(wrong, **arguments) == Settings(**arguments)


def test_from_env_reads_the_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_ENABLED", "on")
    monkeypatch.setenv("REEL_MODAL_APP", "studio")
    settings = Settings.from_env()
    assert (settings.modal_enabled, settings.app) == (True, "studio")
    assert Settings.from_env({}) == Settings()


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "1", "yes", "on", " true ", "On\n"])
def test_modal_enabled_spellings_of_true(word: str) -> None:
    assert Settings.from_env({"MODAL_ENABLED": word}).modal_enabled


@pytest.mark.parametrize("word", ["false", "False", "FALSE", "0", "no", "off", "", "  ", " Off "])
def test_modal_enabled_spellings_of_false(word: str) -> None:
    assert not Settings.from_env({"MODAL_ENABLED": word}).modal_enabled


@pytest.mark.parametrize("word", ["tru", "2", "-1", "enabled", "None", "true,false", "1.0"])
def test_modal_enabled_other_word_lists_valid_spellings(word: str) -> None:
    message = config_error(Settings.from_env, {"MODAL_ENABLED": word})
    assert f"MODAL_ENABLED={word!r}" in message
    assert all(cure in message for cure in ("true", "false", "1", "0", "yes", "no", "on", "off"))


@pytest.mark.parametrize(
    ("variable", "text", "cure"),
    [
        ("REEL_MODAL_BUDGET_USD", "much", "such as 0.25"),
        ("REEL_MODAL_BUDGET_USD", "0,25", "such as 0.25"),
        ("REEL_MODAL_BUDGET_USD", "0", "positive, finite number of US dollars"),
        ("REEL_MODAL_BUDGET_USD", "nan", "positive, finite number of US dollars"),
        ("REEL_MODAL_BUDGET_USD", "1e999", "positive, finite number of US dollars"),
        ("REEL_MODAL_APP", "my app", "1 to 52 letters"),
        ("REEL_MODAL_APP", "a" * 53, "1 to 52 letters"),
        ("REEL_MODAL_ENVIRONMENT", "prod", "production, staging, development, test"),
        ("REEL_MODAL_ON_DRIFT", "ignore", "warn, error, off"),
        ("REEL_MODAL_UPSCALE_PROVIDER", "gpu", "cpu, cuda"),
        ("REEL_MODAL_STALL_SECONDS", "soon", "number of seconds"),
        ("REEL_MODAL_STALL_SECONDS", "inf", "at most 86400"),
        ("REEL_MODAL_STALL_SECONDS", "-1", "above 0"),
        ("REEL_MODAL_MAX_WIDTH_PX", "8e3", "whole number"),
        ("REEL_MODAL_MAX_WIDTH_PX", "0", "1 to 268435456"),
        ("REEL_MODAL_MAX_FRAME_PIXELS", "9" * 5000, "whole number"),
        ("REEL_MODAL_MAX_DURATION_SECONDS", "nan", "above 0"),
    ],
)
def test_from_env_wrong_variable_is_named_with_the_cure(variable: str, text: str, cure: str) -> None:
    message = config_error(Settings.from_env, {variable: text})
    assert f"{variable}={text!r}" in message
    assert cure in message


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("modal_enabled", "false", "True or False"),
        ("modal_enabled", 1, "True or False"),
        ("app", "", "1 to 52 letters"),
        ("app", "ap-0123456789abcdefghijkl", "name of a Modal app"),
        ("environment", "", "use one of production"),
        ("ffmpeg", "", "None selects the default"),
        ("ffmpeg", Path("ffmpeg"), "as a string"),
        ("timings", "a\0b", "as a string"),
        ("budget_usd", 0, "positive, finite number of US dollars"),
        ("budget_usd", math.nan, "positive, finite number of US dollars"),
        ("budget_usd", math.inf, "positive, finite number of US dollars"),
        ("budget_usd", "5", "positive, finite number of US dollars"),
        ("budget_usd", True, "positive, finite number of US dollars"),
        ("on_drift", "Warn", "warn, error, off"),
        ("on_drift", None, "warn, error, off"),
        ("upscale_provider", "tpu", "cpu, cuda"),
        ("stall_seconds", None, "above 0"),
        ("stall_seconds", 10**400, "at most 86400"),
        ("limits", None, "MediaLimits"),
    ],
)
def test_settings_wrong_field_is_named_with_the_cure(name: str, value: Any, cure: str) -> None:
    for message in (
        config_error(Settings, **{name: value}),
        config_error(dataclasses.replace, Settings(), **{name: value}),
    ):
        assert message.startswith(f"{name}={value!r} ")
        assert cure in message


@pytest.mark.parametrize("url", ["", "/srv/media", "C:\\media", "s3:bucket", "file:///srv/\nmedia", 3])
def test_store_url_invalid_is_refused(url: Any) -> None:
    assert "store_url is not a valid storage URL; use file:///folder" in config_error(Settings, store_url=url)


def test_store_url_error_never_repeats_the_url() -> None:
    url = "user:hunter2@bucket"
    assert "hunter2" not in config_error(Settings, store_url=url)
    assert "hunter2" not in config_error(Settings.from_env, {"REEL_MODAL_STORE_URL": url})


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1, "8192", None, True, math.nan])
def test_limits_wrong_value_is_named(name: str, value: Any) -> None:
    assert config_error(MediaLimits, **{name: value}).startswith(f"limits.{name}={value!r} must be")


def test_limits_above_ffmpegs_maximum_are_refused() -> None:
    assert "268435456" in config_error(MediaLimits, max_frame_pixels=(1 << 28) + 1)
    assert MediaLimits(max_frame_pixels=1 << 28, max_duration_seconds=math.inf).max_frame_pixels == 1 << 28


@pytest.mark.parametrize(
    ("source", "cure"),
    [
        ("net.onnx", "absolute path"),
        ("../net.onnx", "absolute path"),
        ("", "a path or an http(s) URL"),
        (None, "a path or an http(s) URL"),
        ("/a\0b", "a path or an http(s) URL"),
        ("ftp://host/net.onnx", "absolute path"),
        ("https://", "not a valid URL"),
        ("https://host:99999/net.onnx", "not a valid URL"),
        ("https://ho st/net.onnx", "characters that are not valid in a URL"),
        ("https://host/net.onnx\r\nX: y", "characters that are not valid in a URL"),
        ("https://user:hunter2@host/net.onnx", "a user or a password"),
        ("https://[::1/net.onnx?key=hunter2", "not a valid URL"),
    ],
)
def test_model_source_invalid_is_refused(source: Any, cure: str) -> None:
    message = config_error(ModelSource, source, SHA256)
    assert cure in message
    assert "hunter2" not in message


@pytest.mark.parametrize("sha256", ["", "ab", "g" * 64, "ab" * 33, None, 7])
def test_model_source_invalid_sha256_is_refused(sha256: Any) -> None:
    assert "not a valid SHA-256 (64 hexadecimal digits)" in config_error(ModelSource, "/net.onnx", sha256)


def test_model_source_accepts_path_and_normalizes_hash(tmp_path: Path) -> None:
    assert ModelSource(tmp_path, SHA256.upper()) == ModelSource(str(tmp_path), SHA256)  # type: ignore[arg-type]


def test_model_source_never_shows_credentials() -> None:
    source = ModelSource("https://host:8443/tenant/face.onnx?X-Signature=hunter2", SHA256)
    assert (source.shown, "hunter2" in repr(Settings(models={"face": source}))) == ("https://host:8443/…", False)


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a" * 65, "https://x", "fäce", 3])
def test_models_invalid_name_is_refused(name: Any) -> None:
    assert "1 to 64 letters" in config_error(Settings, models={name: FACE})


@pytest.mark.parametrize("name", ["small", "large", "small-x2", "large-x4"])
def test_models_bundled_name_is_refused(name: str) -> None:
    assert "use another name" in config_error(Settings, models={name: FACE})


@pytest.mark.parametrize("value", [None, [FACE], "face", {"face": "/net.onnx"}, {"face": ("/net.onnx", SHA256)}])
def test_models_of_another_type_are_refused(value: Any) -> None:
    assert config_error(Settings, models=value).startswith("models")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        "[]",
        '{"face": "hunter2"}',
        '{"face": {"source": "https://h/x?hunter2"}}',
        '{"face": {"source": "https://h/x?hunter2", "sha256": "no"}}',
        '{"face": {"source": "https://a:hunter2@h/x", "sha256": "HASH"}}',
        '{"face": {"source": "https://h/x?hunter2", "sha256": "HASH", "more": 1}}',
    ],
)
def test_models_unreadable_variable_is_named_without_its_text(text: str) -> None:
    message = config_error(Settings.from_env, {"REEL_MODAL_MODELS": text.replace("HASH", SHA256)})
    assert message.startswith("REEL_MODAL_MODELS")
    assert "hunter2" not in message


def test_models_are_copied_and_picklable() -> None:
    given = {"face": FACE}
    settings = Settings(models=given)
    given.clear()
    assert settings.models == {"face": FACE}
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - pickled in the same line
    assert hash(settings) == hash(dataclasses.replace(settings))


def test_documentation_names_every_variable() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "environments.md").read_text(encoding="utf-8")
    assert [row[0] for row in (*VARIABLES.values(), *LIMITS.values()) if f"`{row[0]}`" not in page] == []


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().app = "other"  # type: ignore[misc]


def test_cores_follow_the_reservation_then_the_affinity() -> None:
    assert Settings.from_env({"REEL_MODAL_CPU": "2.5"}).cores == 3
    assert Settings.from_env({"REEL_MODAL_CPU": "0.125"}).cores == 1
    assert Settings.from_env({"REEL_MODAL_CPU": " "}) == Settings()
    assert Settings().cores == usable_cores() >= 1
    assert [Settings(cpu=cpu).decoder_threads for cpu in (1, 2, 4)] == [1, 3, 5]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux gives a process fewer CPUs")
def test_usable_cores_counts_allowed_cpus() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert (usable_cores(), Settings().cores) == (1, 1)
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("text", ["0", "-1", "many", "nan", "inf", "1e9"])
def test_cpu_invalid_number_of_cores_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"REEL_MODAL_CPU='{text}' is not a number of cores"):
        Settings.from_env({"REEL_MODAL_CPU": text})
