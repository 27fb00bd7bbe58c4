"""The files of the bundled networks: their facts, and the graph around each network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.networks import repeating
from training.wrap import write_files

from reel_modal._upscaling.bundled import BUNDLED, RUNTIME_GRAPHS
from reel_modal._upscaling.manifest import ModelManifest, Precision
from reel_modal._upscaling.model import UpscaleModel
from reel_modal._upscaling.session import UpscaleSession
from reel_modal._upscaling.user_network import read_network
from reel_modal.errors import InvalidModelError
from reel_modal.settings import BUNDLED_MODELS, MODEL_FAMILIES

FOLDER = BUNDLED["small-x2"].path.parent
WITHOUT_ONNX = "import sys; sys.modules['onnx'] = None"


def test_bundled_models_have_both_scales_of_each_family() -> None:
    assert tuple(BUNDLED) == BUNDLED_MODELS == ("small-x2", "small-x4", "large-x2", "large-x4")
    for family in MODEL_FAMILIES:
        for scale in (2, 4):
            manifest = UpscaleModel.load(f"{family}-x{scale}").manifest
            assert (manifest.kind, manifest.scale, manifest.licence) == ("luma", scale, "Apache-2.0")


def test_bundled_models_keep_their_file_size_limits() -> None:
    for name in BUNDLED_MODELS:
        whole, *others = (
            Path(BUNDLED[name].runtime_model(bits=bits, precision=precision)).stat().st_size
            for bits, precision in RUNTIME_GRAPHS
        )
        assert whole <= 100_000 if name.startswith("small") else 200_000 <= whole <= 2_000_000
        assert max(others) <= 20_000


def test_bundled_table_matches_metadata_of_every_file() -> None:
    for name, network in BUNDLED.items():
        assert network.manifest.name == name
        for bits, precision in RUNTIME_GRAPHS:
            session = onnxruntime.InferenceSession(network.runtime_model(bits=bits, precision=precision))
            metadata = session.get_modelmeta().custom_metadata_map
            assert ModelManifest.from_metadata(metadata, "") == network.manifest
            kind = "tensor(uint8)" if bits == 8 else "tensor(uint16)"
            assert [(each.name, each.type) for each in (*session.get_inputs(), *session.get_outputs())] == [
                ("samples", kind),
                ("upscaled", kind),
                ("means", "tensor(float)"),
            ]


def test_bundled_table_has_width_of_the_weights() -> None:
    for name, network in BUNDLED.items():
        assert read_network(network.path.read_bytes(), name=name).widest == network.widest


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_bundled_files_are_written_again_byte_for_byte(name: str, tmp_path: Path) -> None:
    core = read_network(BUNDLED[name].path.read_bytes(), name=name).core
    for path in write_files(core, BUNDLED[name].manifest, tmp_path):
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name


def test_bundled_folder_has_no_other_file() -> None:
    expected = {
        network.runtime_model(bits=bits, precision=precision)
        for network in BUNDLED.values()
        for bits, precision in RUNTIME_GRAPHS
    }
    assert {str(path) for path in FOLDER.iterdir()} == expected


@pytest.mark.parametrize(("bits", "precision"), RUNTIME_GRAPHS)
@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_bundled_file_computes_what_the_wrapped_network_computes(name: str, bits: int, precision: Precision) -> None:
    bundled = UpscaleModel.load(name)
    by_hand = UpscaleModel.from_bytes(BUNDLED[name].path.read_bytes(), name=name)
    assert (by_hand.manifest, by_hand.sha256) == (bundled.manifest, bundled.sha256)
    samples = np.random.default_rng(0).integers(0, 1 << bits, (2, 1, 33, 47))
    samples = samples.astype(np.uint8 if bits == 8 else np.uint16)
    expected, actual = (
        UpscaleSession(each, provider="cpu", bits=bits, precision=precision, threads=1).run(samples)
        for each in (by_hand, bundled)
    )
    np.testing.assert_array_equal(actual, expected)


def test_bundled_network_for_other_bits_is_refused() -> None:
    with pytest.raises(InvalidModelError, match="'small-x2' is for 8 or 10 bits, not 12"):
        UpscaleSession(UpscaleModel.load("small-x2"), provider="cpu", bits=12)


def test_bundled_network_with_other_hash_is_refused() -> None:
    with pytest.raises(InvalidModelError, match="'small-x2' does not have the sha256"):
        UpscaleModel.load("small-x2", sha256="ab" * 32)


def test_bundled_network_with_a_manifest_takes_it() -> None:
    manifest = ModelManifest("luma", 2, 20, "wider")
    assert UpscaleModel.load("small-x2", manifest=manifest).manifest == manifest
    with pytest.raises(InvalidModelError, match="has the scale 4, but its graph has the scale 2"):
        UpscaleModel.load("small-x2", manifest=ModelManifest("luma", 4, 8, "other"))


def run(code: str) -> str:
    """Run code in a new interpreter and return the last line of its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", f"{WITHOUT_ONNX}\n{code}"], capture_output=True, text=True, check=False
    )
    return done.stderr.strip().rpartition("\n")[2]


def test_bundled_network_needs_no_onnx() -> None:
    code = """
import numpy as np
from reel_modal.functions.apply_upscale import UpscaleModel, UpscaleSession
for bits, kind in ((8, np.uint8), (10, np.uint16)):
    session = UpscaleSession(UpscaleModel.load("small-x2"), provider="cpu", bits=bits)
    assert session.run(np.zeros((1, 1, 8, 8), kind)).shape == (1, 1, 16, 16)
"""
    assert run(code) == ""


@pytest.mark.parametrize(
    "call",
    [
        "UpscaleModel.load('mine.onnx')",
        "UpscaleModel.load('http://127.0.0.1:1/mine.onnx', sha256='0' * 64, allow_private_addresses=True)",
        "UpscaleModel.load_registered('mine', ModelSource('/mine.onnx', '0' * 64))",
        "UpscaleModel.from_bytes(b'', name='mine')",
    ],
)
def test_network_of_a_user_without_onnx_names_the_extra(call: str) -> None:
    error = run(
        f"from reel_modal import ModelSource\nfrom reel_modal.functions.apply_upscale import UpscaleModel\n{call}"
    )
    assert error.startswith("reel_modal.errors.MissingDependencyError: ")
    assert error.endswith("pip install 'reel-modal[models]'")


def test_command_line_without_onnx_names_the_extra(tmp_path: Path) -> None:
    network, clip = tmp_path / "mine.onnx", tmp_path / "clip.mp4"
    network.write_bytes(repeating(1).SerializeToString())
    clip.write_bytes(b"not read: the network is loaded first")
    arguments = ["apply-upscale", str(clip), str(tmp_path / "out.mp4"), "--scale", "2", "--model", str(network)]
    error = run(f"from reel_modal.cli import main\nsys.exit(main({arguments!r}))")
    assert error.endswith("pip install 'reel-modal[models]'")


def test_realesrgan_without_onnx_names_the_extra() -> None:
    error = run("import reel_modal.contrib.realesrgan")
    assert error.startswith("reel_modal.errors.MissingDependencyError: ")
    assert error.endswith("pip install 'reel-modal[realesrgan]'")
