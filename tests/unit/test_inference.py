"""Networks on a device: precision, overflow and unavailable devices."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from tests.networks import graph, model, node, repeating, with_metadata
from tests.unit.picture import picture

from reel_modal._upscaling.model import UpscaleModel
from reel_modal._upscaling.session import UpscaleSession, available_providers
from reel_modal.errors import InvalidModelError, ProviderUnavailableError
from reel_modal.settings import BUNDLED_MODELS


def whole_picture() -> np.ndarray:
    return picture()[None, None, :180, :320]


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_session_fp16_is_within_two_levels_of_fp32(name: str) -> None:
    loaded, detail = UpscaleModel.load(name), whole_picture()[..., :96, :160]
    single, half = (
        UpscaleSession(loaded, provider="cpu", precision=precision, threads=1).run(detail).astype(int)
        for precision in ("fp32", "fp16")
    )
    assert np.abs(single - half).max() <= 2
    assert (single != half).mean() < 0.05


def test_session_fp16_overflow_is_recomputed_in_fp32() -> None:
    used = UpscaleSession(model(repeating(1, gain=1e6)), provider="cpu", precision="fp16", threads=1)
    large = used.run(whole_picture())
    assert used.redone == 1
    np.testing.assert_array_equal(large[0, 0], picture()[:180, :320].repeat(2, 0).repeat(2, 1))


def test_session_recomputes_only_pictures_that_overflow() -> None:
    many = np.array(300, np.float32)
    core = graph(
        [
            node("Mul", ("x", "many"), ("a",)),
            node("Mul", ("a", "many"), ("b",)),
            # The CPU computes in single precision and rounds to half only at the inputs of half-precision operations.
            node("Concat", ("b", "b"), ("c",), {"axis": 1}),
            node("Slice", ("c", "none", "one", "one"), ("d",)),
            node("Div", ("d", "many"), ("e",)),
            node("Div", ("e", "many"), ("y",)),
        ],
        {"many": many, "none": np.array([0]), "one": np.array([1])},
    )
    core = with_metadata(core, kind="luma", scale="1", halo="0")
    used = UpscaleSession(model(core), provider="cpu", precision="fp16", threads=1)
    used.run(np.full((1, 1, 8, 8), 60, np.uint8))
    assert used.redone == 0
    bright = np.full((2, 1, 8, 8), 60, np.uint8)
    bright[1, 0, 3, 3] = 250
    np.testing.assert_array_equal(used.run(bright), bright)
    assert used.redone == 1


def test_session_nan_output_is_an_error() -> None:
    core = graph([node("Sub", ("x", "one"), ("a",)), node("Log", ("a",), ("y",))], {"one": np.array(1, np.float32)})
    used = UpscaleSession(model(core, "logarithm"), provider="cpu", threads=1)
    with pytest.raises(InvalidModelError, match="'logarithm' returns NaN or infinity"):
        used.run(whole_picture())


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_session_runs_networks_of_other_opsets(opset: int) -> None:
    used = UpscaleSession(model(repeating(3, opset=opset)), provider="cpu", threads=1)
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7)).astype(np.uint8)
    np.testing.assert_array_equal(used.run(colour), colour.repeat(2, 2).repeat(2, 3))


def test_session_ten_bit_samples_are_integers_up_to_1023() -> None:
    used = UpscaleSession(model(repeating(1)), provider="cpu", bits=10, threads=1)
    levels = np.arange(1024, dtype=np.uint16).reshape(1, 1, 32, 32)
    np.testing.assert_array_equal(used.run(levels), levels.repeat(2, 2).repeat(2, 3))


def test_session_engine_names_device_precision_and_network() -> None:
    assert UpscaleSession(UpscaleModel.load("small-x2"), provider="cpu").engine == "onnxruntime-cpu fp32 small-x2"


def test_session_busy_seconds_accumulate() -> None:
    used = UpscaleSession(UpscaleModel.load("small-x2"), provider="cpu")
    used.run(whole_picture())
    once = used.busy_seconds
    used.run(whole_picture())
    assert used.busy_seconds > once > 0


@pytest.mark.skipif("cuda" in available_providers(), reason="this ONNX Runtime has CUDA: `make bench-gpu` tests it")
def test_session_cuda_not_built_in_is_an_error_with_its_cure() -> None:
    with pytest.raises(ProviderUnavailableError, match=r"onnxruntime-gpu\[cuda,cudnn\]"):
        UpscaleSession(UpscaleModel.load("small-x2"), provider="cuda")


def test_session_cuda_fallback_to_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a machine without a driver, ONNX Runtime with CUDA returns a session that runs on the CPU.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, options, providers: providers and real(data, options, ["CPUExecutionProvider"]),
    )
    with pytest.raises(ProviderUnavailableError, match="could not start on it"):
        UpscaleSession(UpscaleModel.load("small-x2"), provider="cuda")


def test_session_refused_network_shows_onnx_runtimes_message() -> None:
    core = with_metadata(graph([node("Nonsense", ("x",), ("y",))], {}), kind="luma", scale="1", halo="0")
    with pytest.raises(InvalidModelError, match=r"refuses the model 'test'.*Nonsense"):
        UpscaleSession(model(core), provider="cpu")


@pytest.mark.parametrize(
    ("side", "channels"),
    [(3, 1), (1, 4)],
    ids=["not padded", "more channels"],
)
def test_session_wrong_output_shape_is_refused(side: int, channels: int) -> None:
    core = graph([node("Conv", ("x", "k"), ("y",))], {"k": np.ones((channels, 1, side, side), np.float32)})
    used = UpscaleSession(model(core), provider="cpu")
    with pytest.raises(InvalidModelError, match=r"returns the shape .* its manifest requires \(1, 1, 8, 8\)"):
        used.run(np.zeros((1, 1, 8, 8), np.uint8))
