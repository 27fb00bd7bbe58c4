"""How far around a pixel a network looks: what a tile must overlap its neighbours by.

Pure; it must not know images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from reel_modal.errors import InvalidModelError
from reel_modal.upscaling.onnx_graph import Attribute, Graph, Node

__all__ = ["Reach", "reach_of"]

# Operations that work on each sample by itself, or on channels alone.
_POINTWISE: Final = frozenset(
    {
        *(
            "Abs",
            "Add",
            "BatchNormalization",
            "Cast",
            "Clip",
            "Concat",
            "Div",
            "Dropout",
            "Elu",
            "Erf",
            "Exp",
            "Gelu",
        ),
        *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mul", "Neg", "PRelu", "Pow"),
        *("Relu", "Round", "Sigmoid", "Softplus", "Split", "Sqrt", "Sub", "Sum", "Tanh"),
    }
)
_RESIZE_RADIUS: Final = {"nearest": 1, "linear": 1, "cubic": 2}


@dataclass(frozen=True, slots=True)
class Reach:
    """What one output sample sees.

    Attributes:
        radius: Input samples to each side.
        scale: Output samples for one input sample, along each side.
    """

    radius: Fraction
    scale: Fraction

    @property
    def halo(self) -> int:
        """Whole input samples that a tile needs around it."""
        return math.ceil(self.radius)


def reach_of(graph: Graph) -> Reach:
    """Return the reach of the first output, computed along every path through the graph.

    Each convolution of kernel k, dilation d, stride t adds d (k - 1) / 2 samples of its own input on each side, and
    its output has t times fewer samples; shuffles, transposed convolutions and resizings have more.

    Raises:
        InvalidModelError: An operation is not known here, or looks at the whole picture; the message names it.
    """
    known = {port.name: Reach(Fraction(0), Fraction(1)) for port in graph.inputs}
    constants = dict(graph.weights)
    for node in graph.nodes:
        if node.op == "Constant" and isinstance(value := node.attributes.get("value"), np.ndarray):
            constants[node.outputs[0]] = value
            continue
        before = [known[name] for name in node.inputs if name in known]
        if not before:
            continue
        # Branches that meet have the same number of samples.
        widest = Reach(max(each.radius for each in before), before[0].scale)
        for name in node.outputs:
            known[name] = _after(node, widest, constants)
    return known[graph.outputs[0].name]


def _after(node: Node, before: Reach, constants: Mapping[str, object]) -> Reach:
    radius, scale = before.radius, before.scale
    if node.op in _POINTWISE:
        return before
    if node.op in {"Conv", "AveragePool", "MaxPool"}:
        stride = _first(node.attributes.get("strides"), 1)
        side = _kernel(node, constants)
        extent = (side - 1) * _first(node.attributes.get("dilations"), 1)
        return Reach(radius + Fraction((extent + 1) // 2) / scale, scale / stride)
    if node.op == "ConvTranspose":
        stride = _first(node.attributes.get("strides"), 1)
        return Reach(radius + Fraction(math.ceil(Fraction(_kernel(node, constants), stride))) / scale, scale * stride)
    if node.op in {"DepthToSpace", "SpaceToDepth"}:
        block = _first(node.attributes.get("blocksize"), 1)
        if node.op == "DepthToSpace":
            return Reach(radius, scale * block)
        return Reach(radius + Fraction(block - 1) / scale, scale / block)
    if node.op in {"Resize", "Upsample"}:
        factors = constants.get(node.inputs[-1])
        if isinstance(factors, np.ndarray) and factors.dtype.kind == "f" and factors.size:
            reach = _RESIZE_RADIUS[str(node.attributes.get("mode", "nearest"))]
            factor = Fraction(float(factors.flat[-1])).limit_denominator(1000)
            return Reach(radius + Fraction(reach) / min(scale, scale * factor), scale * factor)
    raise InvalidModelError(
        f"how far {node.op} looks is not known here, so tiles cannot be made to agree; say the halo in the manifest"
    )


def _kernel(node: Node, constants: Mapping[str, object]) -> int:
    """Return the longer side of the kernel of a node."""
    shape = node.attributes.get("kernel_shape")
    if isinstance(shape, tuple):
        return int(max(shape))
    weights = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if isinstance(weights, np.ndarray):
        return max(int(side) for side in weights.shape[2:])
    raise InvalidModelError(f"a {node.op} has no kernel that can be measured; say the halo in the manifest")


def _first(value: Attribute | None, default: int) -> int:
    if isinstance(value, tuple):
        return int(value[0])
    return value if isinstance(value, int) else default
