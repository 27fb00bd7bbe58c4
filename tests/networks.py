"""Small hand-built networks for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto, helper
from onnx.numpy_helper import from_array

from reel_modal._upscaling.model import UpscaleModel
from reel_modal._upscaling.onnx_files import build_model

SAME = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}


def node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attributes: Mapping[str, Any] | None = None,
    name: str = "",
) -> NodeProto:
    return helper.make_node(op, inputs, outputs, name or None, **(attributes or {}))


def port(name: str, kind: int, sides: Sequence[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, sides)


def graph(
    nodes: list[NodeProto],
    weights: Mapping[str, np.ndarray],
    *,
    channels: int = 1,
    opset: int = 17,
    inputs: Sequence[ValueInfoProto] | None = None,
    outputs: Sequence[ValueInfoProto] | None = None,
) -> ModelProto:
    """Return a network from `x` to `y`, if it gets no other inputs or outputs."""
    float32 = TensorProto.FLOAT
    network = GraphProto(
        name="test",
        node=nodes,
        initializer=[from_array(value, name) for name, value in weights.items()],
        input=[port("x", float32, ("n", channels, "h", "w"))] if inputs is None else inputs,
        output=[port("y", float32, ("n", channels, "sh", "sw"))] if outputs is None else outputs,
    )
    return build_model(network, opset=opset, metadata={})


def repeating(channels: int, scale: int = 2, *, gain: float = 1.0, **options: Any) -> ModelProto:
    """Return a network that repeats every pixel `scale` squared times; `gain` is undone at the end."""
    many = np.repeat(np.eye(channels, dtype=np.float32), scale * scale, axis=0)[:, :, None, None] * gain
    least = np.eye(channels, dtype=np.float32)[:, :, None, None] / gain
    nodes = [
        node("Conv", ("x", "many"), ("a",)),
        node("LeakyRelu", ("a",), ("b",), {"alpha": 0.1}),
        node("DepthToSpace", ("b",), ("c",), {"blocksize": scale, "mode": "CRD"}),
        node("Conv", ("c", "least"), ("y",)),
    ]
    weights = {"many": many.astype(np.float32), "least": least.astype(np.float32)}
    return graph(nodes, weights, channels=channels, **options)


def model(core: ModelProto, name: str = "test") -> UpscaleModel:
    return UpscaleModel.from_bytes(core.SerializeToString(), name=name)


def with_metadata(core: ModelProto, **entries: str) -> ModelProto:
    changed = ModelProto()
    changed.CopyFrom(core)
    for key, value in entries.items():
        changed.metadata_props.append(StringStringEntryProto(key=f"reel_modal.manifest.{key}", value=value))
    return changed
