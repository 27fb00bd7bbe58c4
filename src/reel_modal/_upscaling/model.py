"""Upscaling networks: bundled ones by name, others by path or by URL and hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from reel_modal._upscaling.bundled import BUNDLED
from reel_modal._upscaling.manifest import LONGEST_NAME, ModelKind, ModelManifest, Network
from reel_modal._upscaling.model_files import downloaded, read_file
from reel_modal.errors import ConfigError, InvalidModelError, MissingDependencyError, RequestError
from reel_modal.settings import BUNDLED_MODELS, MODEL_FAMILIES, ModelSource

__all__ = ["ModelKind", "ModelManifest", "UpscaleModel", "check_registered", "model_at"]


def check_registered(name: str | None, sha256: str | None, registered: Mapping[str, ModelSource]) -> None:
    """Check that the network of a request is bundled with this package or registered by the operator.

    Args:
        name: `UpscaleRequest.model`.
        sha256: `UpscaleRequest.model_sha256`; must equal the registered hash if the network is registered.
        registered: `Settings.models`.

    Raises:
        RequestError: The network is not known, or its hash differs; `path` is `model` or `model_sha256`.
    """
    known = (*MODEL_FAMILIES, *BUNDLED_MODELS, *registered)
    if name is not None and name not in known:
        raise RequestError(
            "model",
            f"is {name[:LONGEST_NAME]!r}, which is not a registered network; known are {', '.join(known)}. The"
            " operator registers others in Settings.models (REEL_MODAL_MODELS), on the host and where the job runs",
        )
    source = registered.get(name or "")
    if source is not None and sha256 is not None and sha256.lower() != source.sha256:
        raise RequestError("model_sha256", f"is not the SHA-256 that is registered for {name!r}; leave it out")


def model_at(location: str, *, sha256: str | None, allow_private_addresses: bool) -> tuple[str, ModelSource]:
    """Return a name and a source for a network given by path or URL on the command line.

    Args:
        location: Path, or http(s) URL.
        sha256: SHA-256 of the file, in hexadecimal; None computes it from the file of a path.
        allow_private_addresses: See `ModelSource`.

    Raises:
        RequestError: The location is a URL and the hash is missing; `path` is `model_sha256`.
        ConfigError: The URL or the hash is not valid.
        InvalidModelError: The file is not found or cannot be read.
    """
    if not _is_url(location):
        path = Path(location).absolute()
        sha256 = sha256 or hashlib.sha256(_read_path(path)).hexdigest()
        location = str(path)
    if sha256 is None:
        raise RequestError("model_sha256", "is missing; a model from a URL needs the sha256 of its file")
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", _name_of(location))
    return f"given-{stem}"[:64], ModelSource(location, sha256, allow_private_addresses)


@dataclass(frozen=True, slots=True)
class UpscaleModel:
    """A network with its manifest.

    Attributes:
        manifest: Properties of the network.
        network: The graphs that a session can run.
        sha256: SHA-256 of the file, in hexadecimal.
    """

    manifest: ModelManifest
    network: Network
    sha256: str

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        sha256: str | None = None,
        manifest: ModelManifest | None = None,
        cache: Path | None = None,
        allow_private_addresses: bool = False,
    ) -> Self:
        """Return a bundled network by its name, or another network by path or URL.

        Other networks are ONNX files of at most 128 MiB, of opset 12 or later, with one input and one output. Both
        are float32 (N, C, H, W) from 0 to 1, with one channel (luma) or three (RGB); any height and width must be
        possible. The manifest is taken from the argument, else from the file's metadata, else from the graph. They
        need the extra `models`.

        This method is for operators and the command line. A request names a network, see `Settings.models`.

        Args:
            source: A name in `BUNDLED_MODELS`, the path of a regular file, or an http(s) URL. A URL is downloaded
                without a proxy; only redirects to the same host are followed.
            sha256: SHA-256 of the file, in hexadecimal; required for a URL, optional for a path.
            manifest: Manifest, if the file's metadata and the graph are not sufficient.
            cache: Directory for downloads, named by their hash; default: the user's cache directory.
            allow_private_addresses: Whether the URL's host may have a private, loopback or link-local address.

        Raises:
            InvalidModelError: The file is not found, has another hash, or is not an upscaling network; the message
                names the problem.
            MissingDependencyError: The network is not bundled, and the package onnx is not installed.

        Example:
            >>> UpscaleModel.load("small-x2").manifest.scale
            2
        """
        name = str(source)
        bundled = BUNDLED.get(name)
        if bundled is not None and manifest is None:
            digest = _checked_hash(bundled.path.read_bytes(), name, sha256)
            return cls(bundled.manifest, bundled, digest)
        require_onnx()  # before anything is downloaded
        if _is_url(name):
            if sha256 is None:
                raise InvalidModelError("a model from a URL needs the sha256 of its file")
            try:
                registered = ModelSource(name, sha256, allow_private_addresses=allow_private_addresses)
            except ConfigError as error:
                raise InvalidModelError(str(error)) from error
            data = downloaded(registered, cache or _cache_folder())
        else:
            data = _read_path(Path(source) if bundled is None else bundled.path)
        return cls.from_bytes(data, name=_name_of(name), sha256=sha256, manifest=manifest)

    @classmethod
    def load_registered(cls, name: str, source: ModelSource, *, cache: Path | None = None) -> Self:
        """Return the network that the operator registered as `name`; see `load`."""
        require_onnx()  # before anything is downloaded
        data = downloaded(source, cache or _cache_folder()) if source.is_url else read_file(Path(source.source))
        return cls.from_bytes(data, name=name, sha256=source.sha256)

    @classmethod
    def from_bytes(
        cls, data: bytes, *, name: str, sha256: str | None = None, manifest: ModelManifest | None = None
    ) -> Self:
        """Return the network from the bytes of an ONNX file; see `load`."""
        require_onnx()
        from reel_modal._upscaling.user_network import read_network

        digest = _checked_hash(data, name, sha256)
        network = read_network(data, name=name, manifest=manifest)
        return cls(network.manifest, network, digest)


def require_onnx() -> None:
    """Raise MissingDependencyError if the package onnx is missing; bundled networks do not need it."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"a network that is not bundled needs the package onnx ({error}): pip install 'reel-modal[models]'"
        ) from error


def _checked_hash(data: bytes, name: str, sha256: str | None) -> str:
    """Return the SHA-256 of a file; raise InvalidModelError if another one is required."""
    digest = hashlib.sha256(data).hexdigest()
    # The message does not contain the actual hash: the file may be one that was not meant to be read.
    if sha256 is not None and sha256.lower() != digest:
        raise InvalidModelError(f"the file of the model {name!r} does not have the sha256 {sha256.lower()[:64]!r}")
    return digest


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _read_path(path: Path) -> bytes:
    if not path.exists():
        raise InvalidModelError(
            f"the model {str(path)!r} is not found; give the path of an ONNX file, an http(s) URL, or one of"
            f" {', '.join(BUNDLED_MODELS)}"
        )
    return read_file(path)


def _name_of(source: str) -> str:
    """Return the file stem of a path or URL as the name of a model."""
    stem = Path(urlsplit(source).path if _is_url(source) else source).stem
    return "".join(letter for letter in stem[:LONGEST_NAME] if letter.isprintable()) or "model"


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("reel_modal") / "models"
