"""Wrap a network for inference: integer input and output, 8 or 10 bits, single or half precision.

The wrapped graph has the input and the outputs that `_upscaling.manifest` names.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from reel_modal._upscaling.manifest import INPUT, MEANS, OUTPUT, Precision
from reel_modal._upscaling.onnx_files import build_model, check_order, metadata_of, opset_of, shortened
from reel_modal.errors import InvalidModelError

__all__ = ["OPSET", "OWN", "unwrap", "wrap"]

OPSET: Final = 17
"""Operator set version of the bundled networks."""

OWN: Final = "reel_modal."
"""Prefix of the names of the nodes and weights that wrap a network."""

_OLDEST_OPSET: Final = 12
_AXES_AS_INPUT: Final = 18
_RESIZES: Final = frozenset({"Resize", "Upsample"})


def unwrap(model: ModelProto) -> ModelProto:
    """Return the inner network: single precision; input and output are float32 (N, C, H, W) from 0 to 1.

    Raises:
        InvalidModelError: The network has another form: several inputs or outputs, other types or dimensions, or an
            opset before 12.
    """
    core = _unwrapped(model)
    inputs, outputs = core.graph.input, core.graph.output
    if len(inputs) != 1 or len(outputs) != 1:
        raise InvalidModelError(
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs; an upscaler has one of each"
        )
    if (opset := opset_of(core)) < _OLDEST_OPSET:
        raise InvalidModelError(f"the model has opset {opset}; export it with opset {_OLDEST_OPSET} or later")
    for port in (*inputs, *outputs):
        tensor = port.type.tensor_type
        if tensor.elem_type != TensorProto.FLOAT or len(tensor.shape.dim) != 4:
            kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            raise InvalidModelError(
                f"{shortened(port.name)!r} of the model is {kind} with {len(tensor.shape.dim)} dimensions; it must be"
                " float32 (N, C, H, W) from 0 to 1"
            )
    return core


def _unwrapped(model: ModelProto) -> ModelProto:
    """Return the network without the nodes that `wrap` adds; unchanged if it has none of them."""
    graph, metadata = model.graph, metadata_of(model)
    inner = [node for node in graph.node if not node.name.startswith(OWN)]
    if len(inner) == len(graph.node):
        return model
    names = [metadata.get(OWN + key) for key in ("source", "result")]
    if None in names or not (graph.input and graph.output):
        raise InvalidModelError(
            f"the model has nodes named {OWN}…, but its metadata does not name the wrapped values"
        )
    core = GraphProto(
        name=graph.name,
        node=inner,
        initializer=[each for each in graph.initializer if not each.name.startswith(OWN)],
        input=[_port(str(names[0]), TensorProto.FLOAT, _sides(graph.input[0]))],
        output=[_port(str(names[1]), TensorProto.FLOAT, _sides(graph.output[0]))],
    )
    check_order(core)
    return build_model(core, opset=opset_of(model), metadata=metadata)


def wrap(core: ModelProto, *, bits: int, precision: Precision, metadata: dict[str, str]) -> ModelProto:
    """Return the model that a provider runs.

    Args:
        core: Network returned by `unwrap`.
        bits: Bits per sample: 8 for uint8 input and output; 9 to 16 for uint16 with the sample in the low bits.
        precision: Precision of the weights and of all computation between input and output.
        metadata: Entries that are added to the metadata of the network.
    """
    whole = TensorProto.UINT8 if bits == 8 else TensorProto.UINT16
    inner = TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16
    source, result = core.graph.input[0], core.graph.output[0]
    peak, opset = (1 << bits) - 1, opset_of(core)
    weights = [
        numpy_helper.from_array(np.array(value, helper.tensor_dtype_to_np_dtype(inner)), OWN + name)
        for name, value in (("unit", 1 / peak), ("peak", peak), ("zero", 0))
    ]
    axes: dict[str, tuple[int, ...]] = {"axes": (1, 2, 3)}
    means: tuple[str, ...] = (result.name,)
    if opset >= _AXES_AS_INPUT:
        weights.append(numpy_helper.from_array(np.array([1, 2, 3], np.int64), OWN + "axes"))
        axes, means = {}, (result.name, OWN + "axes")
    body = core.graph if precision == "fp32" else _halved(core.graph)
    nodes = [
        _step("Cast", (INPUT,), OWN + "floats", to=inner),
        _step("Mul", (OWN + "floats", OWN + "unit"), source.name),
        *body.node,
        _step("ReduceMean", means, OWN + "means", **axes, keepdims=0),
        _step("Cast", (OWN + "means",), MEANS, to=TensorProto.FLOAT),
        _step("Mul", (result.name, OWN + "peak"), OWN + "levels"),
        _step("Round", (OWN + "levels",), OWN + "whole"),
        _step("Clip", (OWN + "whole", OWN + "zero", OWN + "peak"), OWN + "bounded"),
        _step("Cast", (OWN + "bounded",), OUTPUT, to=whole),
    ]
    graph = GraphProto(
        name=core.graph.name,
        node=nodes,
        initializer=[*weights, *body.initializer],
        input=[_port(INPUT, whole, ["n", _sides(source)[1], "h", "w"])],
        output=[
            _port(OUTPUT, whole, ["n", _sides(result)[1], "scaled_h", "scaled_w"]),
            _port(MEANS, TensorProto.FLOAT, ["n"]),
        ],
    )
    wrapped = {OWN + "source": source.name, OWN + "result": result.name}
    return build_model(graph, opset=opset, metadata={**metadata_of(core), **wrapped, **metadata})


def _step(op: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> NodeProto:
    name = OWN + op + "." + output.removeprefix(OWN)
    return helper.make_node(op, inputs, (output,), name=name, **attributes)


def _port(name: str, kind: int, sides: list[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, sides)


def _sides(port: ValueInfoProto) -> list[int | str]:
    return [each.dim_param or each.dim_value for each in port.type.tensor_type.shape.dim]


def _halved(graph: GraphProto) -> GraphProto:
    """Return nodes and weights in half precision; the factors of resize operations stay single, as ONNX requires."""
    kept = {name for node in graph.node if node.op_type in _RESIZES for name in node.input[1:]}
    weights = [each if each.name in kept else _halved_tensor(each) for each in graph.initializer]
    return GraphProto(node=[_halved_node(node, kept) for node in graph.node], initializer=weights)


def _halved_node(node: NodeProto, kept: set[str]) -> NodeProto:
    halved = NodeProto()
    halved.CopyFrom(node)
    for attribute in halved.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if node.op_type == "Constant" and attribute.name == "value" and not kept & set(node.output):
            attribute.t.CopyFrom(_halved_tensor(attribute.t))
    return halved


def _halved_tensor(tensor: TensorProto) -> TensorProto:
    if tensor.data_type != TensorProto.FLOAT:
        return tensor
    with np.errstate(over="ignore"):  # a weight beyond the range of fp16 becomes infinite, which the means show
        half = numpy_helper.to_array(tensor).astype(np.float16)
    return numpy_helper.from_array(half, tensor.name)
