"""Send registered networks that are local files of the deploying machine to the containers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from reel_modal._upscaling.model_files import read_file
from reel_modal.errors import ConfigError, InvalidModelError
from reel_modal.settings import Settings

__all__ = ["models_to_ship", "with_shipped_models"]

_FOLDER: Final = "reel_modal_models"
_ROOT: Final = "/root"
"""Folder in which Modal puts the source of a function and starts it."""


def models_to_ship(settings: Settings) -> Mapping[str, str]:
    """Return the path in the container of each registered network file, by its local path.

    Raises:
        ConfigError: A file cannot be read or has another hash, so it must not be deployed.
    """
    remote = {}
    for name, source in settings.models.items():
        if source.is_url:
            continue
        try:
            digest = hashlib.sha256(read_file(Path(source.source))).hexdigest()
        except InvalidModelError as error:
            raise ConfigError(f"REEL_MODAL_MODELS[{name!r}]: {error}") from error
        if digest != source.sha256:
            raise ConfigError(
                f"REEL_MODAL_MODELS[{name!r}]: {source.source!r} does not have the sha256 that is registered"
            )
        remote[source.source] = f"{_ROOT}/{_FOLDER}/{source.sha256}.onnx"
    return remote


def with_shipped_models(settings: Settings) -> Settings:
    """Return the settings of a container, with the paths of the deploying machine replaced by the sent files."""
    folder = Path(__file__).resolve().parents[2] / _FOLDER
    models = dict(settings.models)
    for name, source in settings.models.items():
        shipped = folder / f"{source.sha256}.onnx"
        if not source.is_url and shipped.is_file():
            models[name] = replace(source, source=str(shipped))
    return replace(settings, models=models)
