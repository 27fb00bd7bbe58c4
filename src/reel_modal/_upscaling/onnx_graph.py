"""Parse and serialize ONNX files: the part of the format that is needed to inspect and wrap a network.

The field numbers are those of `onnx.proto3`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from reel_modal._upscaling.protobuf import (
    Budget,
    Message,
    packed_bytes,
    packed_float,
    packed_integer,
    packed_text,
    shortened,
)
from reel_modal.errors import InvalidModelError

__all__ = ["ELEMENT_TYPES", "Attribute", "Graph", "Node", "Port", "Tensor", "check_order"]

Tensor: TypeAlias = npt.NDArray[np.generic]
Attribute: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | Tensor

ELEMENT_TYPES: Final[Mapping[str, int]] = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
}
"""ONNX element type numbers by numpy dtype name, for `Cast` and for ports."""

_TYPE_NAMES: Final = {number: name for name, number in ELEMENT_TYPES.items()}
_IR_VERSION: Final = 8
_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS = 1, 2, 3, 4, 6, 7
_MOST_NODES: Final = 20_000
_MOST_SIDES: Final = 8
_MOST_FLOATS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Port:
    """Input or output of a graph: numpy dtype name, and shape; a string in the shape is a dynamic dimension."""

    name: str
    element_type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a graph."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    name: str = ""
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """Graph of a network.

    Attributes:
        nodes: Nodes in topological order.
        weights: Constant tensors by name.
        inputs: Inputs that the caller provides.
        outputs: Outputs that the caller gets.
        opset: Operator set version.
        metadata: Strings that are stored in the file, by key.
    """

    nodes: tuple[Node, ...]
    weights: Mapping[str, Tensor]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the graph parsed from the bytes of an ONNX file.

        Parsing takes less than a second and a few times the size of the file in memory, whatever the bytes are.

        Raises:
            InvalidModelError: The bytes are not an ONNX file; or the file has unsupported parts (weights in other
                files, nested graphs, functions, more than 20,000 nodes); or the nodes are not in topological order.
        """
        try:
            parsed = cls._parse(Message(memoryview(data), Budget()))
        except (ValueError, OverflowError, struct.error) as error:
            raise InvalidModelError(f"not a valid ONNX model: {error}") from error
        check_order(parsed)
        return parsed

    @classmethod
    def _parse(cls, model: Message) -> Self:
        graph = model.message(7)
        if model.all(25):
            raise InvalidModelError("the model defines functions, which are not supported")
        if len(graph.all(1)) > _MOST_NODES:
            raise InvalidModelError(f"the model has {len(graph.all(1))} nodes; at most {_MOST_NODES} are accepted")
        weights = dict(_read_tensor(raw) for raw in graph.messages(5))
        inputs = tuple(_read_port(raw) for raw in graph.messages(11))
        versions = list(model.messages(8))
        return cls(
            nodes=tuple(_read_node(raw) for raw in graph.messages(1)),
            weights=weights,
            inputs=tuple(port for port in inputs if port.name not in weights),
            outputs=tuple(_read_port(raw) for raw in graph.messages(12)),
            opset=next((each.integer(2) for each in versions if not each.text(1)), 1),
            metadata={each.text(1): each.text(2) for each in model.messages(14)},
        )

    def to_bytes(self) -> bytes:
        """Return the bytes of an ONNX file; equal graphs give equal bytes."""
        graph = b"".join(
            [
                *(packed_bytes(1, _node(node)) for node in self.nodes),
                packed_text(2, "upscaler"),
                *(packed_bytes(5, _tensor(name, value)) for name, value in self.weights.items()),
                *(packed_bytes(11, _port(port)) for port in self.inputs),
                *(packed_bytes(12, _port(port)) for port in self.outputs),
            ]
        )
        return b"".join(
            [
                packed_integer(1, _IR_VERSION),
                packed_text(2, "reel_modal"),
                packed_bytes(7, graph),
                packed_bytes(8, packed_integer(2, self.opset)),
                *(
                    packed_bytes(14, packed_text(1, key) + packed_text(2, value))
                    for key, value in self.metadata.items()
                ),
            ]
        )


def check_order(graph: Graph) -> None:
    """Raise InvalidModelError unless the nodes are in topological order and their outputs have unique names."""
    known = {"", *graph.weights, *(port.name for port in graph.inputs)}
    for node in graph.nodes:
        if missing := next((name for name in node.inputs if name not in known), None):
            raise InvalidModelError(
                f"the node {shortened(node.op)!r} of the model needs {shortened(missing)!r}, which no earlier node"
                " produces: the nodes are not in order, or form a cycle"
            )
        for name in filter(None, node.outputs):
            if name in known:
                raise InvalidModelError(f"two nodes of the model produce {shortened(name)!r}")
            known.add(name)
    for port in graph.outputs:
        if port.name not in known:
            raise InvalidModelError(f"no node of the model produces its output {shortened(port.name)!r}")


