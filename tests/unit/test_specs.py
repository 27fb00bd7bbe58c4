"""Where functions run on Modal: the table, what the environment changes in it, the app's name."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from reel_modal.config import Settings
from reel_modal.errors import ConfigError
from reel_modal.functions.specs import SPECS, ImageSpec, app_name, load_specs
from reel_modal.media import find_ffmpeg


def test_the_table_holds_the_three_functions_with_the_gpus_that_were_measured() -> None:
    assert {name: (spec.gpu, spec.timeout_seconds) for name, spec in SPECS.items()} == {
        "render_overlay": (("T4",), 600),
        "process_framing": ((), 600),
        "apply_upscale": (("A10G",), 900),
    }


def test_cpu_and_memory_are_stated_and_every_package_is_pinned() -> None:
    for name, spec in SPECS.items():
        assert spec.name == name
        assert spec.cpu >= 1
        assert spec.memory_mb >= 1024
        assert spec.retries == 0
        assert all("==" in requirement for requirement in spec.image.pip)
        assert not any(requirement.startswith("opencv-python==") for requirement in spec.image.pip)


def test_the_image_of_the_gpu_has_onnx_runtime_for_it_and_a_trial_the_one_for_cpus() -> None:
    image = SPECS["apply_upscale"].image
    assert "onnxruntime-gpu[cuda,cudnn]==1.31.1" in image.pip
    assert "onnxruntime==1.31.1" in image.pip_without_gpu
    assert len(image.pip) == len(image.pip_without_gpu)
    assert not any("onnxruntime" in requirement for requirement in SPECS["render_overlay"].image.pip)


def test_image_has_ffmpeg_of_debian_only_with_a_gpu() -> None:
    assert {name: spec.image.apt for name, spec in SPECS.items()} == {
        "render_overlay": ("ffmpeg",),
        "process_framing": (),
        "apply_upscale": ("ffmpeg",),
    }
    changed = load_specs({"REEL_MODAL_RENDER_OVERLAY_GPU": "none", "REEL_MODAL_PROCESS_FRAMING_GPU": "L4"})
    assert (changed["render_overlay"].image.apt, changed["process_framing"].image.apt) == ((), ("ffmpeg",))
    assert ImageSpec().apt == ()


@pytest.mark.skipif(sys.platform != "linux", reason="images are Linux")
def test_image_ffmpeg_is_the_version_in_the_pinned_wheel() -> None:
    found = find_ffmpeg(Settings(ffmpeg=None))
    assert found.origin == "imageio-ffmpeg"
    assert ".".join(map(str, found.version)) == ImageSpec().ffmpeg


def test_without_variables_the_table_is_as_it_is() -> None:
    assert load_specs({}) == dict(SPECS)
    assert load_specs({"REEL_MODAL_RENDER_OVERLAY_GPU": "  "}) == dict(SPECS)


@pytest.mark.parametrize(
    ("variable", "text", "changed"),
    [
        ("GPU", "L4", {"gpu": ("L4",)}),
        ("GPU", " L40S , A10G:2 ", {"gpu": ("L40S", "A10G:2")}),
        ("GPU", "none", {"gpu": (), "image": replace(SPECS["apply_upscale"].image, apt=())}),
        ("GPU", "None", {"gpu": (), "image": replace(SPECS["apply_upscale"].image, apt=())}),
        ("CPU", "0.5", {"cpu": 0.5}),
        ("MEMORY_MB", "16384", {"memory_mb": 16384}),
        ("TIMEOUT_SECONDS", "1200", {"timeout_seconds": 1200}),
        ("MAX_CONTAINERS", "1", {"max_containers": 1}),
    ],
)
def test_a_variable_changes_one_function_and_no_other(variable: str, text: str, changed: dict[str, object]) -> None:
    specs = load_specs({f"REEL_MODAL_APPLY_UPSCALE_{variable}": text})
    expected = dict(SPECS) | {"apply_upscale": replace(SPECS["apply_upscale"], **changed)}  # type: ignore[arg-type]
    assert specs == expected


def test_secrets_are_those_of_all_functions() -> None:
    specs = load_specs({"REEL_MODAL_SECRETS": "storage, tracing"})
    assert {spec.secrets for spec in specs.values()} == {("storage", "tracing")}
    assert {spec.secrets for spec in load_specs({"REEL_MODAL_SECRETS": "none"}).values()} == {()}


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("REEL_MODAL_RENDER_OVERLAY_GPU", "L4,"),
        ("REEL_MODAL_RENDER_OVERLAY_GPU", ","),
        ("REEL_MODAL_RENDER_OVERLAY_CPU", "four"),
        ("REEL_MODAL_RENDER_OVERLAY_CPU", "0"),
        ("REEL_MODAL_RENDER_OVERLAY_CPU", "nan"),
        ("REEL_MODAL_PROCESS_FRAMING_CPU", "1000"),
        ("REEL_MODAL_PROCESS_FRAMING_MEMORY_MB", "4 GB"),
        ("REEL_MODAL_PROCESS_FRAMING_MEMORY_MB", "4"),
        ("REEL_MODAL_APPLY_UPSCALE_TIMEOUT_SECONDS", "0"),
        ("REEL_MODAL_APPLY_UPSCALE_TIMEOUT_SECONDS", "86401"),
        ("REEL_MODAL_APPLY_UPSCALE_MAX_CONTAINERS", "-1"),
        ("REEL_MODAL_SECRETS", "a,,b"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_name(variable: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_specs({variable: text})
    assert str(caught.value).startswith(f"{variable}={text!r}: ")


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_GPU", "H100")
    assert load_specs()["render_overlay"].gpu == ("H100",)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (None, "reels"),
        ("production", "reels"),
        ("staging", "reels-staging"),
        ("development", "reels-development"),
        ("test", "reels-test"),
    ],
)
def test_each_environment_has_an_app_of_its_own(environment: str | None, name: str) -> None:
    assert app_name(Settings(app="reels", environment=environment)) == name
