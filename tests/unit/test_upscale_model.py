"""Networks by name, by path, by URL: what is accepted, and how what is not is said."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from tests.networks import graph, model, repeating, with_metadata

from reel_modal.errors import InvalidModelError
from reel_modal.upscaling.inference import UpscaleSession
from reel_modal.upscaling.model import BUNDLED, FAMILIES, ModelManifest, UpscaleModel
from reel_modal.upscaling.onnx_graph import Node, Port


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", folder
        serving.shutdown()
        thread.join()


def test_every_family_has_both_scales() -> None:
    assert BUNDLED == ("small-x2", "small-x4", "large-x2", "large-x4")
    for family in FAMILIES:
        for scale in (2, 4):
            manifest = UpscaleModel.load(f"{family}-x{scale}").manifest
            assert (manifest.kind, manifest.scale, manifest.licence) == ("luma", scale, "Apache-2.0")


def test_the_networks_keep_to_their_sizes() -> None:
    sizes = {
        name: len(resources.files("reel_modal.upscaling").joinpath("models", f"{name}.onnx").read_bytes())
        for name in BUNDLED
    }
    assert all(size <= 100_000 for name, size in sizes.items() if name.startswith("small"))
    assert all(200_000 <= size <= 2_000_000 for name, size in sizes.items() if name.startswith("large"))


@pytest.mark.parametrize("name", BUNDLED)
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


def test_a_model_from_a_url_is_fetched_once_and_checked(server: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = server
    data = repeating(1).to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    (folder / "net.onnx").write_bytes(data)
    cache = tmp_path / "cache"
    first = UpscaleModel.load(f"{url}/net.onnx", sha256=digest, cache=cache)
    (folder / "net.onnx").unlink()
    again = UpscaleModel.load(f"{url}/net.onnx", sha256=digest, cache=cache)
    assert first.sha256 == again.sha256 == digest
    assert [path.name for path in cache.iterdir()] == [f"{digest}.onnx"]


def test_a_damaged_copy_in_the_cache_is_fetched_again(server: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = server
    data = repeating(1).to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    (folder / "net.onnx").write_bytes(data)
    (tmp_path / f"{digest}.onnx").write_bytes(data[:-3])
    assert UpscaleModel.load(f"{url}/net.onnx", sha256=digest, cache=tmp_path).sha256 == digest
    assert (tmp_path / f"{digest}.onnx").read_bytes() == data


def test_another_file_behind_a_url_is_refused_and_not_kept(server: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = server
    (folder / "net.onnx").write_bytes(repeating(1).to_bytes())
    with pytest.raises(InvalidModelError, match=f"has the sha256 .*, not {'ab' * 32}"):
        UpscaleModel.load(f"{url}/net.onnx", sha256="ab" * 32, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_url_that_gives_nothing_is_named(server: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = server
    with pytest.raises(InvalidModelError, match=f"{url}/none.onnx could not be fetched: HTTP Error 404"):
        UpscaleModel.load(f"{url}/none.onnx", sha256="ab" * 32, cache=tmp_path)


def test_a_url_without_a_hash_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(InvalidModelError, match="needs the sha256"):
        UpscaleModel.load("https://example.invalid/net.onnx")


def test_a_hash_that_could_be_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="is no sha256"):
        UpscaleModel.load("https://example.invalid/net.onnx", sha256="../../etc/passwd", cache=tmp_path)


def test_a_path_with_another_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(repeating(1).to_bytes())
    with pytest.raises(InvalidModelError, match="has the sha256"):
        UpscaleModel.load(path, sha256="0" * 64)


def test_a_name_that_nobody_knows_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(InvalidModelError, match="one of small-x2, small-x4, large-x2, large-x4"):
        UpscaleModel.load("enormous-x16")


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
            "manifest in the model 'test' cannot be read",
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
