"""Reading and writing ONNX files; written files are checked with ONNX Runtime."""

from __future__ import annotations

import contextlib
from importlib import resources

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.networks import graph, repeating

from reel_modal._upscaling.onnx_graph import Graph, Node, Port
from reel_modal.errors import InvalidModelError
from reel_modal.settings import BUNDLED_MODELS


def test_graph_round_trip_keeps_everything() -> None:
    attributes = {"i": 3, "negative": -7, "f": 0.5, "s": "CRD", "ints": (1, -2, 300), "floats": (0.25, 2.0)}
    weights = {
        "single": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        "half": np.array([0.5], np.float16),
        "long": np.array([-1, 1 << 40]),
        "scalar": np.array(2.5, np.float32),
    }
    ports = Port("x", "uint8", ("n", 1, 4, "w")), Port("y", "float32", ("n",))
    written = Graph(
        (Node("Op", ("x", "", "half"), ("y",), attributes, name="first", domain="own"),),
        weights, ports[:1], ports[1:], 17, {"key": "väl"},
    )  # fmt: skip
    parsed = Graph.parse(written.to_bytes())
    assert parsed.nodes == written.nodes
    assert (parsed.inputs, parsed.outputs, parsed.opset, parsed.metadata) == (
        ports[:1],
        ports[1:],
        17,
        {"key": "väl"},
    )
    assert set(parsed.weights) == set(weights)
    for name, value in weights.items():
        assert parsed.weights[name].dtype == value.dtype
        np.testing.assert_array_equal(parsed.weights[name], value)
    assert parsed.to_bytes() == written.to_bytes()


def test_graph_constant_in_a_node_round_trips() -> None:
    value = np.array([[1, 2], [3, 4]], np.float32)
    parsed = Graph.parse(graph([Node("Constant", (), ("y",), {"value": value})], {}).to_bytes())
    np.testing.assert_array_equal(parsed.nodes[0].attributes["value"], value)


def test_graph_written_file_runs_in_onnx_runtime() -> None:
    session = onnxruntime.InferenceSession(repeating(1).to_bytes(), providers=["CPUExecutionProvider"])
    picture = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    (large,) = session.run(None, {"x": picture})
    np.testing.assert_array_equal(large[0, 0], picture[0, 0].repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_graph_bundled_networks_round_trip_byte_for_byte(name: str) -> None:
    data = resources.files("reel_modal._upscaling").joinpath("models", f"{name}.onnx").read_bytes()
    assert Graph.parse(data).to_bytes() == data


@given(st.binary(max_size=200))
def test_graph_other_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidModelError):
        Graph.parse(data)


@given(st.data())
def test_graph_damaged_file_is_parsed_or_refused(data: st.DataObject) -> None:
    whole = bytearray(repeating(1).to_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidModelError):
        Graph.parse(bytes(whole))


def test_graph_external_weights_are_refused_by_name() -> None:
    core = graph([Node("Identity", ("x",), ("y",))], {"kernel": np.zeros(1, np.float32)}).to_bytes()
    # The field `data_location`, 14, set to EXTERNAL, at the end of the only tensor.
    tensor = b"\x08\x01\x10\x01\x42\x06kernel\x4a\x04\0\0\0\0"
    assert core.count(tensor) == 1
    longer = core.replace(
        b"\x2a" + bytes([len(tensor)]) + tensor, b"\x2a" + bytes([len(tensor) + 2]) + tensor + b"\x70\x01"
    )
    start = longer.index(b"reel_modal") + len(b"reel_modal")
    assert longer[start] == 0x3A
    longer = longer[: start + 1] + bytes([longer[start + 1] + 2]) + longer[start + 2 :]
    with pytest.raises(InvalidModelError, match="'kernel' are in another file"):
        Graph.parse(longer)
