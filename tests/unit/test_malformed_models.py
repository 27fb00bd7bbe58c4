"""Malformed model files: each is refused within a second of CPU time, with a short message."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, StringStringEntryProto, TensorProto
from onnx.numpy_helper import from_array, to_array
from tests.cpu_time import within_cpu_seconds
from tests.networks import SAME, graph, node, repeating, with_metadata
from tests.protobuf_wire import packed_bytes, packed_integer, packed_text

from reel_modal._upscaling.model import ModelManifest, UpscaleModel
from reel_modal._upscaling.onnx_files import parse_model
from reel_modal.errors import InvalidModelError

LARGE = 30_000_000

SLOWEST_SECONDS = 3.0
"""A refusal takes 0.2 s of processor time; tracing and a busy machine take several times as much."""

ONE = np.ones((1, 1, 3, 3), np.float32)


def file_of(fields: bytes) -> bytes:
    """Return a model file with the given bytes as its graph."""
    return packed_integer(1, 8) + packed_bytes(7, fields) + packed_bytes(8, packed_integer(2, 17))


def tensor_fields(*sides: int, kind: int = 1, data: bytes = b"") -> bytes:
    return b"".join(packed_integer(1, side) for side in sides) + packed_integer(2, kind) + data


def tensor(*sides: int, kind: int = 1, data: bytes = b"") -> bytes:
    return packed_bytes(5, tensor_fields(*sides, kind=kind, data=data))


def attribute(data: bytes, kind: int, *, name: str = "strides") -> bytes:
    return packed_bytes(
        1, packed_text(4, "Conv") + packed_bytes(5, packed_text(1, name) + data + packed_integer(20, kind))
    )


FILES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"root:x:0:0:root:/root:/bin/bash\n" * 1000,
    "zeros": lambda: bytes(LARGE),
    "ones": lambda: b"\xff" * LARGE,
    "a number without an end": lambda: b"\x80" * LARGE,
    "empty fields": lambda: b"\x7a\x00" * (LARGE // 2),
    "empty nodes": lambda: file_of(b"\x0a\x00" * (LARGE // 2)),
    "empty metadata": lambda: b"\x72\x00" * (LARGE // 2),
    "small numbers": lambda: b"\x08\x01" * (LARGE // 2),
    "packed sides": lambda: file_of(packed_bytes(5, packed_bytes(1, b"\x01" * LARGE) + packed_integer(2, 1))),
    "packed int32": lambda: file_of(tensor(LARGE, kind=6, data=packed_bytes(5, b"\x01" * LARGE))),
    "packed int64": lambda: file_of(tensor(LARGE, kind=7, data=packed_bytes(7, b"\x01" * LARGE))),
    "floats one by one": lambda: file_of(tensor(6_000_000, data=b"\x25\0\0\0\0" * 6_000_000)),
    "a packed list of strides": lambda: file_of(attribute(packed_bytes(8, b"\x01" * LARGE), 7)),
    "a packed list of floats": lambda: file_of(attribute(packed_bytes(7, b"\x01" * LARGE), 6)),
    "a long name": lambda: file_of(packed_bytes(1, packed_bytes(4, b"a" * LARGE))),
    "a long name of an attribute": lambda: file_of(attribute(b"", 9, name="a" * 60_000)),
    "many nodes": lambda: file_of(packed_bytes(1, b"") * 20_001),
    "sides beyond any memory": lambda: file_of(tensor(1 << 40, 1 << 40, data=packed_bytes(9, b"\0" * 4))),
    "sides whose product overflows": lambda: file_of(tensor(1 << 62, 4, data=packed_bytes(9, b""))),
    "a side below zero": lambda: file_of(tensor(-1, data=packed_bytes(9, b"\0" * 4))),
    "sides without values": lambda: file_of(tensor(1 << 30)),
    "a number beyond its type": lambda: file_of(tensor(1, kind=6, data=packed_integer(5, 1 << 40))),
    "values of an unknown type": lambda: file_of(tensor(1, kind=99, data=packed_bytes(9, b"\0" * 4))),
    "half a value": lambda: file_of(tensor(1, data=packed_bytes(9, b"\0" * 3))),
    "a number in place of a graph": lambda: packed_integer(7, 1),
    "bytes in place of a number": lambda: file_of(packed_bytes(5, packed_bytes(2, b""))),
    "a float of two bytes": lambda: file_of(attribute(packed_bytes(2, b"\0\0"), 1)),
    "text that is not UTF-8": lambda: file_of(packed_bytes(1, packed_bytes(4, b"\xff"))),
    "weights that are truncated": lambda: file_of(tensor(LARGE, data=packed_bytes(9, bytes(4 * LARGE))))[:-1],
    "a network that is truncated": lambda: repeating(1).SerializeToString()[:-40],
}


def refuse_quickly(data: bytes, **options: Any) -> str:
    """Load a file that must be refused in a short time; return the message."""
    message = within_cpu_seconds(SLOWEST_SECONDS, lambda: message_of(data, options))
    assert len(message) < 500
    return message


def message_of(data: bytes, options: dict[str, Any]) -> str:
    with pytest.raises(InvalidModelError) as caught:
        UpscaleModel.from_bytes(data, name="hostile", **options)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_model_malformed_file_is_refused_quickly(name: str) -> None:
    refuse_quickly(FILES[name]())


def conv(**attributes: Any) -> ModelProto:
    return graph([node("Conv", ("x", "k"), ("y",), {**SAME, **attributes})], {"k": ONE})


def resize(factor: float, other: float | None = None, mode: str = "nearest") -> ModelProto:
    factors = np.array([1, 1, factor if other is None else other, factor], np.float32)
    return graph([node("Resize", ("x", "", "f"), ("y",), {"mode": mode})], {"f": factors})


def chain(length: int, **attributes: Any) -> ModelProto:
    names = ["x", *(f"v{number}" for number in range(length - 1)), "y"]
    nodes = [node("Conv", (a, "k"), (b,), {**SAME, **attributes}) for a, b in pairwise(names)]
    return graph(nodes, {"k": ONE})


def wrapped_nothing(**metadata: str) -> ModelProto:
    """Return a network with a node that has the name of a wrapping one."""
    core = graph([node("Relu", ("x",), ("y",), name="reel_modal.Cast.floats")], {})
    for key, value in metadata.items():
        core.metadata_props.append(StringStringEntryProto(key=f"reel_modal.{key}", value=value))
    return core


GRAPHS: dict[str, tuple[ModelProto, str]] = {
    "a cycle of one": (graph([node("Relu", ("y",), ("y",))], {}), "form a cycle"),
    "a cycle of two": (graph([node("Add", ("x", "b"), ("y",)), node("Relu", ("y",), ("b",))], {}), "form a cycle"),
    "a value from nowhere": (graph([node("Add", ("x", "z"), ("y",))], {}), "needs 'z'"),
    "a value that is made twice": (graph([node("Relu", ("x",), ("y",))] * 2, {}), "two nodes of the model produce 'y'"),
    "an input that is made": (graph([node("Relu", ("x",), ("x",))], {}), "two nodes of the model produce 'x'"),
    "an output that is not made": (graph([node("Relu", ("x",), ("z",))], {}), "produces its output 'y'"),
    "an output without the input": (graph([node("Relu", ("k",), ("y",))], {"k": ONE}), "does not depend on its input"),
    "no nodes": (graph([], {}), "produces its output 'y'"),
    "no input": (repeating(1, inputs=()), "needs 'x'"),
    "no output": (repeating(1, outputs=()), "has 1 inputs and 0 outputs"),
    "stride 0": (conv(strides=(0, 0)), "strides of a Conv in the model is 0"),
    "a stride below 0": (conv(strides=(-1, -1)), "strides of a Conv in the model is -1"),
    "a stride of millions": (conv(strides=(10**6, 10**6)), "strides of a Conv in the model is 1000000"),
    "strides that differ": (conv(strides=(1, 2)), "scales the two sides differently"),
    "strides that are floats": (conv(strides=(1.5, 1.5)), "strides of a Conv in the model is 1.5"),
    "a dilation of 0": (conv(dilations=(0, 0)), "dilations of a Conv in the model is 0"),
    "a dilation of millions": (conv(dilations=(1 << 40, 1)), "dilations of a Conv in the model is 1099511627776"),
    "a kernel of 0": (conv(kernel_shape=(0, 0)), "kernel_shape of a Conv in the model is 0"),
    "a transposed stride of 0": (
        graph([node("ConvTranspose", ("x", "k"), ("y",), {"strides": (0, 0)})], {"k": ONE}),
        "strides of a ConvTranspose in the model is 0",
    ),
    "blocks of 0": (graph([node("DepthToSpace", ("x",), ("y",), {"blocksize": 0})], {}), "blocksize of a"),
    "blocks of text": (graph([node("SpaceToDepth", ("x",), ("y",), {"blocksize": "2"})], {}), "of another type"),
    "scale 0": (resize(0), "scales by 0"),
    "a scale below 0": (resize(-2), "scales by -2"),
    "scale 10^6": (resize(1e6), r"scales by 1e+06"),
    "scale NaN": (resize(float("nan")), "scales the two sides differently"),
    "scale infinity": (resize(float("inf")), "scales by inf"),
    "scales that differ": (resize(2, 3), "scales the two sides differently"),
    "an unknown mode": (resize(2, mode="a" * 500), "unknown mode"),
    "a scale of a half": (resize(0.5), "has the scale 1/2"),
    "strides without end": (chain(1000, strides=(2, 2)), "at most 4096 pixels"),
    "a radius without end": (chain(5000), "at most 4096 pixels"),
    "sizes that meet": (
        graph([node("Resize", ("x", "", "f"), ("a",)), node("Add", ("a", "x"), ("y",))],
              {"f": np.array([1, 1, 2, 2], np.float32)}),
        "combines inputs of different sizes",
    ),
    "no opset": (repeating(1, opset=0), "opset 0"),
    "a name that wraps nothing": (wrapped_nothing(), "its metadata does not name the wrapped values"),
    "a wrapped value from nowhere": (wrapped_nothing(source="a", result="b"), "produces its output 'b'"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_model_graph_of_no_upscaler_is_refused(name: str) -> None:
    core, words = GRAPHS[name]
    assert words in refuse_quickly(core.SerializeToString())


@pytest.mark.parametrize("name", [name for name in GRAPHS if "scale" not in name and "opset" not in name])
def test_model_invalid_graph_is_refused_with_any_manifest(name: str) -> None:
    refuse_quickly(GRAPHS[name][0].SerializeToString(), manifest=ModelManifest("luma", 2, 8, "hostile"))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"scale": "0"}, "scale of the model 'test' must be a whole number, 1 to 16"),
        ({"scale": "1000000"}, "1 to 16"),
        ({"scale": "9" * 6000}, "is not valid"),
        ({"scale": "-2"}, "is not valid"),
        ({"scale": "²"}, "is not valid"),
        ({"scale": "4"}, "has the scale 4, but its graph has the scale 2"),
        ({"halo": "1000000"}, "halo of the model 'test' must be a whole number, 0 to 4096"),
        ({"kind": "smell"}, "luma or rgb"),
        ({"name": "a" * 200}, "1 to 128 printable characters"),
        ({"name": "a\x1b[2J"}, "1 to 128 printable characters"),
        ({"name": ""}, "1 to 128 printable characters"),
    ],
)
def test_model_invalid_manifest_in_file_is_refused(entries: dict[str, str], words: str) -> None:
    held = {"kind": "luma", "scale": "2", "halo": "0", "name": "test", **entries}
    assert words in refuse_quickly(with_metadata(repeating(1), **held).SerializeToString())


def test_model_unsupported_channel_count_is_refused() -> None:
    assert "channels" in refuse_quickly(repeating(2).SerializeToString())
    assert refuse_quickly(repeating(1, inputs=repeating(5).graph.input).SerializeToString())


def test_model_weights_without_channels_do_not_divide_by_zero() -> None:
    core = repeating(1)
    core.graph.initializer.append(from_array(np.zeros((0, 1, 1, 1), np.float32), "none"))
    assert UpscaleModel.from_bytes(core.SerializeToString(), name="x").network.widest == 4


def weights_of(kind: int, data: bytes) -> np.ndarray:
    """Return two weights that are stored in a list, after the file was parsed."""
    core = graph([node("Relu", ("x",), ("y",))], {})
    core.graph.initializer.append(TensorProto.FromString(tensor_fields(2, kind=kind, data=data)))
    return to_array(parse_model(core.SerializeToString()).graph.initializer[0])


def test_parse_half_precision_list_is_read_by_bits() -> None:
    half = np.array([1.0, -0.5], np.float16)
    stored = b"".join(packed_integer(5, int(bits)) for bits in half.view(np.uint16))
    np.testing.assert_array_equal(weights_of(TensorProto.FLOAT16, stored), half)


def test_parse_list_of_whole_numbers_is_read_if_they_are_in_range() -> None:
    stored = packed_integer(5, -128) + packed_integer(5, 127)
    np.testing.assert_array_equal(weights_of(TensorProto.INT8, stored), np.array([-128, 127], np.int8))
    with pytest.raises(InvalidModelError, match="out of range for int8"):
        weights_of(TensorProto.INT8, packed_integer(5, 0) + packed_integer(5, 128))


def test_parse_double_precision_list_is_read() -> None:
    stored = packed_bytes(10, struct.pack("<2d", 1.0, -0.5))
    np.testing.assert_array_equal(weights_of(TensorProto.DOUBLE, stored), np.array([1.0, -0.5]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_model_damaged_file_loads_or_is_refused(data: st.DataObject) -> None:
    whole = bytearray(with_metadata(repeating(1), kind="luma", scale="2", halo="0", name="x").SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(InvalidModelError):
        loaded = UpscaleModel.from_bytes(bytes(whole), name="damaged")
        loaded.network.runtime_model(bits=8, precision="fp16")
