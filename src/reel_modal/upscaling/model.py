"""Networks that enlarge pictures: those of this package by name, others by path or by URL and hash.

It must not know frames, nor which device runs a network.
"""

from __future__ import annotations

import hashlib
import secrets
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias, cast
from urllib.error import URLError

from reel_modal.errors import InvalidModelError
from reel_modal.upscaling.graph import Precision, core_of, deployed
from reel_modal.upscaling.onnx_graph import Graph
from reel_modal.upscaling.receptive_field import reach_of

__all__ = ["BUNDLED", "FAMILIES", "ModelKind", "ModelManifest", "UpscaleModel"]

ModelKind: TypeAlias = Literal["luma", "rgb"]
"""What a network enlarges: the luma plane alone, or three planes, red, green, blue."""

FAMILIES: Final = ("small", "large")
"""The networks in this package, each for two scales: `small` for a CPU, `large` for quality; see `training/`."""

BUNDLED: Final = tuple(f"{family}-x{scale}" for family in FAMILIES for scale in (2, 4))
"""Their names."""

_LARGEST_BYTES: Final = 512 * 1024 * 1024
_DOWNLOAD_SECONDS: Final = 60.0
_PREFIX: Final = "reel_modal.manifest."
_KINDS: Final[Mapping[int, ModelKind]] = {1: "luma", 3: "rgb"}


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """What one must know of a network to use it.

    Attributes:
        kind: `luma` or `rgb`.
        scale: How many times larger its output is, along each side.
        halo: Input pixels around a tile that its pixels depend on.
        name: For the result of a job.
        licence: Of the weights; empty where nobody says.
    """

    kind: ModelKind
    scale: int
    halo: int
    name: str
    licence: str = ""

    def to_metadata(self) -> dict[str, str]:
        """Return the entries of an ONNX file's metadata that say the same."""
        return {_PREFIX + key: str(getattr(self, key)) for key in self.__slots__}


@dataclass(frozen=True, slots=True)
class UpscaleModel:
    """A network and what one must know of it.

    Attributes:
        manifest: Kind, scale, halo, name.
        core: The network itself, floats from 0 to 1 both ways.
        sha256: Of the file, in hexadecimal.
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
    ) -> Self:
        """Return a network of this package by its name, or another one by path or URL.

        Another one is an ONNX file, of opset 12 or later, with one input and one output, float32 (N, C, H, W), of one
        channel (luma) or three (RGB), both from 0 to 1, that takes any height and width. Its manifest is taken from
        the argument, else from the file's metadata, else from the graph itself.

        Args:
            source: A name out of `BUNDLED`, a path, or an http(s) URL.
            sha256: Of the file; a URL needs it, a path is checked where it is given.
            manifest: Where the graph does not say enough.
            cache: Where downloads are kept, by their hash; default: the user's cache directory.

        Raises:
            InvalidModelError: There is no such file, its hash is another, or it is no network that enlarges pictures;
                the message says what is wrong.

        Example:
            >>> UpscaleModel.load("small-x2").manifest.scale
            2
        """
        name = str(source)
        if name.startswith(("http://", "https://")):
            if sha256 is None:
                raise InvalidModelError(f"a model from a URL needs the sha256 of its file: {name}")
            data = _downloaded(name, sha256, cache or _cache_folder())
        elif name in BUNDLED:
            data = resources.files("reel_modal.upscaling").joinpath("models", f"{name}.onnx").read_bytes()
        else:
            data = _read(Path(source))
        return cls.from_bytes(data, name=Path(name).stem, sha256=sha256, manifest=manifest)

    @classmethod
    def from_bytes(
        cls, data: bytes, *, name: str, sha256: str | None = None, manifest: ModelManifest | None = None
    ) -> Self:
        """Return the network in the bytes of an ONNX file; see `load`."""
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and sha256.lower() != found:
            raise InvalidModelError(f"the model {name!r} has the sha256 {found}, not {sha256.lower()}")
        core = core_of(Graph.parse(data))
        manifest = manifest or _manifest(core, name)
        channels = core.inputs[0].shape[1]
        if channels in _KINDS and _KINDS[cast("int", channels)] != manifest.kind:
            raise InvalidModelError(f"the model {name!r} takes {channels} channels, which is not {manifest.kind}")
        return cls(manifest, core, found)

    @property
    def widest(self) -> int:
        """Channels of the widest layer, which memory goes by."""
        return max((len(value) for value in self.core.weights.values() if value.ndim == 4), default=1)

    def deployed(self, *, bits: int, precision: Precision) -> bytes:
        """Return the ONNX file that a provider runs; see `upscale_graph.deployed`."""
        return self.graph(bits=bits, precision=precision).to_bytes()

    def graph(self, *, bits: int, precision: Precision) -> Graph:
        """Return the same as a graph."""
        graph = deployed(self.core, bits=bits, precision=precision)
        return replace(graph, metadata={**graph.metadata, **self.manifest.to_metadata()})


def _manifest(core: Graph, name: str) -> ModelManifest:
    said = {key.removeprefix(_PREFIX): value for key, value in core.metadata.items() if key.startswith(_PREFIX)}
    if {"kind", "scale", "halo"} <= set(said):
        kind = next((each for each in _KINDS.values() if each == said["kind"]), None)
        if kind is None or not (said["scale"].isdecimal() and said["halo"].isdecimal()):
            raise InvalidModelError(f"the manifest in the model {name!r} cannot be read: {said}")
        name, licence = said.get("name", name), said.get("licence", "")
        return ModelManifest(kind, int(said["scale"]), int(said["halo"]), name, licence)
    channels = core.inputs[0].shape[1]
    if channels not in _KINDS:
        raise InvalidModelError(f"the model {name!r} takes {channels} channels; 1 (luma) or 3 (RGB) are known")
    reach = reach_of(core)
    if reach.scale.denominator != 1 or reach.scale < 1:
        raise InvalidModelError(f"the model {name!r} enlarges by {reach.scale}; a whole number is wanted")
    return ModelManifest(_KINDS[cast("int", channels)], int(reach.scale), reach.halo, name)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InvalidModelError(f"the model {str(path)!r} has more than {_LARGEST_BYTES} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise InvalidModelError(
            f"there is no model {str(path)!r} ({error}); give the path of an ONNX file, a URL, or one of"
            f" {', '.join(BUNDLED)}"
        ) from error


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("reel_modal") / "models"


def _downloaded(url: str, sha256: str, cache: Path) -> bytes:
    """Return the file behind a URL, fetched once; what is in the cache is checked by the caller as well."""
    kept = cache / f"{sha256.lower()}.onnx"
    if not sha256.isalnum():
        raise InvalidModelError(f"{sha256!r} is no sha256; it has 64 hexadecimal digits")
    if kept.is_file() and hashlib.sha256(data := kept.read_bytes()).hexdigest() == sha256.lower():
        return data
    try:
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_SECONDS) as answer:  # noqa: S310 - http(s), by its caller
            data = bytes(answer.read(_LARGEST_BYTES + 1))
    except (URLError, OSError, ValueError) as error:
        raise InvalidModelError(f"the model at {url} could not be fetched: {error}") from error
    if len(data) > _LARGEST_BYTES:
        raise InvalidModelError(f"the model at {url} has more than {_LARGEST_BYTES} bytes")
    if hashlib.sha256(data).hexdigest() == sha256.lower():
        cache.mkdir(parents=True, exist_ok=True)
        staged = kept.with_name(f".{kept.name}.{secrets.token_hex(4)}.part")
        try:
            staged.write_bytes(data)
            staged.replace(kept)
        finally:
            staged.unlink(missing_ok=True)
    return data
