"""Malformed model files: each is refused within a second of CPU time, with a short message."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cpu_time import within_cpu_seconds
from tests.networks import SAME, graph, repeating, with_metadata

from reel_modal._upscaling.model import ModelManifest, UpscaleModel
from reel_modal._upscaling.onnx_graph import Graph, Node
from reel_modal._upscaling.protobuf import packed_bytes, packed_integer, packed_text
from reel_modal.errors import InvalidModelError

LARGE = 30_000_000
ONE = np.ones((1, 1, 3, 3), np.float32)


def file_of(fields: bytes) -> bytes:
    """Return a model file with the given bytes as its graph."""
    return packed_integer(1, 8) + packed_bytes(7, fields) + packed_bytes(8, packed_integer(2, 17))


def tensor(*sides: int, kind: int = 1, data: bytes = b"") -> bytes:
    return packed_bytes(5, b"".join(packed_integer(1, side) for side in sides) + packed_integer(2, kind) + data)


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
    "a network that is truncated": lambda: repeating(1).to_bytes()[:-40],
}


def refuse_quickly(data: bytes, **options: Any) -> str:
    """Load a file that must be refused within a second; return the message."""
    message = within_cpu_seconds(1, lambda: message_of(data, options))
    assert len(message) < 500
    return message


def message_of(data: bytes, options: dict[str, Any]) -> str:
    with pytest.raises(InvalidModelError) as caught:
        UpscaleModel.from_bytes(data, name="hostile", **options)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_model_malformed_file_is_refused_within_a_second(name: str) -> None:
    refuse_quickly(FILES[name]())


def conv(**attributes: Any) -> Graph:
    return graph([Node("Conv", ("x", "k"), ("y",), {**SAME, **attributes})], {"k": ONE})


def resize(factor: float, other: float | None = None, mode: str = "nearest") -> Graph:
    factors = np.array([1, 1, factor if other is None else other, factor], np.float32)
    return graph([Node("Resize", ("x", "", "f"), ("y",), {"mode": mode})], {"f": factors})


def chain(length: int, **attributes: Any) -> Graph:
    names = ["x", *(f"v{number}" for number in range(length - 1)), "y"]
    nodes = [Node("Conv", (a, "k"), (b,), {**SAME, **attributes}) for a, b in pairwise(names)]
    return graph(nodes, {"k": ONE})


GRAPHS: dict[str, tuple[Graph, str]] = {
    "a cycle of one": (graph([Node("Relu", ("y",), ("y",))], {}), "form a cycle"),
    "a cycle of two": (graph([Node("Add", ("x", "b"), ("y",)), Node("Relu", ("y",), ("b",))], {}), "form a cycle"),
    "a value from nowhere": (graph([Node("Add", ("x", "z"), ("y",))], {}), "needs 'z'"),
    "a value that is made twice": (graph([Node("Relu", ("x",), ("y",))] * 2, {}), "two nodes of the model produce 'y'"),
    "an input that is made": (graph([Node("Relu", ("x",), ("x",))], {}), "two nodes of the model produce 'x'"),
    "an output that is not made": (graph([Node("Relu", ("x",), ("z",))], {}), "produces its output 'y'"),
    "an output without the input": (graph([Node("Relu", ("k",), ("y",))], {"k": ONE}), "does not depend on its input"),
    "no nodes": (graph([], {}), "produces its output 'y'"),
    "no input": (replace(repeating(1), inputs=()), "needs 'x'"),
    "no output": (replace(repeating(1), outputs=()), "has 1 inputs and 0 outputs"),
    "stride 0": (conv(strides=(0, 0)), "strides of a Conv in the model is 0"),
    "a stride below 0": (conv(strides=(-1, -1)), "strides of a Conv in the model is -1"),
    "a stride of millions": (conv(strides=(10**6, 10**6)), "strides of a Conv in the model is 1000000"),
    "strides that differ": (conv(strides=(1, 2)), "scales the two sides differently"),
    "strides that are floats": (conv(strides=(1.5, 1.5)), "strides of a Conv in the model is 1.5"),
    "a dilation of 0": (conv(dilations=(0, 0)), "dilations of a Conv in the model is 0"),
    "a dilation of millions": (conv(dilations=(1 << 40, 1)), "dilations of a Conv in the model is 1099511627776"),
    "a kernel of 0": (conv(kernel_shape=(0, 0)), "kernel_shape of a Conv in the model is 0"),
    "a transposed stride of 0": (
        graph([Node("ConvTranspose", ("x", "k"), ("y",), {"strides": (0, 0)})], {"k": ONE}),
        "strides of a ConvTranspose in the model is 0",
    ),
    "blocks of 0": (graph([Node("DepthToSpace", ("x",), ("y",), {"blocksize": 0})], {}), "blocksize of a"),
    "blocks of text": (graph([Node("SpaceToDepth", ("x",), ("y",), {"blocksize": "2"})], {}), "of another type"),
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
        graph([Node("Resize", ("x", "", "f"), ("a",)), Node("Add", ("a", "x"), ("y",))],
              {"f": np.array([1, 1, 2, 2], np.float32)}),
        "combines inputs of different sizes",
    ),
    "no opset": (replace(repeating(1), opset=0), "opset 0"),
    "a name that wraps nothing": (
        graph([Node("Relu", ("x",), ("y",), name="reel_modal.Cast.floats")], {}),
        "its metadata does not name the wrapped values",
    ),
    "a wrapped value from nowhere": (
        replace(
            graph([Node("Relu", ("x",), ("y",), name="reel_modal.Cast.floats")], {}),
            metadata={"reel_modal.source": "a", "reel_modal.result": "b"},
        ),
        "produces its output 'b'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_model_graph_of_no_upscaler_is_refused(name: str) -> None:
    core, words = GRAPHS[name]
    assert words in refuse_quickly(core.to_bytes())


@pytest.mark.parametrize("name", [name for name in GRAPHS if "scale" not in name and "opset" not in name])
def test_model_invalid_graph_is_refused_with_any_manifest(name: str) -> None:
    refuse_quickly(GRAPHS[name][0].to_bytes(), manifest=ModelManifest("luma", 2, 8, "hostile"))


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
    assert words in refuse_quickly(with_metadata(repeating(1), **held).to_bytes())


def test_model_unsupported_channel_count_is_refused() -> None:
    assert "channels" in refuse_quickly(repeating(2).to_bytes())
    assert refuse_quickly(replace(repeating(1), inputs=repeating(5).inputs).to_bytes())


def test_model_weights_without_channels_do_not_divide_by_zero() -> None:
    core = replace(repeating(1), weights={**repeating(1).weights, "none": np.zeros((0, 1, 1, 1), np.float32)})
    assert UpscaleModel.from_bytes(core.to_bytes(), name="x").widest == 4


def test_graph_half_precision_list_is_parsed_by_bits() -> None:
    bits = [int(each) for each in np.array([1.0, -0.5], np.float16).view(np.uint16)]
    ports = repeating(1)
    data = file_of(
        tensor(2, kind=10, data=packed_bytes(8, b"half") + b"".join(packed_integer(5, each) for each in bits))
        + packed_bytes(1, packed_text(1, "x") + packed_text(2, "y") + packed_text(4, "Relu"))
        + b"".join(_ports(ports))
    )
    np.testing.assert_array_equal(Graph.parse(data).weights["half"], np.array([1.0, -0.5], np.float16))


def test_graph_double_precision_list_is_parsed() -> None:
    packed = struct.pack("<2d", 1.0, -0.5)
    data = file_of(
        tensor(2, kind=11, data=packed_bytes(8, b"double") + packed_bytes(10, packed))
        + packed_bytes(1, packed_text(1, "x") + packed_text(2, "y") + packed_text(4, "Relu"))
        + b"".join(_ports(repeating(1)))
    )
    np.testing.assert_array_equal(Graph.parse(data).weights["double"], np.array([1.0, -0.5]))


def _ports(core: Graph) -> list[bytes]:
    def port(number: int, name: str) -> bytes:
        sides = b"".join(packed_bytes(1, packed_text(2, side)) for side in "nchw")
        kind = packed_bytes(1, packed_integer(1, 1) + packed_bytes(2, sides))
        return packed_bytes(number, packed_text(1, name) + packed_bytes(2, kind))

    return [port(11, core.inputs[0].name), port(12, core.outputs[0].name)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_model_damaged_file_loads_or_is_refused(data: st.DataObject) -> None:
    whole = bytearray(with_metadata(repeating(1), kind="luma", scale="2", halo="0", name="x").to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(InvalidModelError):
        loaded = UpscaleModel.from_bytes(bytes(whole), name="damaged")
        loaded.deployed(bits=8, precision="fp16")
