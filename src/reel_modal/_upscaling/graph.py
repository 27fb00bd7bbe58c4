"""Wrap a network for inference: integer input and output, 8 or 10 bits, single or half precision.

Scaling, rounding and clipping are part of the graph, so input and output are integer samples. A second output is the
mean of each frame: it is not finite if any sample is NaN or infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal, TypeAlias

import numpy as np

from reel_modal._upscaling.onnx_graph import ELEMENT_TYPES, Attribute, Graph, Node, Port, Tensor, check_order
from reel_modal._upscaling.protobuf import shortened
from reel_modal.errors import InvalidModelError

__all__ = ["INPUT", "MEANS", "OPSET", "OUTPUT", "Precision", "deployed", "unwrap"]

Precision: TypeAlias = Literal["fp32", "fp16"]

OPSET: Final = 17
"""Operator set version of the bundled networks."""

INPUT, OUTPUT, MEANS = "samples", "upscaled", "means"

_OWN: Final = "reel_modal."
"""Prefix of the names of the nodes that wrap a network."""

_OLDEST_OPSET: Final = 12
_AXES_AS_INPUT: Final = 18
_RESIZES: Final = frozenset({"Resize", "Upsample"})


def unwrap(graph: Graph) -> Graph:
    """Return the inner network: single precision; input and output are float32 (N, C, H, W) from 0 to 1.

    Raises:
        InvalidModelError: The network has another form: several inputs or outputs, other types or dimensions, or an
            opset before 12.
    """
    core = _unwrapped(graph)
    if len(core.inputs) != 1 or len(core.outputs) != 1:
        raise InvalidModelError(
            f"the model has {len(core.inputs)} inputs and {len(core.outputs)} outputs; an upscaler has one of each"
        )
    if core.opset < _OLDEST_OPSET:
        raise InvalidModelError(f"the model has opset {core.opset}; export it with opset {_OLDEST_OPSET} or later")
    for port in (*core.inputs, *core.outputs):
        if port.element_type != "float32" or len(port.shape) != 4:
            raise InvalidModelError(
                f"{shortened(port.name)!r} of the model is {port.element_type} with {len(port.shape)} dimensions;"
                " it must be float32 (N, C, H, W) from 0 to 1"
            )
    return core


def _unwrapped(graph: Graph) -> Graph:
    """Return the network without the nodes that `deployed` adds; unchanged if it has none of them."""
    inner = tuple(node for node in graph.nodes if not node.name.startswith(_OWN))
    if len(inner) == len(graph.nodes):
        return graph
    names = [graph.metadata.get(_OWN + key) for key in ("source", "result")]
    if None in names or not (graph.inputs and graph.outputs):
        raise InvalidModelError(
            f"the model has nodes named {_OWN}…, but its metadata does not name the wrapped values"
        )
    weights = {name: value for name, value in graph.weights.items() if not name.startswith(_OWN)}
    source, result = map(str, names)
    core = replace(graph, nodes=inner, weights=weights, inputs=(_float_port(graph.inputs[0], source),))
    core = replace(core, outputs=(_float_port(graph.outputs[0], result),))
    check_order(core)
    return core


def deployed(core: Graph, *, bits: int, precision: Precision) -> Graph:
    """Return the graph that a provider runs: input `samples`, outputs `upscaled` and `means` (one mean per frame).

    Args:
        core: Network returned by `unwrap`.
        bits: Bits per sample: 8 for uint8 input and output; 9 to 16 for uint16 with the sample in the low bits.
        precision: Precision of the weights and of all computation between input and output.
    """
    whole, inner = ("uint8" if bits == 8 else "uint16"), ("float32" if precision == "fp32" else "float16")
    source, result = core.inputs[0], core.outputs[0]
    peak = (1 << bits) - 1
    weights: dict[str, Tensor] = {
        _OWN + "unit": np.array(1 / peak, inner),
        _OWN + "peak": np.array(peak, inner),
        _OWN + "zero": np.array(0, inner),
    }
    axes: dict[str, Attribute] = {"axes": (1, 2, 3)}
    means: tuple[str, ...] = (result.name,)
    if core.opset >= _AXES_AS_INPUT:
        weights[_OWN + "axes"] = np.array([1, 2, 3], np.int64)
        axes, means = {}, (result.name, _OWN + "axes")
    body, inner_weights = (core.nodes, dict(core.weights)) if precision == "fp32" else _halved(core)
    nodes = (
        _step("Cast", (INPUT,), _OWN + "floats", {"to": ELEMENT_TYPES[inner]}),
        _step("Mul", (_OWN + "floats", _OWN + "unit"), source.name),
        *body,
        _step("ReduceMean", means, _OWN + "means", {**axes, "keepdims": 0}),
        _step("Cast", (_OWN + "means",), MEANS, {"to": ELEMENT_TYPES["float32"]}),
        _step("Mul", (result.name, _OWN + "peak"), _OWN + "levels"),
        _step("Round", (_OWN + "levels",), _OWN + "whole"),
        _step("Clip", (_OWN + "whole", _OWN + "zero", _OWN + "peak"), _OWN + "bounded"),
        _step("Cast", (_OWN + "bounded",), OUTPUT, {"to": ELEMENT_TYPES[whole]}),
    )
    any_size = ("n", "c", "h", "w")
    return replace(
        core,
        nodes=nodes,
        weights={**weights, **inner_weights},
        inputs=(Port(INPUT, whole, _with_channels(source, any_size)),),
        outputs=(
            Port(OUTPUT, whole, _with_channels(result, ("n", "c", "scaled_h", "scaled_w"))),
            Port(MEANS, "float32", ("n",)),
        ),
        metadata={**core.metadata, _OWN + "source": source.name, _OWN + "result": result.name},
    )


def _step(op: str, inputs: tuple[str, ...], output: str, attributes: Mapping[str, Attribute] | None = None) -> Node:
    return Node(op, inputs, (output,), attributes or {}, name=_OWN + op + "." + output.removeprefix(_OWN))


def _float_port(port: Port, name: str) -> Port:
    return Port(name, "float32", port.shape)


def _with_channels(port: Port, shape: tuple[str, str, str, str]) -> tuple[int | str, ...]:
    return (shape[0], port.shape[1], *shape[2:])


def _halved(core: Graph) -> tuple[tuple[Node, ...], dict[str, Tensor]]:
    """Return nodes and weights in half precision; the factors of resize operations stay single, as ONNX requires."""
    kept = {name for node in core.nodes if node.op in _RESIZES for name in node.inputs[1:]}
    with np.errstate(over="ignore"):  # a weight beyond the range of fp16 becomes infinite, which the means show
        weights = {
            name: value.astype(np.float16) if value.dtype == np.float32 and name not in kept else value
            for name, value in core.weights.items()
        }
    return tuple(_halved_node(node, kept) for node in core.nodes), weights


def _halved_node(node: Node, kept: set[str]) -> Node:
    attributes = dict(node.attributes)
    if node.op == "Cast" and attributes.get("to") == ELEMENT_TYPES["float32"]:
        attributes["to"] = ELEMENT_TYPES["float16"]
    value = attributes.get("value")
    free = node.op == "Constant" and not kept & set(node.outputs)
    if free and isinstance(value, np.ndarray) and value.dtype == np.float32:
        attributes["value"] = value.astype(np.float16)
    return replace(node, attributes=attributes)
