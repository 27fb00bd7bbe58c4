"""Parse ONNX files with the package onnx, within limits that hold for any content of the file."""

from __future__ import annotations

from typing import Final

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    StringStringEntryProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from reel_modal.errors import InvalidModelError

__all__ = ["build_model", "check_order", "metadata_of", "opset_of", "parse_model", "shortened"]

_MOST_FIELDS: Final = 300_000
"""Maximum fields of a file, with numbers in packed lists. Real-ESRGAN's largest network (67 MB) has 18,500."""

_MOST_NODES: Final = 20_000
_MOST_SIDES: Final = 8
_MOST_FLOATS: Final = 1 << 16
_LONGEST_TEXT_BYTES: Final = 1 << 16
_LONGEST_SHOWN: Final = 80
_MOST_VARINT_BYTES: Final = 10
_VARINT, _BYTES = 0, 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_UNPACKABLE: Final = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_BYTES)
_IR_VERSION: Final = 8
_ELEMENT_TYPES: Final = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL),
        *(TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16),
        *(TensorProto.INT32, TensorProto.INT64),
    }
)
_ATTRIBUTE_FIELDS: Final = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
}


def parse_model(data: bytes) -> ModelProto:
    """Return the parts of an ONNX file that were checked: nodes, weights, inputs, outputs, opset and metadata.

    Parsing takes less than a second and a few times the size of the file in memory, whatever the bytes are.

    Raises:
        InvalidModelError: The bytes are not an ONNX file; or the file has unsupported parts (weights in other files,
            nested graphs, functions, more than 20,000 nodes); or the nodes are not in topological order.
    """
    try:
        _check_size(data)
        model = ModelProto.FromString(data)
        if model.functions:
            raise InvalidModelError("the model defines functions, which are not supported")
        if len(model.graph.node) > _MOST_NODES:
            raise InvalidModelError(
                f"the model has {len(model.graph.node)} nodes; at most {_MOST_NODES} are accepted"
            )
        graph = _checked_graph(model.graph)
        parsed = build_model(graph, opset=opset_of(model), metadata=metadata_of(model))
    except (ValueError, OverflowError, TypeError, DecodeError) as error:
        raise InvalidModelError(f"not a valid ONNX model: {shortened(str(error))}") from error
    check_order(parsed.graph)
    return parsed


def build_model(graph: GraphProto, *, opset: int, metadata: dict[str, str]) -> ModelProto:
    """Return a model with one operator set, that of ONNX."""
    return ModelProto(
        ir_version=_IR_VERSION,
        producer_name="reel_modal",
        graph=graph,
        opset_import=[OperatorSetIdProto(version=opset)],
        metadata_props=[StringStringEntryProto(key=key, value=value) for key, value in metadata.items()],
    )


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's operator set; 1 if the model names none."""
    return next((each.version for each in model.opset_import if not each.domain), 1)


def metadata_of(model: ModelProto) -> dict[str, str]:
    """Return the metadata of a model."""
    return {each.key: each.value for each in model.metadata_props}


def check_order(graph: GraphProto) -> None:
    """Raise InvalidModelError unless the nodes are in topological order and their outputs have unique names."""
    known = {"", *(each.name for each in graph.initializer), *(port.name for port in graph.input)}
    for node in graph.node:
        if missing := next((name for name in node.input if name not in known), None):
            raise InvalidModelError(
                f"the node {shortened(node.op_type)!r} of the model needs {shortened(missing)!r}, which no earlier"
                " node produces: the nodes are not in order, or form a cycle"
            )
        for name in filter(None, node.output):
            if name in known:
                raise InvalidModelError(f"two nodes of the model produce {shortened(name)!r}")
            known.add(name)
    for port in graph.output:
        if port.name not in known:
            raise InvalidModelError(f"no node of the model produces its output {shortened(port.name)!r}")


