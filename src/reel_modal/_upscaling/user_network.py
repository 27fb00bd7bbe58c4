"""Networks that do not belong to this package: their graphs are inspected and wrapped with the package onnx."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from onnx import ModelProto

from reel_modal._upscaling.manifest import ModelKind, ModelManifest, Precision
from reel_modal._upscaling.onnx_files import metadata_of, parse_model
from reel_modal._upscaling.receptive_field import NotMeasurableError, receptive_field
from reel_modal._upscaling.wrapping import unwrap, wrap
from reel_modal.errors import InvalidModelError

__all__ = ["UserNetwork", "read_network"]

_KINDS: Final[dict[int | None, ModelKind]] = {1: "luma", 3: "rgb"}


@dataclass(frozen=True, slots=True)
class UserNetwork:
    """A network of a user.

    Attributes:
        manifest: Properties of the network.
        core: The network; input and output are floats from 0 to 1.
    """

    manifest: ModelManifest
    core: ModelProto

    @property
    def widest(self) -> int:
        """Number of channels of the widest layer, which determines the memory usage."""
        return max([1, *(int(each.dims[0]) for each in self.core.graph.initializer if len(each.dims) == 4)])

    def runtime_model(self, *, bits: int, precision: Precision) -> bytes:
        """Return the bytes of the ONNX file that a provider runs, with the manifest in its metadata."""
        wrapped = wrap(self.core, bits=bits, precision=precision, metadata=self.manifest.to_metadata())
        return cast("bytes", wrapped.SerializeToString(deterministic=True))


def read_network(data: bytes, *, name: str, manifest: ModelManifest | None = None) -> UserNetwork:
    """Return the network in the bytes of an ONNX file.

    Args:
        data: Bytes of the file.
        name: Name of the network in messages, and in the manifest if the file does not name it.
        manifest: The manifest; None takes it from the metadata of the file, else from the graph.

    Raises:
        InvalidModelError: The file is not an upscaling network, or does not match the manifest.
    """
    core = unwrap(parse_model(data))
    manifest = manifest or ModelManifest.from_metadata(metadata_of(core), name) or _measured(core, name)
    channels = _channels(core)
    if channels in _KINDS and _KINDS[channels] != manifest.kind:
        raise InvalidModelError(
            f"the model {name!r} has {channels} input channels, which does not match {manifest.kind}"
        )
    with suppress(NotMeasurableError):  # the manifest cannot be checked then
        if (measured := receptive_field(core.graph).scale) != manifest.scale:
            raise InvalidModelError(
                f"the manifest of the model {name!r} has the scale {manifest.scale}, but its graph has the scale"
                f" {measured}"
            )
    return UserNetwork(manifest, core)


def _measured(core: ModelProto, name: str) -> ModelManifest:
    """Return the manifest that follows from the graph."""
    channels = _channels(core)
    if channels not in _KINDS:
        shown = "a variable number of" if channels is None else channels
        raise InvalidModelError(f"the model {name!r} has {shown} input channels; it must have 1 (luma) or 3 (RGB)")
    reach = receptive_field(core.graph)
    if reach.scale.denominator != 1 or reach.scale < 1:
        raise InvalidModelError(f"the model {name!r} has the scale {reach.scale}; it must be a whole number")
    return ModelManifest(_KINDS[channels], int(reach.scale), reach.halo, name)


def _channels(core: ModelProto) -> int | None:
    """Return the number of input channels; None if it is variable."""
    side = core.graph.input[0].type.tensor_type.shape.dim[1]
    return side.dim_value if side.HasField("dim_value") else None
