"""ONNX files of users: what is parsed, and what is refused; written files are checked with ONNX Runtime."""

from __future__ import annotations

import contextlib

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import FunctionProto, ModelProto, OperatorSetIdProto, TensorProto, helper
from onnx.numpy_helper import from_array, to_array
from tests.networks import graph, model, node, port, repeating, with_metadata
from tests.protobuf_wire import packed_bytes

from reel_modal._upscaling.onnx_files import metadata_of, opset_of, parse_model
from reel_modal._upscaling.session import UpscaleSession
from reel_modal.errors import InvalidModelError

EXTERNAL = {"location": "secret", "offset": "0", "length": "4"}


def external(tensor: TensorProto) -> TensorProto:
    """Return a tensor whose values are in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in EXTERNAL.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def parsed(core: ModelProto) -> ModelProto:
    return parse_model(core.SerializeToString())


def test_parse_keeps_nodes_weights_ports_opset_and_metadata() -> None:
    attributes = {"i": 3, "negative": -7, "f": 0.5, "s": "CRD", "ints": (1, -2, 300), "floats": (0.25, 2.0)}
    weights = {
        "single": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
        "half": np.array([0.5], np.float16),
        "long": np.array([-1, 1 << 40]),
        "scalar": np.array(2.5, np.float32),
    }
    operation = node("Op", ("x", "", "half"), ("y",), attributes, name="first")
    operation.domain = "own"
    ports = [port("x", TensorProto.UINT8, ("n", 1, 4, "w"))], [port("y", TensorProto.FLOAT, ("n",))]
    core = with_metadata(graph([operation], weights, inputs=ports[0], outputs=ports[1]), name="väl")
    read = parsed(core)
    assert (list(read.graph.node), list(read.graph.input), list(read.graph.output)) == ([operation], *ports)
    assert (opset_of(read), metadata_of(read)) == (17, {"reel_modal.manifest.name": "väl"})
    assert {each.name: each.data_type for each in read.graph.initializer} == {
        "single": TensorProto.FLOAT,
        "half": TensorProto.FLOAT16,
        "long": TensorProto.INT64,
        "scalar": TensorProto.FLOAT,
    }
    for each in read.graph.initializer:
        np.testing.assert_array_equal(to_array(each), weights[each.name])
    assert parsed(read) == read


def test_parse_keeps_constant_in_a_node() -> None:
    value = np.array([[1, 2], [3, 4]], np.float32)
    (constant,) = parsed(graph([node("Constant", (), ("y",), {"value": from_array(value)})], {})).graph.node
    np.testing.assert_array_equal(to_array(constant.attribute[0].t), value)


def test_parse_drops_everything_else() -> None:
    core = repeating(1)
    expected = parsed(core)
    core.graph.doc_string = "text"
    core.graph.node[0].doc_string = "text"
    core.graph.value_info.append(port("a", TensorProto.FLOAT, ("n", 4, "h", "w")))
    core.graph.sparse_initializer.add().values.CopyFrom(external(from_array(np.zeros(1, np.float32), "sparse")))
    core.graph.node[1].attribute[0].t.CopyFrom(external(from_array(np.zeros(1, np.float32))))
    core.opset_import.append(OperatorSetIdProto(domain="com.microsoft", version=1))
    core.graph.input.append(port("many", TensorProto.FLOAT, (4, 1, 1, 1)))  # as files before 2019 list their weights
    unknown = packed_bytes(1000, b"unknown")
    assert parse_model(core.SerializeToString() + unknown) == expected


def test_parsed_network_runs_in_onnx_runtime() -> None:
    file = parsed(repeating(1)).SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    picture = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    (large,) = session.run(None, {"x": picture})
    np.testing.assert_array_equal(large[0, 0], picture[0, 0].repeat(2, 0).repeat(2, 1))


@given(st.binary(max_size=200))
def test_parse_other_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidModelError):
        model(parse_model(data))


@given(st.data())
def test_parse_damaged_file_is_parsed_or_refused(data: st.DataObject) -> None:
    whole = bytearray(repeating(1).SerializeToString())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidModelError):
        parse_model(bytes(whole))


@pytest.mark.parametrize("in_a_node", [False, True])
def test_parse_external_weights_are_refused_by_name(in_a_node: bool) -> None:
    kernel = external(from_array(np.zeros(1, np.float32), "kernel"))
    core = graph([node("Constant", (), ("y",), {"value": kernel} if in_a_node else {})], {})
    if not in_a_node:
        core.graph.initializer.append(kernel)
    with pytest.raises(InvalidModelError, match="'kernel' are in another file"):
        parsed(core)


def test_parse_function_is_refused() -> None:
    core = repeating(1)
    core.functions.append(FunctionProto(name="f", domain="own"))
    with pytest.raises(InvalidModelError, match="defines functions"):
        parsed(core)


def test_parse_nested_graph_is_refused() -> None:
    branch = helper.make_graph([], "branch", [], [])
    core = graph([node("If", ("x",), ("y",), {"then_branch": branch, "else_branch": branch})], {})
    with pytest.raises(InvalidModelError, match=r"the attribute 'else_branch' of 'If' has an unsupported type"):
        parsed(core)


def test_session_operation_of_another_library_is_refused() -> None:
    operation = node("Relu", ("x",), ("y",))
    operation.domain = "own"
    core = with_metadata(graph([operation], {}), kind="luma", scale="1", halo="0")
    core.opset_import.append(OperatorSetIdProto(domain="own", version=1))
    with pytest.raises(InvalidModelError, match=r"refuses the model 'test'.*own"):
        UpscaleSession(model(core), provider="cpu")
