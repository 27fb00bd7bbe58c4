"""The Modal app, loaded by `modal deploy -m`: three thin wrappers of the functions that also run locally.

No module of this package imports it: a host looks up functions by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import modal
from modal.file_pattern_matcher import FilePatternMatcher

from reel_modal._support.modal_logging import hide_headers
from reel_modal.functions.contract import Contract, local_contract
from reel_modal.functions.shipped_models import models_to_ship
from reel_modal.functions.specs import (
    SHIPPED_SUFFIXES,
    FunctionSpec,
    ImageSpec,
    app_name,
    chosen_functions,
    load_specs,
)
from reel_modal.settings import JOB_VARIABLES, Settings

__all__ = ["app"]

hide_headers()  # in a container and in the process that publishes

_SPECS = load_specs()
_CHOSEN = chosen_functions()
# In a container, use the deployed contract: the container's environment could give another one.
_CONTRACT = local_contract() if modal.is_local() else Contract.from_json(os.environ["REEL_MODAL_CONTRACT"])

_SETTINGS = Settings.from_env()
app: modal.App = modal.App(app_name(_SETTINGS))


# Without `video` the driver's libraries for encoding and decoding are not mounted.
_GPU_ENVIRONMENT = {"NVIDIA_DRIVER_CAPABILITIES": "video,compute,utility"}


def _image(spec: ImageSpec) -> modal.Image:
    image = modal.Image.debian_slim(python_version=spec.python_version)
    if spec.apt:
        image = image.apt_install("--no-install-recommends", *spec.apt).env(_GPU_ENVIRONMENT)
    # By default, modal adds only Python files.
    ignored = ~FilePatternMatcher(*(f"**/*{end}" for end in SHIPPED_SUFFIXES))
    return image.pip_install(*spec.pip).add_local_python_source("reel_modal", ignore=ignored)


def _environment() -> dict[str, str | None]:
    # The container imports this module again and must define the same app; it also needs the same price list.
    names = ("REEL_MODAL_APP", "REEL_MODAL_ENVIRONMENT", "REEL_MODAL_RATES", *JOB_VARIABLES)
    same = {name: os.environ[name] for name in names if name in os.environ}
    return {**same, "REEL_MODAL_CONTRACT": _CONTRACT.to_json(), "ORT_DISABLE_TELEMETRY": "1"}


def _image_of(spec: FunctionSpec) -> modal.Image:
    image = _image(spec.image)
    if spec.name == "apply_upscale" and modal.is_local():
        for local, remote in models_to_ship(_SETTINGS).items():
            image = image.add_local_file(local, remote)
    return image


def _options(spec: FunctionSpec) -> dict[str, Any]:
    """Return `spec` as arguments of `modal.App.function`."""
    # A container sees all cores of its host, but has reserved only some of them.
    env: dict[str, str | None] = {**_environment(), "REEL_MODAL_CPU": f"{spec.cpu:g}"}
    if spec.gpu:
        # If a paid GPU does not start, fail instead of running slowly on the CPU.
        env["REEL_MODAL_UPSCALE_PROVIDER"] = "cuda"
    return {
        "image": _image_of(spec),
        "env": env,
        "gpu": list(spec.gpu) if len(spec.gpu) > 1 else next(iter(spec.gpu), None),
        "cpu": spec.cpu,
        "memory": spec.memory_mb,
        "timeout": spec.timeout_seconds,
        "startup_timeout": spec.startup_timeout_seconds,
        "retries": spec.retries,
        "max_containers": spec.max_containers,
        "scaledown_window": spec.scaledown_window_seconds,
        "secrets": [modal.Secret.from_name(name) for name in spec.secrets],
    }


def _function(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that registers the function on Modal if this deployment includes it."""
    return app.function(**_options(_SPECS[name])) if name in _CHOSEN else lambda function: function


@_function("render_overlay")
def render_overlay(request: dict[str, object]) -> dict[str, object]:
    """Draw highlights; `request` is `OverlayRequest.to_dict()`, the result is `RenderResult.to_dict()`."""
    from reel_modal.functions.container import run_in_container

    return run_in_container("render_overlay", request)


@_function("process_framing")
def process_framing(request: dict[str, object]) -> dict[str, object]:
    """Crop, trim and retime; `request` is `FramingRequest.to_dict()`, the result is `RenderResult.to_dict()`."""
    from reel_modal.functions.container import run_in_container

    return run_in_container("process_framing", request)


@_function("apply_upscale")
def apply_upscale(request: dict[str, object]) -> dict[str, object]:
    """Upscale; `request` is `UpscaleRequest.to_dict()`, the result is `RenderResult.to_dict()`."""
    from reel_modal.functions.container import run_in_container

    return run_in_container("apply_upscale", request)


@app.function(
    name=_CONTRACT.name,
    image=_image(ImageSpec()),
    env=_environment(),
    cpu=0.25,
    memory=512,
    timeout=60,
    max_containers=1,
    scaledown_window=2,
)
def contract() -> dict[str, str]:
    """Return the contract of this deployment, and the actual source, functions and ffmpeg of its containers."""
    from reel_modal.functions.container import container_facts

    return {"contract": _CONTRACT.to_json(), **container_facts()}
