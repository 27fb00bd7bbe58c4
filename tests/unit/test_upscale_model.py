"""Networks by name and by path, their graphs and their manifests."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from tests.networks import graph, model, repeating, with_metadata

from reel_modal._upscaling.model import ModelManifest, UpscaleModel
from reel_modal._upscaling.onnx_graph import Node, Port
from reel_modal._upscaling.session import UpscaleSession
from reel_modal.errors import InvalidModelError
from reel_modal.settings import BUNDLED_MODELS, MODEL_FAMILIES


def test_bundled_models_have_both_scales_of_each_family() -> None:
    assert BUNDLED_MODELS == ("small-x2", "small-x4", "large-x2", "large-x4")
    for family in MODEL_FAMILIES:
        for scale in (2, 4):
            manifest = UpscaleModel.load(f"{family}-x{scale}").manifest
            assert (manifest.kind, manifest.scale, manifest.licence) == ("luma", scale, "Apache-2.0")


def test_bundled_models_keep_their_file_size_limits() -> None:
    sizes = {
        name: len(resources.files("reel_modal._upscaling").joinpath("models", f"{name}.onnx").read_bytes())
        for name in BUNDLED_MODELS
    }
    assert all(size <= 100_000 for name, size in sizes.items() if name.startswith("small"))
    assert all(200_000 <= size <= 2_000_000 for name, size in sizes.items() if name.startswith("large"))


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_bundled_model_file_is_the_fp32_runtime_graph(name: str) -> None:
    data = resources.files("reel_modal._upscaling").joinpath("models", f"{name}.onnx").read_bytes()
    loaded = UpscaleModel.load(name)
    assert loaded.deployed(bits=8, precision="fp32") == data
    assert loaded.sha256 == hashlib.sha256(data).hexdigest()
    ports = loaded.graph(bits=10, precision="fp16")
    assert [(port.name, port.element_type) for port in (*ports.inputs, *ports.outputs)] == [
        ("samples", "uint16"),
        ("upscaled", "uint16"),
        ("means", "float32"),
    ]


def test_model_from_path_gets_manifest_from_its_graph(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(repeating(3, 3).to_bytes())
    assert UpscaleModel.load(path).manifest == ModelManifest("rgb", 3, 0, "mine")
    assert (
        UpscaleModel.load(str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest().upper()).manifest.scale == 3
    )


def test_model_metadata_overrides_its_graph() -> None:
    core = with_metadata(repeating(1), kind="luma", scale="2", halo="11", name="said", licence="MIT")
    assert model(core).manifest == ModelManifest("luma", 2, 11, "said", "MIT")


def test_model_manifest_argument_overrides_the_file() -> None:
    manifest = ModelManifest("luma", 2, 5, "mine")
    assert UpscaleModel.from_bytes(repeating(1).to_bytes(), name="x", manifest=manifest).manifest == manifest


def test_model_manifest_replaces_unmeasurable_receptive_field() -> None:
    core = graph([Node("GlobalAveragePool", ("x",), ("a",)), Node("Add", ("x", "a"), ("y",))], {})
    with pytest.raises(InvalidModelError, match="set the halo in the manifest"):
        model(core)
    manifest = ModelManifest("luma", 1, 0, "mine")
    loaded = UpscaleModel.from_bytes(core.to_bytes(), name="x", manifest=manifest)
    UpscaleSession(loaded, provider="cpu").run(np.zeros((1, 1, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("core", "words"),
    [
        (repeating(2), "has 2 input channels"),
        (repeating(1, opset=11), "opset 11; export it with opset 12 or later"),
        (
            graph([Node("Conv", ("x", "k"), ("y",), {"strides": (2, 2)})], {"k": np.ones((1, 1, 2, 2), np.float32)}),
            "has the scale 1/2",
        ),
        (
            with_metadata(repeating(1), kind="smell", scale="2", halo="0"),
            "kind of the model 'test' must be luma or rgb",
        ),
        (
            with_metadata(repeating(3), kind="luma", scale="2", halo="0"),
            "3 input channels, which does not match luma",
        ),
    ],
)
def test_model_that_is_no_upscaler_is_refused_with_reason(core, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidModelError, match=words):
        model(core)


@pytest.mark.parametrize("port", [Port("x", "uint8", ("n", 1, "h", "w")), Port("x", "float32", ("n", 1, "h")), None])
def test_model_with_other_inputs_is_refused(port: Port | None) -> None:
    from dataclasses import replace

    core = repeating(1)
    inputs = (port,) if port else (core.inputs[0], Port("z", "float32", (1,)))
    with pytest.raises(InvalidModelError, match=r"it must be float32|one of each"):
        model(replace(core, inputs=inputs))