def shortened(text: str) -> str:
    """Return a string from a file, shortened for an error message."""
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def _check_size(data: bytes) -> None:
    """Check that a file has at most 300,000 fields, and valid strings of at most 64 KiB.

    Protobuf takes about a hundred bytes for a message that has two bytes in the file, so a file of 30 MB could take
    gigabytes. Therefore the fields are counted before it parses them.
    """
    left = _MOST_FIELDS
    pending: list[tuple[memoryview, Descriptor]] = [(memoryview(data), ModelProto.DESCRIPTOR)]
    while pending:
        message, kind = pending.pop()
        fields, at = kind.fields_by_number, 0
        while at < len(message):
            key, at = _varint(message, at)
            wire, count = key & 7, 1
            if wire == _VARINT:
                _, at = _varint(message, at)
            elif wire == _BYTES:
                length, at = _varint(message, at)
                value, at = message[at : at + length], at + length
                if not length or (field := fields.get(key >> 3)) is None:
                    pass
                elif field.message_type is not None:
                    pending.append((value, field.message_type))
                elif field.type == FieldDescriptor.TYPE_STRING:
                    _check_text(value)
                elif field.type not in _UNPACKABLE:
                    count += int(np.count_nonzero(np.frombuffer(value, np.uint8) < 0x80))
            elif wire in _FIXED_BYTES:
                at += _FIXED_BYTES[wire]
            else:
                raise ValueError(f"a field has the unknown wire type {wire}")
            if at > len(message):
                raise ValueError("the file is truncated")
            left -= count
            if left < 0:
                raise InvalidModelError(
                    f"the model has more than {_MOST_FIELDS} fields and numbers in lists; save its weights as raw"
                    " data, as exporters do"
                )


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    if at < len(data) and (byte := data[at]) < 0x80:  # fast path: most varints have one byte
        return byte, at + 1
    value = 0
    for count, byte in enumerate(data[at : at + _MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    raise ValueError("a number is truncated")


def _check_text(value: memoryview) -> None:
    if len(value) > _LONGEST_TEXT_BYTES:
        raise ValueError(f"a string has {len(value)} bytes; at most {_LONGEST_TEXT_BYTES} are accepted")
    bytes(value).decode()


def _checked_graph(graph: GraphProto) -> GraphProto:
    """Return a graph of the known fields; fields that are not known here do not reach ONNX Runtime."""
    weights = [_checked_tensor(each) for each in graph.initializer]
    constants = {each.name for each in weights}
    return GraphProto(
        name="upscaler",
        node=[_checked_node(each) for each in graph.node],
        initializer=weights,
        input=[_checked_port(each) for each in graph.input if each.name not in constants],
        output=[_checked_port(each) for each in graph.output],
    )


def _checked_node(node: NodeProto) -> NodeProto:
    attributes = [_checked_attribute(each, node.op_type) for each in node.attribute]
    checked = NodeProto(input=node.input, output=node.output, op_type=node.op_type, attribute=attributes)
    if node.name:
        checked.name = node.name
    if node.domain:
        checked.domain = node.domain
    return checked


def _checked_attribute(attribute: AttributeProto, op: str) -> AttributeProto:
    field = _ATTRIBUTE_FIELDS.get(attribute.type)
    if field is None:
        raise InvalidModelError(
            f"the attribute {shortened(attribute.name)!r} of {shortened(op)!r} has an unsupported type"
        )
    if len(attribute.floats) > _MOST_FLOATS:
        raise ValueError(f"the attribute {shortened(attribute.name)!r} has more than {_MOST_FLOATS} values")
    value = _checked_tensor(attribute.t) if field == "t" else getattr(attribute, field)
    return AttributeProto(name=attribute.name, type=attribute.type, **{field: value})


def _checked_tensor(tensor: TensorProto) -> TensorProto:
    """Return the tensor with raw data, without references to other files."""
    name = shortened(tensor.name)
    if tensor.external_data or tensor.data_location != TensorProto.DEFAULT:
        raise InvalidModelError(
            f"the weights {name!r} are in another file, which is not supported; save them in the model"
        )
    _check_type(tensor.data_type)
    if len(tensor.dims) > _MOST_SIDES or any(side < 0 for side in tensor.dims):
        raise ValueError(f"the weights {name!r} have {len(tensor.dims)} dimensions, or a negative one")
    values = numpy_helper.to_array(tensor)
    if tensor.int32_data and values.dtype.kind in "iub" and not np.array_equal(values.flat, tensor.int32_data):
        raise ValueError(f"the weights {name!r} have a value that is out of range for {values.dtype}")
    return numpy_helper.from_array(values, tensor.name)


def _checked_port(port: ValueInfoProto) -> ValueInfoProto:
    tensor = port.type.tensor_type
    _check_type(tensor.elem_type)
    sides = [side.dim_value if side.HasField("dim_value") else side.dim_param or "any" for side in tensor.shape.dim]
    return helper.make_tensor_value_info(port.name, tensor.elem_type, sides)


def _check_type(number: int) -> None:
    if number not in _ELEMENT_TYPES:
        raise ValueError(f"unknown element type {number}")
