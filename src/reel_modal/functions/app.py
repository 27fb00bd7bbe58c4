"""The Modal app: three thin functions over the bodies that run locally as well. `modal deploy -m` reads it.

It must hold no work of its own, and nothing of this package imports it: a host looks functions up by name.
"""

from __future__ import annotations

import os
from typing import Any

import modal

from reel_modal.config import Settings
from reel_modal.functions.specs import FunctionSpec, ImageSpec, app_name, load_specs

__all__ = ["app"]

_SPECS = load_specs()

app: modal.App = modal.App(app_name(Settings.from_env()))


def _image(spec: ImageSpec) -> modal.Image:
    return (
        modal.Image.debian_slim(python_version=spec.python_version)
        .apt_install(*spec.apt)
        .pip_install(*spec.pip)
        .add_local_python_source("reel_modal")
    )


def _options(spec: FunctionSpec) -> dict[str, Any]:
    """Return the table's row in modal's words."""
    # The container imports this module again, and must come to the same app.
    same = {name: os.environ[name] for name in ("REEL_MODAL_APP", "REEL_MODAL_ENVIRONMENT") if name in os.environ}
    return {
        "image": _image(spec.image),
        "env": same,
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


@app.function(**_options(_SPECS["render_overlay"]))
def render_overlay(request: dict[str, object]) -> dict[str, object]:
    """Draw highlights; `request` is `OverlayRequest.to_dict()`, the result is `RenderResult.to_dict()`."""
    from reel_modal.functions.container import run_in_container

    return run_in_container("render_overlay", request)


@app.function(**_options(_SPECS["process_framing"]))
def process_framing(request: dict[str, object]) -> dict[str, object]:
    """Crop, trim and retime; `request` is `FramingRequest.to_dict()`, the result is `RenderResult.to_dict()`."""
    from reel_modal.functions.container import run_in_container

    return run_in_container("process_framing", request)


@app.function(**_options(_SPECS["apply_upscale"]))
def apply_upscale(request: dict[str, object]) -> dict[str, object]:
    """Upscale; `request` is `UpscaleRequest.to_dict()`, the result is `RenderResult.to_dict()`."""
    from reel_modal.functions.container import run_in_container

    return run_in_container("apply_upscale", request)
