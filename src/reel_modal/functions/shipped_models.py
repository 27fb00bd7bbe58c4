"""Registered networks that are files of the machine that deploys: they are sent to the containers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from reel_modal.config import Settings
from reel_modal.errors import ConfigError, InvalidModelError
from reel_modal.upscaling.model_files import read_file

__all__ = ["models_to_ship", "with_shipped_models"]

_FOLDER: Final = "reel_modal_models"
_ROOT: Final = "/root"
"""Where Modal puts the source of a function, and where it starts."""


def models_to_ship(settings: Settings) -> Mapping[str, str]:
    """Return where each file of a registered network goes in a container, by its path here.

    Raises:
        ConfigError: A file cannot be read or has another hash: nothing of it should be deployed.
    """
    remote = {}
    for name, source in settings.models.items():
        if source.is_url:
            continue
        try:
            found = hashlib.sha256(read_file(Path(source.source))).hexdigest()
        except InvalidModelError as error:
            raise ConfigError(f"REEL_MODAL_MODELS[{name!r}]: {error}") from error
        if found != source.sha256:
            raise ConfigError(
                f"REEL_MODAL_MODELS[{name!r}]: {source.source!r} does not have the sha256 that is given"
            )
        remote[source.source] = f"{_ROOT}/{_FOLDER}/{source.sha256}.onnx"
    return remote


def with_shipped_models(settings: Settings) -> Settings:
    """Return the settings of a container, in which the files that came along replace the paths of that machine."""
    folder = Path(__file__).resolve().parents[2] / _FOLDER
    models = dict(settings.models)
    for name, source in settings.models.items():
        shipped = folder / f"{source.sha256}.onnx"
        if not source.is_url and shipped.is_file():
            models[name] = replace(source, source=str(shipped))
    return replace(settings, models=models)
