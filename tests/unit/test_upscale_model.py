"""Networks by name and by path: what their graph and their manifest must be."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from tests.networks import graph, model, repeating, with_metadata

from reel_modal.config import BUNDLED_MODELS, MODEL_FAMILIES
from reel_modal.errors import InvalidModelError
from reel_modal.upscaling.inference import UpscaleSession
from reel_modal.upscaling.model import ModelManifest, UpscaleModel
from reel_modal.upscaling.onnx_graph import Node, Port


def test_every_family_has_both_scales() -> None:
    assert BUNDLED_MODELS == ("small-x2", "small-x4", "large-x2", "large-x4")
    for family in MODEL_FAMILIES:
        for scale in (2, 4):
            manifest = UpscaleModel.load(f"{family}-x{scale}").manifest
            assert (manifest.kind, manifest.scale, manifest.licence) == ("luma", scale, "Apache-2.0")


def test_the_networks_keep_to_their_sizes() -> None:
    sizes = {
        name: len(resources.files("reel_modal.upscaling").joinpath("models", f"{name}.onnx").read_bytes())
        for name in BUNDLED_MODELS
    }
    assert all(size <= 100_000 for name, size in sizes.items() if name.startswith("small"))
    assert all(200_000 <= size <= 2_000_000 for name, size in sizes.items() if name.startswith("large"))


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_a_file_of_the_package_is_what_runs_in_single_precision(name: str) -> None:
    data = resources.files("reel_modal.upscaling").joinpath("models", f"{name}.onnx").read_bytes()
    loaded = UpscaleModel.load(name)
    assert loaded.deployed(bits=8, precision="fp32") == data
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()
    ports = loaded.graph(bits=10, precision="fp16")
    assert [(port.name, port.element_type) for port in (*ports.inputs, *ports.outputs)] == [
        ("samples", "uint16"),
        ("upscaled", "uint16"),
        ("means", "float32"),
    ]


def test_a_model_from_a_path_is_known_by_its_graph(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(repeating(3, 3).to_bytes())
    assert UpscaleModel.load(path).manifest == ModelManifest("rgb", 3, 0, "mine")
    assert (
        UpscaleModel.load(str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest().upper()).manifest.scale == 3
    )


def test_what_the_file_says_of_itself_counts_more_than_its_graph() -> None:
    core = with_metadata(repeating(1), kind="luma", scale="2", halo="11", name="said", licence="MIT")
    assert model(core).manifest == ModelManifest("luma", 2, 11, "said", "MIT")


def test_what_the_caller_says_counts_most() -> None:
    manifest = ModelManifest("luma", 2, 5, "mine")
    assert UpscaleModel.from_bytes(repeating(1).to_bytes(), name="x", manifest=manifest).manifest == manifest


def test_a_manifest_makes_up_for_a_graph_that_cannot_be_measured() -> None:
    core = graph([Node("GlobalAveragePool", ("x",), ("a",)), Node("Add", ("x", "a"), ("y",))], {})
    with pytest.raises(InvalidModelError, match="say the halo in the manifest"):
        model(core)
    manifest = ModelManifest("luma", 1, 0, "mine")
    loaded = UpscaleModel.from_bytes(core.to_bytes(), name="x", manifest=manifest)
    UpscaleSession(loaded, provider="cpu").run(np.zeros((1, 1, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("core", "words"),
    [
        (repeating(2), "takes 2 channels"),
        (repeating(1, opset=11), "opset 11; export it at 12 or later"),
        (
            graph([Node("Conv", ("x", "k"), ("y",), {"strides": (2, 2)})], {"k": np.ones((1, 1, 2, 2), np.float32)}),
            "enlarges by 1/2",
        ),
        (
            with_metadata(repeating(1), kind="smell", scale="2", halo="0"),
            "kind of the model 'test' is not known",
        ),
        (with_metadata(repeating(3), kind="luma", scale="2", halo="0"), "takes 3 channels, which is not luma"),
    ],
)
def test_a_network_that_is_no_upscaler_is_refused_with_the_reason(core, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidModelError, match=words):
        model(core)


@pytest.mark.parametrize("port", [Port("x", "uint8", ("n", 1, "h", "w")), Port("x", "float32", ("n", 1, "h")), None])
def test_other_inputs_are_refused(port: Port | None) -> None:
    from dataclasses import replace

    core = repeating(1)
    inputs = (port,) if port else (core.inputs[0], Port("z", "float32", (1,)))
    with pytest.raises(InvalidModelError, match=r"are wanted|one of each"):
        model(replace(core, inputs=inputs))
