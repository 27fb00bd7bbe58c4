"""Upscaling networks: bundled ones by name, others by path or by URL and hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias, cast, get_args
from urllib.parse import urlsplit

from reel_modal._upscaling.graph import Precision, deployed, unwrap
from reel_modal._upscaling.model_files import downloaded, read_file
from reel_modal._upscaling.onnx_graph import Graph
from reel_modal._upscaling.receptive_field import NotMeasurableError, receptive_field
from reel_modal.errors import ConfigError, InvalidModelError, RequestError
from reel_modal.settings import BUNDLED_MODELS, MODEL_FAMILIES, ModelSource

__all__ = ["ModelKind", "ModelManifest", "UpscaleModel", "check_registered", "model_at"]

ModelKind: TypeAlias = Literal["luma", "rgb"]
"""Input of a network: the luma plane, or the three planes red, green, blue."""

_PREFIX: Final = "reel_modal.manifest."
_KINDS: Final[Mapping[int, ModelKind]] = {1: "luma", 3: "rgb"}
_MOST_TIMES: Final = 16
_MOST_HALO: Final = 4096
_LONGEST_NAME: Final = 128


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
            f"is {name[:_LONGEST_NAME]!r}, which is not a registered network; known are {', '.join(known)}. The"
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
class ModelManifest:
    """Properties of a network.

    Attributes:
        kind: Input of the network, `luma` or `rgb`.
        scale: Factor between input and output, along each side, 1 to 16.
        halo: Input pixels around a tile that its output depends on, 0 to 4096.
        name: Name in the result of a job, 1 to 128 printable characters.
        licence: Licence of the weights; empty if unknown.

    Raises:
        InvalidModelError: A value is out of range.
    """

    kind: ModelKind
    scale: int
    halo: int
    name: str
    licence: str = ""

    def __post_init__(self) -> None:
        if not (0 < len(self.name) <= _LONGEST_NAME and self.name.isprintable()):
            raise InvalidModelError(f"the name of a model must be 1 to {_LONGEST_NAME} printable characters")
        if self.kind not in get_args(ModelKind):
            raise InvalidModelError(f"the kind of the model {self.name!r} must be luma or rgb")
        for field, value, least, most in (("scale", self.scale, 1, _MOST_TIMES), ("halo", self.halo, 0, _MOST_HALO)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise InvalidModelError(
                    f"the {field} of the model {self.name!r} must be a whole number, {least} to {most}"
                )

    def to_metadata(self) -> dict[str, str]:
        """Return the manifest as metadata entries of an ONNX file."""
        return {_PREFIX + key: str(getattr(self, key)) for key in self.__slots__}


@dataclass(frozen=True, slots=True)
class UpscaleModel:
    """A network with its manifest.

    Attributes:
        manifest: Properties of the network.
        core: Graph of the network; input and output are floats from 0 to 1.
        sha256: SHA-256 of the file, in hexadecimal.
    """

    manifest: ModelManifest
    core: Graph
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
        possible. The manifest is taken from the argument, else from the file's metadata, else from the graph.

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

        Example:
            >>> UpscaleModel.load("small-x2").manifest.scale
            2
        """
        name = str(source)
        if name in BUNDLED_MODELS:
            data = resources.files("reel_modal._upscaling").joinpath("models", f"{name}.onnx").read_bytes()
            return cls.from_bytes(data, name=name, sha256=sha256, manifest=manifest)
        if _is_url(name):
            if sha256 is None:
                raise InvalidModelError("a model from a URL needs the sha256 of its file")
            try:
                registered = ModelSource(name, sha256, allow_private_addresses=allow_private_addresses)
            except ConfigError as error:
                raise InvalidModelError(str(error)) from error
            data = downloaded(registered, cache or _cache_folder())
        else:
            data = _read_path(Path(source))
        return cls.from_bytes(data, name=_name_of(name), sha256=sha256, manifest=manifest)

    @classmethod
    def load_registered(cls, name: str, source: ModelSource, *, cache: Path | None = None) -> Self:
        """Return the network that the operator registered as `name`; see `load`."""
        data = downloaded(source, cache or _cache_folder()) if source.is_url else read_file(Path(source.source))
        return cls.from_bytes(data, name=name, sha256=source.sha256)

    @classmethod
    def from_bytes(
        cls, data: bytes, *, name: str, sha256: str | None = None, manifest: ModelManifest | None = None
    ) -> Self:
        """Return the network from the bytes of an ONNX file; see `load`."""
        digest = hashlib.sha256(data).hexdigest()
        # The message does not contain the actual hash: the file may be one that was not meant to be read.
        if sha256 is not None and sha256.lower() != digest:
            raise InvalidModelError(
                f"the file of the model {name!r} does not have the sha256 {sha256.lower()[:64]!r}"
            )
        core = unwrap(Graph.parse(data))
        manifest = manifest or _manifest(core, name)
        channels = core.inputs[0].shape[1]
        if channels in _KINDS and _KINDS[cast("int", channels)] != manifest.kind:
            raise InvalidModelError(
                f"the model {name!r} has {channels} input channels, which does not match {manifest.kind}"
            )
        with suppress(NotMeasurableError):  # the manifest cannot be checked then
            if (measured := receptive_field(core).scale) != manifest.scale:
                raise InvalidModelError(
                    f"the manifest of the model {name!r} has the scale {manifest.scale}, but its graph has the scale"
                    f" {measured}"
                )
        return cls(manifest, core, digest)

    @property
    def widest(self) -> int:
        """Number of channels of the widest layer, which determines the memory usage."""
        return max([1, *(len(value) for value in self.core.weights.values() if value.ndim == 4)])

    def deployed(self, *, bits: int, precision: Precision) -> bytes:
        """Return the bytes of the ONNX file that a provider runs; see `_upscaling.graph.deployed`."""
        return self.graph(bits=bits, precision=precision).to_bytes()

    def graph(self, *, bits: int, precision: Precision) -> Graph:
        """Return the graph that a provider runs, with the manifest in its metadata."""
        graph = deployed(self.core, bits=bits, precision=precision)
        return replace(graph, metadata={**graph.metadata, **self.manifest.to_metadata()})


def _manifest(core: Graph, name: str) -> ModelManifest:
    entries = {key.removeprefix(_PREFIX): value for key, value in core.metadata.items() if key.startswith(_PREFIX)}
    if {"kind", "scale", "halo"} <= set(entries):
        scale, halo = (_small_number(entries[key]) for key in ("scale", "halo"))
        if scale is None or halo is None:
            raise InvalidModelError(
                f"the manifest in the model {name!r} is not valid: scale and halo must be numbers"
            )
        kind = cast("ModelKind", entries["kind"])
        return ModelManifest(kind, scale, halo, entries.get("name", name), entries.get("licence", ""))
    channels = core.inputs[0].shape[1]
    if channels not in _KINDS:
        shown = channels if isinstance(channels, int) else "a variable number of"
        raise InvalidModelError(f"the model {name!r} has {shown} input channels; it must have 1 (luma) or 3 (RGB)")
    reach = receptive_field(core)
    if reach.scale.denominator != 1 or reach.scale < 1:
        raise InvalidModelError(f"the model {name!r} has the scale {reach.scale}; it must be a whole number")
    return ModelManifest(_KINDS[cast("int", channels)], int(reach.scale), reach.halo, name)


def _small_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else None


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
    return "".join(letter for letter in stem[:_LONGEST_NAME] if letter.isprintable()) or "model"


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("reel_modal") / "models"
