"""Networks by path, their graphs and their manifests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto
from tests.networks import graph, model, node, port, repeating, with_metadata

from reel_modal._upscaling.model import ModelManifest, UpscaleModel
from reel_modal._upscaling.session import UpscaleSession
from reel_modal.errors import InvalidModelError


def test_model_from_path_gets_manifest_from_its_graph(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(repeating(3, 3).SerializeToString())
    assert UpscaleModel.load(path).manifest == ModelManifest("rgb", 3, 0, "mine")
    assert (
        UpscaleModel.load(str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest().upper()).manifest.scale == 3
    )


def test_model_metadata_overrides_its_graph() -> None:
    core = with_metadata(repeating(1), kind="luma", scale="2", halo="11", name="said", licence="MIT")
    assert model(core).manifest == ModelManifest("luma", 2, 11, "said", "MIT")


def test_model_manifest_argument_overrides_the_file() -> None:
    manifest = ModelManifest("luma", 2, 5, "mine")
    assert UpscaleModel.from_bytes(repeating(1).SerializeToString(), name="x", manifest=manifest).manifest == manifest


def test_model_manifest_replaces_unmeasurable_receptive_field() -> None:
    core = graph([node("GlobalAveragePool", ("x",), ("a",)), node("Add", ("x", "a"), ("y",))], {})
    with pytest.raises(InvalidModelError, match="set the halo in the manifest"):
        model(core)
    manifest = ModelManifest("luma", 1, 0, "mine")
    loaded = UpscaleModel.from_bytes(core.SerializeToString(), name="x", manifest=manifest)
    UpscaleSession(loaded, provider="cpu").run(np.zeros((1, 1, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("core", "words"),
    [
        (repeating(2), "has 2 input channels"),
        (repeating(1, opset=11), "opset 11; export it with opset 12 or later"),
        (
            graph([node("Conv", ("x", "k"), ("y",), {"strides": (2, 2)})], {"k": np.ones((1, 1, 2, 2), np.float32)}),
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


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            [port("x", TensorProto.UINT8, ("n", 1, "h", "w"))],
            "'x' of the model is uint8 with 4 dimensions; it must be",
        ),
        ([port("x", TensorProto.FLOAT, ("n", 1, "h"))], "'x' of the model is float32 with 3 dimensions; it must be"),
        ([port("x", TensorProto.FLOAT, ("n", 1, "h", "w")), port("z", TensorProto.FLOAT, (1,))], "has 2 inputs"),
    ],
)
def test_model_with_other_inputs_is_refused(inputs: list[ValueInfoProto], words: str) -> None:
    with pytest.raises(InvalidModelError, match=words):
        model(repeating(1, inputs=inputs))
