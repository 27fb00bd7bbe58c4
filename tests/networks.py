"""Small hand-built networks for tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reel_modal._upscaling.model import UpscaleModel
from reel_modal._upscaling.onnx_graph import Graph, Node, Port, Tensor

SAME = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}


def graph(nodes: list[Node], weights: dict[str, Tensor], *, channels: int = 1, opset: int = 17) -> Graph:
    """Return a network from `x` to `y`."""
    ports = Port("x", "float32", ("n", channels, "h", "w")), Port("y", "float32", ("n", channels, "sh", "sw"))
    return Graph(tuple(nodes), weights, ports[:1], ports[1:], opset)


def repeating(channels: int, scale: int = 2, *, gain: float = 1.0, opset: int = 17) -> Graph:
    """Return a network that repeats every pixel `scale` squared times; `gain` is undone at the end."""
    many = np.repeat(np.eye(channels, dtype=np.float32), scale * scale, axis=0)[:, :, None, None] * gain
    least = np.eye(channels, dtype=np.float32)[:, :, None, None] / gain
    nodes = [
        Node("Conv", ("x", "many"), ("a",)),
        Node("LeakyRelu", ("a",), ("b",), {"alpha": 0.1}),
        Node("DepthToSpace", ("b",), ("c",), {"blocksize": scale, "mode": "CRD"}),
        Node("Conv", ("c", "least"), ("y",)),
    ]
    return graph(
        nodes, {"many": many.astype(np.float32), "least": least.astype(np.float32)}, channels=channels, opset=opset
    )


def model(core: Graph, name: str = "test") -> UpscaleModel:
    return UpscaleModel.from_bytes(core.to_bytes(), name=name)


def with_metadata(core: Graph, **entries: str) -> Graph:
    return replace(core, metadata={f"reel_modal.manifest.{key}": value for key, value in entries.items()})
