"""Function specs on Modal: the table, environment variables and app names."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from tests.run_function import SPECS, load_specs

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.errors import ConfigError
from reel_modal.functions.specs import ImageSpec, app_name
from reel_modal.settings import Settings


def test_specs_have_the_measured_gpus_and_timeouts() -> None:
    assert {name: (spec.gpu, spec.timeout_seconds) for name, spec in SPECS.items()} == {
        "render_overlay": (("T4",), 600),
        "process_framing": ((), 600),
        "apply_upscale": (("A10G",), 900),
        "assemble_reel": ((), 600),
    }


def test_specs_set_cpu_and_memory_and_pin_packages() -> None:
    for name, spec in SPECS.items():
        assert spec.name == name
        assert spec.cpu >= 1
        assert spec.memory_mb >= 1024
        assert spec.retries == 0
        assert all("==" in requirement for requirement in spec.image.packages)
        assert not any(requirement.startswith("opencv-python==") for requirement in spec.image.packages)


def test_upscale_image_has_gpu_runtime_and_preflight_cpu_runtime() -> None:
    image = SPECS["apply_upscale"].image
    assert "onnxruntime-gpu[cuda,cudnn]==1.31.1" in image.packages
    assert "onnxruntime==1.31.1" in image.packages_without_gpu
    assert len(image.packages) == len(image.packages_without_gpu)
    assert not any("onnxruntime" in requirement for requirement in SPECS["render_overlay"].image.packages)


def test_image_installs_debian_ffmpeg_only_with_a_gpu() -> None:
    assert {name: spec.image.apt for name, spec in SPECS.items()} == {
        "render_overlay": ("ffmpeg",),
        "process_framing": (),
        "apply_upscale": ("ffmpeg",),
        "assemble_reel": (),
    }
    changed = load_specs({"REEL_MODAL_RENDER_OVERLAY_GPU": "none", "REEL_MODAL_PROCESS_FRAMING_GPU": "L4"})
    assert (changed["render_overlay"].image.apt, changed["process_framing"].image.apt) == ((), ("ffmpeg",))
    assert ImageSpec().apt == ()


@pytest.mark.skipif(sys.platform != "linux", reason="images are Linux")
def test_image_ffmpeg_version_equals_the_pinned_wheel() -> None:
    installed = find_ffmpeg(Settings(ffmpeg=None))
    assert installed.origin == "imageio-ffmpeg"
    assert ".".join(map(str, installed.version)) == ImageSpec().ffmpeg


def test_load_specs_without_variables_returns_defaults() -> None:
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
def test_load_specs_variable_changes_only_its_function(variable: str, text: str, changed: dict[str, object]) -> None:
    specs = load_specs({f"REEL_MODAL_APPLY_UPSCALE_{variable}": text})
    expected = dict(SPECS) | {"apply_upscale": replace(SPECS["apply_upscale"], **changed)}  # type: ignore[arg-type]
    assert specs == expected


def test_load_specs_secrets_apply_to_all_functions() -> None:
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
def test_load_specs_invalid_value_names_the_variable(variable: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_specs({variable: text})
    assert str(caught.value).startswith(f"{variable}={text!r}: ")


def test_load_specs_reads_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_app_name_differs_by_environment(environment: str | None, name: str) -> None:
    assert app_name(Settings(app="reels", environment=environment)) == name
