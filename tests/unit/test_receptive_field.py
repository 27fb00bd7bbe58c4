"""Receptive fields computed from graphs, compared with ONNX Runtime's reaction to a changed pixel."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto
from tests.networks import SAME, graph, node, repeating

from reel_modal._upscaling.bundled import BUNDLED
from reel_modal._upscaling.receptive_field import ReceptiveField, receptive_field
from reel_modal._upscaling.user_network import read_network
from reel_modal.errors import InvalidModelError
from reel_modal.settings import BUNDLED_MODELS

SIDE = 64


def conv(source: str, target: str, side: int = 3, **attributes: tuple[int, ...]) -> NodeProto:
    pad = side // 2
    shape = {"kernel_shape": (side, side), "pads": (pad, pad, pad, pad)}
    return node("Conv", (source, f"k{side}"), (target,), {**shape, **attributes})


def ones(*sides: int) -> dict[str, np.ndarray]:
    return {f"k{side}": np.ones((1, 1, side, side), np.float32) for side in sides}


def measured_field(core: ModelProto) -> tuple[int, int]:
    """Return the largest distance, in input pixels, at which a changed pixel has an effect, and the scale."""
    session = onnxruntime.InferenceSession(core.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(0).random((1, 1, SIDE, SIDE), np.float32)
    changed = picture.copy()
    at = SIDE // 2
    changed[0, 0, at, at] += 1
    name = core.graph.input[0].name
    before, after = (session.run(None, {name: each})[0] for each in (picture, changed))
    scale = before.shape[2] // SIDE
    rows, columns = np.nonzero((before != after)[0, 0])
    return int(np.abs(np.concatenate([rows, columns]) // scale - at).max()), scale


CASES = {
    "one convolution": graph([conv("x", "y", 5)], ones(5)),
    "three in a row": graph(
        [conv("x", "a"), conv("a", "b", 5), node("Relu", ("b",), ("c",)), conv("c", "y")], ones(3, 5)
    ),
    "dilated": graph([conv("x", "y", dilations=(2, 2), pads=(2, 2, 2, 2))], ones(3)),
    "branches": graph(
        [conv("x", "a", 5), conv("a", "b", 5), conv("x", "c"), node("Add", ("b", "c"), ("y",))], ones(3, 5)
    ),
    "nearest, then a convolution": graph(
        [node("Resize", ("x", "", "twice"), ("a",), {"mode": "nearest"}), conv("a", "y", 5)],
        {**ones(5), "twice": np.array([1, 1, 2, 2], np.float32)},
    ),
    "cubic": graph(
        [node("Resize", ("x", "", "thrice"), ("y",), {"mode": "cubic"})],
        {"thrice": np.array([1, 1, 3, 3], np.float32)},
    ),
    "transposed": graph(
        [
            node(
                "ConvTranspose",
                ("x", "k4"),
                ("y",),
                {"kernel_shape": (4, 4), "strides": (2, 2), "pads": (1, 1, 1, 1)},
            )
        ],
        ones(4),
    ),
    "repeating": repeating(1, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_receptive_field_covers_the_measured_one(name: str) -> None:
    core = CASES[name]
    reach = receptive_field(core.graph)
    radius, scale = measured_field(core)
    assert reach.scale == scale
    assert radius <= reach.halo <= radius + 1


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_manifest_of_bundled_network_has_its_receptive_field(name: str) -> None:
    network = BUNDLED[name]
    core = read_network(network.path.read_bytes(), name=name).core
    reach = receptive_field(core.graph)
    assert (network.manifest.halo, network.manifest.scale) == (reach.halo, reach.scale)
    assert measured_field(core)[0] == reach.halo


def test_receptive_field_of_down_and_upscaling_covers_measured() -> None:
    core = graph(
        [
            conv("x", "a", strides=(2, 2)),
            node(
                "ConvTranspose",
                ("a", "k4"),
                ("y",),
                {"kernel_shape": (4, 4), "strides": (2, 2), "pads": (1, 1, 1, 1)},
            ),
        ],
        ones(3, 4),
    )
    radius, _ = measured_field(core)
    assert radius <= math.ceil(receptive_field(core.graph).radius)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "InstanceNormalization", "MatMul"])
def test_receptive_field_of_global_operation_is_refused(op: str) -> None:
    with pytest.raises(InvalidModelError, match=f"the receptive field of {op} is unknown"):
        receptive_field(graph([node(op, ("x",), ("y",))], {}).graph)


def test_receptive_field_of_computed_kernel_is_refused() -> None:
    nodes = [node("Identity", ("x",), ("k",)), node("Conv", ("x", "k"), ("y",), {"pads": SAME["pads"]})]
    with pytest.raises(InvalidModelError, match="the kernel size of a Conv is unknown"):
        receptive_field(graph(nodes, {}).graph)


def test_halo_of_a_fraction_of_a_sample_is_rounded_up() -> None:
    assert [ReceptiveField(Fraction(radius, 4), Fraction(2)).halo for radius in (0, 1, 4, 5)] == [0, 1, 1, 2]