def _read_tensor(message: Message) -> tuple[str, Tensor]:
    name, shape = message.text(8), message.integers(1)
    if message.all(13) or message.integer(14):
        raise InvalidModelError(
            f"the weights {shortened(name)!r} are in another file, which is not supported; save them in the model"
        )
    kind = np.dtype(_type_name(message.integer(2)))
    if len(shape) > _MOST_SIDES or any(side < 0 for side in shape):
        raise ValueError(f"the weights {shortened(name)!r} have {len(shape)} dimensions, or a negative one")
    flat = _flat_values(message, kind)
    if flat.size != math.prod(shape):
        raise ValueError(f"the weights {shortened(name)!r} have {flat.size} values, which does not match their shape")
    return name, flat.reshape(shape)


def _flat_values(message: Message, kind: np.dtype[np.generic]) -> Tensor:
    """Return the values of a tensor; the field that contains them depends on the encoding and the type."""
    if message.all(9):
        return np.frombuffer(message.bytes_of(9), kind.newbyteorder("<")).astype(kind)
    if kind in (np.float32, np.float64):
        packed = b"".join(message.all_bytes(4 if kind == np.float32 else 10))
        return np.frombuffer(packed, kind.newbyteorder("<")).astype(kind)
    if kind == np.float16:  # stored as the integers of its bits
        return _whole_values(message.integers(5), np.dtype(np.uint16)).view(kind)
    return _whole_values(message.integers(7 if kind == np.int64 else 5), kind)


def _whole_values(numbers: Sequence[int], kind: np.dtype[np.generic]) -> Tensor:
    """Return integers as `kind`; raise ValueError if one is out of range, which numpy before 2 would wrap."""
    exact = np.array(numbers, np.int64)
    values = exact.astype(kind)
    if not np.array_equal(values.astype(np.int64), exact):
        raise ValueError(f"a value is out of range for {kind}")
    return values


def _type_name(number: int) -> str:
    if number not in _TYPE_NAMES:
        raise ValueError(f"unknown element type {number}")
    return _TYPE_NAMES[number]


def _read_port(message: Message) -> Port:
    tensor = message.message(2).message(1)
    sides = tensor.message(2).messages(1) if tensor.all(2) else ()
    shape = tuple(side.integer(1) if side.all(1) else side.text(2) or "any" for side in sides)
    return Port(message.text(1), _type_name(tensor.integer(1)), shape)


def _read_node(message: Message) -> Node:
    op = message.text(4)
    attributes = dict(_read_attribute(raw, op) for raw in message.messages(5))
    return Node(op, message.texts(1), message.texts(2), attributes, name=message.text(3), domain=message.text(7))


def _read_attribute(message: Message, op: str) -> tuple[str, Attribute]:
    name, kind = message.text(1), message.integer(20)
    if kind == _INT:
        return name, message.integer(3)
    if kind == _FLOAT:
        return name, cast("float", struct.unpack("<f", message.bytes_of(2))[0])
    if kind == _STRING:
        return name, message.text(4)
    if kind == _TENSOR:
        return name, _read_tensor(message.message(5))[1]
    if kind == _INTS:
        return name, tuple(message.integers(8))
    if kind == _FLOATS:
        packed = b"".join(message.all_bytes(7))
        if len(packed) // 4 > _MOST_FLOATS:
            raise ValueError(f"the attribute {shortened(name)!r} has more than {_MOST_FLOATS} values")
        return name, struct.unpack(f"<{len(packed) // 4}f", packed)
    raise InvalidModelError(f"the attribute {shortened(name)!r} of {shortened(op)!r} has an unsupported type")


def _node(node: Node) -> bytes:
    return b"".join(
        [
            *(packed_text(1, name) for name in node.inputs),
            *(packed_text(2, name) for name in node.outputs),
            *([packed_text(3, node.name)] if node.name else []),
            packed_text(4, node.op),
            *(packed_bytes(5, _attribute(name, value)) for name, value in node.attributes.items()),
            *([packed_text(7, node.domain)] if node.domain else []),
        ]
    )


def _attribute(name: str, value: Attribute) -> bytes:
    head = packed_text(1, name)
    if isinstance(value, int):
        return head + packed_integer(3, value) + packed_integer(20, _INT)
    if isinstance(value, float):
        return head + packed_float(2, value) + packed_integer(20, _FLOAT)
    if isinstance(value, str):
        return head + packed_text(4, value) + packed_integer(20, _STRING)
    if isinstance(value, np.ndarray):
        return head + packed_bytes(5, _tensor("", value)) + packed_integer(20, _TENSOR)
    if all(isinstance(each, int) for each in value):
        return head + b"".join(packed_integer(8, int(each)) for each in value) + packed_integer(20, _INTS)
    return head + b"".join(packed_float(7, each) for each in value) + packed_integer(20, _FLOATS)


def _tensor(name: str, value: Tensor) -> bytes:
    plain = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
    return b"".join(
        [
            *(packed_integer(1, side) for side in value.shape),
            packed_integer(2, ELEMENT_TYPES[value.dtype.name]),
            *([packed_text(8, name)] if name else []),
            packed_bytes(9, plain.tobytes()),
        ]
    )


def _port(port: Port) -> bytes:
    sides = [packed_text(2, side) if isinstance(side, str) else packed_integer(1, side) for side in port.shape]
    shape = b"".join(packed_bytes(1, side) for side in sides)
    tensor = packed_integer(1, ELEMENT_TYPES[port.element_type]) + packed_bytes(2, shape)
    return packed_text(1, port.name) + packed_bytes(2, packed_bytes(1, tensor))
