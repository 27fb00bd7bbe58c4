"""An ONNX file as plain values, both ways: enough of the format to look into a network and to wrap one.

Pure; it must not know images nor run anything. The field numbers are those of `onnx.proto3`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from reel_modal.errors import InvalidModelError

__all__ = ["ELEMENT_TYPES", "Attribute", "Graph", "Node", "Port", "Tensor"]

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
"""ONNX's numbers of numpy's types, for `Cast` and for ports."""

_TYPE_NAMES: Final = {number: name for name, number in ELEMENT_TYPES.items()}
_IR_VERSION: Final = 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS = 1, 2, 3, 4, 6, 7
_MOST_VARINT_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph: its type as numpy names it, and its shape, in which a text is any size."""

    name: str
    element_type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One operation."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    name: str = ""
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """A network: its nodes in order, its weights by name.

    Attributes:
        nodes: In an order in which they can run.
        weights: The constant tensors.
        inputs: Those that a caller gives.
        outputs: Those that a caller gets.
        opset: Version of the operators' definitions.
        metadata: Free texts that travel in the file.
    """

    nodes: tuple[Node, ...]
    weights: Mapping[str, Tensor]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a file's bytes.

        Raises:
            InvalidModelError: It is no ONNX file, or one with parts that are not supported here: weights in other
                files, graphs within graphs, functions.
        """
        try:
            model = _Message(data)
            graph = _Message(model.bytes_of(7))
            if model.all(25):
                raise InvalidModelError("the model defines functions of its own, which are not supported")
            weights = dict(_read_tensor(_Message(raw)) for raw in graph.all_bytes(5))
            inputs = tuple(_read_port(_Message(raw)) for raw in graph.all_bytes(11))
            versions = [_Message(raw) for raw in model.all_bytes(8)]
            return cls(
                nodes=tuple(_read_node(_Message(raw)) for raw in graph.all_bytes(1)),
                weights=weights,
                inputs=tuple(port for port in inputs if port.name not in weights),
                outputs=tuple(_read_port(_Message(raw)) for raw in graph.all_bytes(12)),
                opset=next((each.integer(2) for each in versions if not each.text(1)), 1),
                metadata={m.text(1): m.text(2) for m in map(_Message, model.all_bytes(14))},
            )
        except (ValueError, IndexError, KeyError, struct.error) as error:
            if isinstance(error, InvalidModelError):
                raise
            raise InvalidModelError(f"this is no ONNX model that can be read: {error}") from error

    def to_bytes(self) -> bytes:
        """Return the file: the same graph gives the same bytes."""
        graph = b"".join(
            [
                *(_bytes(1, _node(node)) for node in self.nodes),
                _text(2, "upscaler"),
                *(_bytes(5, _tensor(name, value)) for name, value in self.weights.items()),
                *(_bytes(11, _port(port)) for port in self.inputs),
                *(_bytes(12, _port(port)) for port in self.outputs),
            ]
        )
        return b"".join(
            [
                _integer(1, _IR_VERSION),
                _text(2, "reel_modal"),
                _bytes(7, graph),
                _bytes(8, _integer(2, self.opset)),
                *(_bytes(14, _text(1, key) + _text(2, value)) for key, value in self.metadata.items()),
            ]
        )


class _Message:
    """The fields of one protobuf message, by number."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        for number, value in _fields(data):
            self._fields.setdefault(number, []).append(value)

    def all(self, number: int) -> list[int | bytes]:
        return self._fields.get(number, [])

    def all_bytes(self, number: int) -> list[bytes]:
        return [_as_bytes(value) for value in self.all(number)]

    def bytes_of(self, number: int) -> bytes:
        return self.all_bytes(number)[-1]

    def text(self, number: int) -> str:
        values = self.all_bytes(number)
        return values[-1].decode() if values else ""

    def integer(self, number: int) -> int:
        values = self.all(number)
        return _signed(values[-1]) if values and isinstance(values[-1], int) else 0

    def integers(self, number: int) -> list[int]:
        """Return a repeated integer, packed or not."""
        found: list[int] = []
        for value in self.all(number):
            found += [_signed(value)] if isinstance(value, int) else [_signed(each) for each in _varints(value)]
        return found


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        length, at = _varint(data, at) if wire == _BYTES else ({_FIXED64: 8, _FIXED32: 4}[wire], at)
        if at + length > len(data):
            raise ValueError("it breaks off")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_MOST_VARINT_BYTES):
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    raise ValueError("a number has no end")


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes belong")  # noqa: TRY004 - it is the file that is wrong
    return value


