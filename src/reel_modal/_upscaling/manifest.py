"""Properties of a network, and the names and precisions of the graph that a provider runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, cast, get_args

from reel_modal.errors import InvalidModelError

__all__ = ["INPUT", "LONGEST_NAME", "MEANS", "OUTPUT", "ModelKind", "ModelManifest", "Network", "Precision"]

ModelKind: TypeAlias = Literal["luma", "rgb"]
"""Input of a network: the luma plane, or the three planes red, green, blue."""

Precision: TypeAlias = Literal["fp32", "fp16"]
"""Precision of the weights and of all computation between input and output."""

INPUT, OUTPUT, MEANS = "samples", "upscaled", "means"
"""Names of the input and the outputs of the graph that a provider runs.

Scaling, rounding and clipping are part of the graph, so input and output are integer samples. The second output is
the mean of each frame: it is not finite if any sample is NaN or infinite.
"""

LONGEST_NAME: Final = 128
_PREFIX: Final = "reel_modal.manifest."
_MOST_TIMES: Final = 16
_MOST_HALO: Final = 4096


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
        if not (0 < len(self.name) <= LONGEST_NAME and self.name.isprintable()):
            raise InvalidModelError(f"the name of a model must be 1 to {LONGEST_NAME} printable characters")
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

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], name: str) -> ModelManifest | None:
        """Return the manifest in the metadata of an ONNX file; None if the metadata have no kind, scale and halo.

        Args:
            metadata: All metadata entries of the file.
            name: Name of the network if the metadata have none.

        Raises:
            InvalidModelError: An entry is not valid.
        """
        entries = {key.removeprefix(_PREFIX): value for key, value in metadata.items() if key.startswith(_PREFIX)}
        if not {"kind", "scale", "halo"} <= set(entries):
            return None
        scale, halo = (_small_number(entries[key]) for key in ("scale", "halo"))
        if scale is None or halo is None:
            raise InvalidModelError(
                f"the manifest in the model {name!r} is not valid: scale and halo must be numbers"
            )
        kind = cast("ModelKind", entries["kind"])
        return cls(kind, scale, halo, entries.get("name", name), entries.get("licence", ""))


def _small_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else None


class Network(Protocol):
    """The graphs of a network that a provider can run."""

    @property
    def widest(self) -> int:
        """Number of channels of the widest layer, which determines the memory usage."""
        ...

    def runtime_model(self, *, bits: int, precision: Precision) -> str | bytes:
        """Return the path or the bytes of the ONNX file that a provider runs.

        Args:
            bits: Bits per sample: 8 for uint8 input and output; 9 to 16 for uint16 with the sample in the low bits.
            precision: Precision of the computation.

        Raises:
            InvalidModelError: The network does not support this number of bits.
        """
        ...
