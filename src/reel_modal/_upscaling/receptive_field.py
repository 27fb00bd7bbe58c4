"""Receptive field of a network, which determines how far tiles must overlap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from reel_modal._upscaling.onnx_files import shortened
from reel_modal.errors import InvalidModelError

__all__ = ["NotMeasurableError", "ReceptiveField", "receptive_field"]

# Operations that work on each sample separately, or only on channels.
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
# No upscaler exceeds these limits. Without limits, the exact fractions could grow without bound.
_MOST_TIMES: Final = 64
_MOST_RADIUS: Final = 4096


class NotMeasurableError(InvalidModelError):
    """Raised if the receptive field cannot be computed from the graph; the manifest must then give the halo."""


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """Receptive field of one output sample.

    Attributes:
        radius: Number of input samples to each side.
        scale: Output samples per input sample, along each side.
    """

    radius: Fraction
    scale: Fraction

    @property
    def halo(self) -> int:
        """Number of whole input samples that a tile needs on each side."""
        return math.ceil(self.radius)


def receptive_field(graph: GraphProto) -> ReceptiveField:
    """Return the receptive field of the first output, computed along every path through the graph.

    A convolution with kernel k, dilation d and stride t adds d (k - 1) / 2 samples of its input on each side, and its
    output has t times fewer samples. Pixel shuffles, transposed convolutions and resize operations have more.

    Raises:
        NotMeasurableError: An operation is unknown or depends on the whole frame; the message names it.
        InvalidModelError: An operation has invalid attributes, or the network is not an upscaler.
    """
    fields = {port.name: ReceptiveField(Fraction(0), Fraction(1)) for port in graph.input}
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        value = _attribute(node, "value") if node.op_type == "Constant" else None
        if isinstance(value, TensorProto) and node.output:
            constants[node.output[0]] = value
            continue
        before = [fields[name] for name in node.input if name in fields]
        if not before:
            continue
        if any(each.scale != before[0].scale for each in before):
            raise InvalidModelError(
                f"a node {shortened(node.op_type)!r} of the model combines inputs of different sizes"
            )
        reach = _after(node, ReceptiveField(max(each.radius for each in before), before[0].scale), constants)
        if not (Fraction(1, _MOST_TIMES) <= reach.scale <= _MOST_TIMES and reach.radius <= _MOST_RADIUS):
            raise InvalidModelError(
                f"the model has a receptive field of {float(reach.radius):.0f} pixels and scales by"
                f" {float(reach.scale):g}; at most {_MOST_RADIUS} pixels and 1/{_MOST_TIMES} to {_MOST_TIMES} times"
                " are accepted"
            )
        for name in node.output:
            fields[name] = reach
    if not graph.output or graph.output[0].name not in fields:
        raise InvalidModelError("the output of the model does not depend on its input")
    return fields[graph.output[0].name]


def _after(node: NodeProto, before: ReceptiveField, constants: Mapping[str, TensorProto]) -> ReceptiveField:
    radius, scale = before.radius, before.scale
    if node.op_type in _POINTWISE:
        return before
    if node.op_type in {"Conv", "AveragePool", "MaxPool"}:
        stride = _whole(node, "strides")
        extent = (_kernel(node, constants) - 1) * _whole(node, "dilations")
        return ReceptiveField(radius + Fraction((extent + 1) // 2) / scale, scale / stride)
    if node.op_type == "ConvTranspose":
        stride = _whole(node, "strides")
        return ReceptiveField(
            radius + Fraction(math.ceil(Fraction(_kernel(node, constants), stride))) / scale, scale * stride
        )
    if node.op_type in {"DepthToSpace", "SpaceToDepth"}:
        block = _whole(node, "blocksize")
        if node.op_type == "DepthToSpace":
            return ReceptiveField(radius, scale * block)
        return ReceptiveField(radius + Fraction(block - 1) / scale, scale / block)
    if node.op_type in {"Resize", "Upsample"}:
        stored = constants.get(node.input[-1])
        factors = None if stored is None else numpy_helper.to_array(stored)
        if factors is not None and factors.dtype.kind == "f" and factors.size > 1:
            if factors.flat[-1] != factors.flat[-2]:
                raise InvalidModelError(f"a {node.op_type} of the model scales the two sides differently")
            return _resized(node, before, float(factors.flat[-1]))
    raise NotMeasurableError(
        f"the receptive field of {shortened(node.op_type)} is unknown, so tiles would not match; set the halo in"
        " the manifest"
    )


def _resized(node: NodeProto, before: ReceptiveField, factor: float) -> ReceptiveField:
    stored = _attribute(node, "mode")
    mode = stored.decode(errors="replace") if isinstance(stored, bytes) else "nearest"
    if mode not in _RESIZE_RADIUS:
        raise InvalidModelError(f"a {node.op_type} of the model has the unknown mode {shortened(mode)!r}")
    if not 1 / _MOST_TIMES <= factor <= _MOST_TIMES:
        raise InvalidModelError(
            f"a {node.op_type} of the model scales by {factor:g}; 1/{_MOST_TIMES} to {_MOST_TIMES} times are accepted"
        )
    times = Fraction(factor).limit_denominator(1000)
    least = min(before.scale, before.scale * times)
    return ReceptiveField(before.radius + _RESIZE_RADIUS[mode] / least, before.scale * times)


def _kernel(node: NodeProto, constants: Mapping[str, TensorProto]) -> int:
    """Return the length of the longer side of a node's kernel."""
    sides: list[object] = []
    if isinstance(shape := _attribute(node, "kernel_shape"), list):
        sides = shape
    elif len(node.input) > 1 and (weights := constants.get(node.input[1])) is not None:
        sides = list(weights.dims[2:])
    if not sides:
        raise NotMeasurableError(f"the kernel size of a {node.op_type} is unknown; set the halo in the manifest")
    return max(_bounded(node, "kernel_shape", side) for side in sides)


def _whole(node: NodeProto, name: str) -> int:
    """Return the largest value of an attribute that is an integer or a list of integers; 1 if it is absent."""
    value = _attribute(node, name, 1)
    values = {_bounded(node, name, each) for each in (value if isinstance(value, list) else [value])}
    if name == "strides" and len(values) > 1:
        raise InvalidModelError(f"a {node.op_type} of the model scales the two sides differently")
    return max(values, default=1)


def _bounded(node: NodeProto, name: str, value: object) -> int:
    if not isinstance(value, int) or not 1 <= value <= _MOST_RADIUS:
        shown = shortened(repr(value)) if isinstance(value, int | float) else "of another type"
        raise InvalidModelError(
            f"{name} of a {node.op_type} in the model is {shown}; it must be a whole number from 1 to {_MOST_RADIUS}"
        )
    return value


def _attribute(node: NodeProto, name: str, default: object = None) -> object:
    """Return an attribute as a number, a list of numbers, bytes or a tensor; `default` if it is absent."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