def _read_tensor(message: _Message) -> tuple[str, Tensor]:
    name, shape = message.text(8), message.integers(1)
    if message.all(13) or message.integer(14):
        raise InvalidModelError(f"the weights {name!r} lie in another file, which is not supported; save them inside")
    kind = np.dtype(_TYPE_NAMES[message.integer(2)])
    if message.all(9):
        flat = np.frombuffer(message.bytes_of(9), kind.newbyteorder("<")).astype(kind)
    elif kind == np.float32:
        flat = np.frombuffer(b"".join(message.all_bytes(4)), "<f4").astype(kind)
    else:
        flat = np.array(message.integers(7 if kind == np.int64 else 5), kind)
    return name, flat.reshape(shape)


def _read_port(message: _Message) -> Port:
    tensor = _Message(_Message(message.bytes_of(2)).bytes_of(1))
    shape: list[int | str] = []
    for raw in _Message(tensor.bytes_of(2)).all_bytes(1) if tensor.all(2) else []:
        side = _Message(raw)
        shape.append(side.integer(1) if side.all(1) else side.text(2) or "any")
    return Port(message.text(1), _TYPE_NAMES[tensor.integer(1)], tuple(shape))


def _read_node(message: _Message) -> Node:
    op = message.text(4)
    attributes = dict(_read_attribute(_Message(raw), op) for raw in message.all_bytes(5))
    inputs, outputs = (tuple(raw.decode() for raw in message.all_bytes(number)) for number in (1, 2))
    return Node(op, inputs, outputs, attributes, name=message.text(3), domain=message.text(7))


def _read_attribute(message: _Message, op: str) -> tuple[str, Attribute]:
    name, kind = message.text(1), message.integer(20)
    if kind == _INT:
        return name, message.integer(3)
    if kind == _FLOAT:
        return name, cast("float", struct.unpack("<f", message.bytes_of(2))[0])
    if kind == _STRING:
        return name, message.text(4)
    if kind == _TENSOR:
        return name, _read_tensor(_Message(message.bytes_of(5)))[1]
    if kind == _INTS:
        return name, tuple(message.integers(8))
    if kind == _FLOATS:
        packed = b"".join(message.all_bytes(7))
        return name, struct.unpack(f"<{len(packed) // 4}f", packed)
    raise InvalidModelError(f"the attribute {name!r} of {op} is of a kind that is not supported")


def _node(node: Node) -> bytes:
    return b"".join(
        [
            *(_text(1, name) for name in node.inputs),
            *(_text(2, name) for name in node.outputs),
            *([_text(3, node.name)] if node.name else []),
            _text(4, node.op),
            *(_bytes(5, _attribute(name, value)) for name, value in node.attributes.items()),
            *([_text(7, node.domain)] if node.domain else []),
        ]
    )


def _attribute(name: str, value: Attribute) -> bytes:
    said = _text(1, name)
    if isinstance(value, int):
        return said + _integer(3, value) + _integer(20, _INT)
    if isinstance(value, float):
        return said + _float(2, value) + _integer(20, _FLOAT)
    if isinstance(value, str):
        return said + _text(4, value) + _integer(20, _STRING)
    if isinstance(value, np.ndarray):
        return said + _bytes(5, _tensor("", value)) + _integer(20, _TENSOR)
    if all(isinstance(each, int) for each in value):
        return said + b"".join(_integer(8, int(each)) for each in value) + _integer(20, _INTS)
    return said + b"".join(_float(7, each) for each in value) + _integer(20, _FLOATS)


def _tensor(name: str, value: Tensor) -> bytes:
    plain = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
    return b"".join(
        [
            *(_integer(1, side) for side in value.shape),
            _integer(2, ELEMENT_TYPES[value.dtype.name]),
            *([_text(8, name)] if name else []),
            _bytes(9, plain.tobytes()),
        ]
    )


def _port(port: Port) -> bytes:
    sides = [_text(2, side) if isinstance(side, str) else _integer(1, side) for side in port.shape]
    shape = b"".join(_bytes(1, side) for side in sides)
    tensor = _integer(1, ELEMENT_TYPES[port.element_type]) + _bytes(2, shape)
    return _text(1, port.name) + _bytes(2, _bytes(1, tensor))


def _key(number: int, wire: int) -> bytes:
    return _encoded(number << 3 | wire)


def _encoded(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _integer(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _encoded(value)


def _float(number: int, value: float) -> bytes:
    return _key(number, _FIXED32) + struct.pack("<f", value)


def _bytes(number: int, value: bytes) -> bytes:
    return _key(number, _BYTES) + _encoded(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())
