"""The networks of this package. Their files are run directly, so nothing here parses ONNX.

`NAME.onnx` has the graph for 8 bits in single precision, with the weights. The other files of a network have the
other graphs, and refer to the weights in the first one. `python -m training.wrap` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reel_modal._upscaling.manifest import ModelManifest, Precision
from reel_modal.errors import InvalidModelError

__all__ = ["BUNDLED", "RUNTIME_GRAPHS", "BundledNetwork", "runtime_file"]

RUNTIME_GRAPHS: Final[tuple[tuple[int, Precision], ...]] = ((8, "fp32"), (8, "fp16"), (10, "fp32"), (10, "fp16"))
"""Bits and precision of each file of a network; the first file has the weights."""

_FOLDER: Final = Path(__file__).with_name("models")
_LICENCE: Final = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class BundledNetwork:
    """A network of this package.

    Attributes:
        manifest: Properties of the network, equal to the metadata of its files.
        widest: Number of channels of the widest layer.
    """

    manifest: ModelManifest
    widest: int

    @property
    def path(self) -> Path:
        """Path of the file with the weights."""
        return _FOLDER / runtime_file(self.manifest.name, *RUNTIME_GRAPHS[0])

    def runtime_model(self, *, bits: int, precision: Precision) -> str:
        """Return the path of the ONNX file that a provider runs.

        Raises:
            InvalidModelError: There is no file for this number of bits.
        """
        if (bits, precision) not in RUNTIME_GRAPHS:
            raise InvalidModelError(f"the model {self.manifest.name!r} is for 8 or 10 bits, not {bits}")
        return str(_FOLDER / runtime_file(self.manifest.name, bits, precision))


def runtime_file(name: str, bits: int, precision: Precision) -> str:
    """Return the name of a file of the network `name`."""
    return f"{name}.onnx" if (bits, precision) == RUNTIME_GRAPHS[0] else f"{name}-{bits}bit-{precision}.onnx"


BUNDLED: Final[Mapping[str, BundledNetwork]] = {
    network.manifest.name: network
    for network in (
        BundledNetwork(ModelManifest("luma", 2, 8, "small-x2", _LICENCE), widest=16),
        BundledNetwork(ModelManifest("luma", 4, 8, "small-x4", _LICENCE), widest=16),
        BundledNetwork(ModelManifest("luma", 2, 14, "large-x2", _LICENCE), widest=48),
        BundledNetwork(ModelManifest("luma", 4, 10, "large-x4", _LICENCE), widest=32),
    )
}
"""The networks by name. A test compares the table with the files."""
