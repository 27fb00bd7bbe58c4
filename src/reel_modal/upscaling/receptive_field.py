"""How far around a pixel a network looks: what a tile must overlap its neighbours by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from reel_modal.errors import InvalidModelError
from reel_modal.upscaling.onnx_graph import Graph, Node
from reel_modal.upscaling.protobuf import shortened

__all__ = ["NotMeasurableError", "Reach", "reach_of"]

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
# Beyond these nothing is an upscaler, and exact fractions would grow without bound.
_MOST_TIMES: Final = 64
_MOST_RADIUS: Final = 4096


class NotMeasurableError(InvalidModelError):
    """How far a network looks is not known by its graph; its manifest has to say it."""


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
        NotMeasurableError: An operation is not known here, or looks at the whole picture; the message names it.
        InvalidModelError: An operation has attributes that it cannot have, or the network is not an upscaler.
    """
    known = {port.name: Reach(Fraction(0), Fraction(1)) for port in graph.inputs}
    constants = dict(graph.weights)
    for node in graph.nodes:
        if node.op == "Constant" and isinstance(value := node.attributes.get("value"), np.ndarray) and node.outputs:
            constants[node.outputs[0]] = value
            continue
        before = [known[name] for name in node.inputs if name in known]
        if not before:
            continue
        if any(each.scale != before[0].scale for each in before):
            raise InvalidModelError(f"a node {shortened(node.op)!r} of the model joins pictures of different sizes")
        reach = _after(node, Reach(max(each.radius for each in before), before[0].scale), constants)
        if not (Fraction(1, _MOST_TIMES) <= reach.scale <= _MOST_TIMES and reach.radius <= _MOST_RADIUS):
            raise InvalidModelError(
                f"the model looks {float(reach.radius):.0f} pixels far or scales by {float(reach.scale):g}; at most"
                f" {_MOST_RADIUS} pixels and 1/{_MOST_TIMES} to {_MOST_TIMES} times are accepted"
            )
        for name in node.outputs:
            known[name] = reach
    if not graph.outputs or graph.outputs[0].name not in known:
        raise InvalidModelError("the output of the model does not depend on its input")
    return known[graph.outputs[0].name]


def _after(node: Node, before: Reach, constants: Mapping[str, object]) -> Reach:
    radius, scale = before.radius, before.scale
    if node.op in _POINTWISE:
        return before
    if node.op in {"Conv", "AveragePool", "MaxPool"}:
        stride = _whole(node, "strides")
        extent = (_kernel(node, constants) - 1) * _whole(node, "dilations")
        return Reach(radius + Fraction((extent + 1) // 2) / scale, scale / stride)
    if node.op == "ConvTranspose":
        stride = _whole(node, "strides")
        return Reach(radius + Fraction(math.ceil(Fraction(_kernel(node, constants), stride))) / scale, scale * stride)
    if node.op in {"DepthToSpace", "SpaceToDepth"}:
        block = _whole(node, "blocksize")
        if node.op == "DepthToSpace":
            return Reach(radius, scale * block)
        return Reach(radius + Fraction(block - 1) / scale, scale / block)
    if node.op in {"Resize", "Upsample"}:
        factors = constants.get(node.inputs[-1])
        if isinstance(factors, np.ndarray) and factors.dtype.kind == "f" and factors.size > 1:
            if factors.flat[-1] != factors.flat[-2]:
                raise InvalidModelError(f"a {node.op} of the model does not scale both sides alike")
            return _resized(node, before, float(factors.flat[-1]))
    raise NotMeasurableError(
        f"how far {shortened(node.op)} looks is not known here, so tiles cannot be made to agree; say the halo in the"
        " manifest"
    )


def _resized(node: Node, before: Reach, factor: float) -> Reach:
    mode = str(node.attributes.get("mode", "nearest"))
    if mode not in _RESIZE_RADIUS:
        raise InvalidModelError(f"a {node.op} of the model has the unknown mode {shortened(mode)!r}")
    if not 1 / _MOST_TIMES <= factor <= _MOST_TIMES:
        raise InvalidModelError(
            f"a {node.op} of the model scales by {factor:g}; 1/{_MOST_TIMES} to {_MOST_TIMES} times are accepted"
        )
    times = Fraction(factor).limit_denominator(1000)
    least = min(before.scale, before.scale * times)
    return Reach(before.radius + _RESIZE_RADIUS[mode] / least, before.scale * times)


def _kernel(node: Node, constants: Mapping[str, object]) -> int:
    """Return the longer side of the kernel of a node."""
    sides: tuple[object, ...] = ()
    if isinstance(shape := node.attributes.get("kernel_shape"), tuple):
        sides = shape
    elif len(node.inputs) > 1 and isinstance(weights := constants.get(node.inputs[1]), np.ndarray):
        sides = weights.shape[2:]
    if not sides:
        raise NotMeasurableError(f"a {node.op} has no kernel that can be measured; say the halo in the manifest")
    return max(_bounded(node, "kernel_shape", side) for side in sides)


def _whole(node: Node, name: str) -> int:
    """Return an attribute of a node that is a whole number or a list of them, the largest; 1 if it is absent."""
    value = node.attributes.get(name, 1)
    values = {_bounded(node, name, each) for each in (value if isinstance(value, tuple) else (value,))}
    if name == "strides" and len(values) > 1:
        raise InvalidModelError(f"a {node.op} of the model does not scale both sides alike")
    return max(values, default=1)


def _bounded(node: Node, name: str, value: object) -> int:
    if not isinstance(value, int) or not 1 <= value <= _MOST_RADIUS:
        shown = shortened(repr(value)) if isinstance(value, int | float) else "of another type"
        raise InvalidModelError(
            f"{name} of a {node.op} in the model is {shown}; a whole number from 1 to {_MOST_RADIUS} is wanted"
        )
    return value
