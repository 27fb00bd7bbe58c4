"""Networks in ncnn's format: every kind of layer, in both precisions, compared with numpy."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from reel_modal._upscaling.model import ModelManifest
from reel_modal._upscaling.session import UpscaleSession
from reel_modal.contrib.realesrgan import NAMES, from_ncnn, load
from reel_modal.errors import InvalidModelError, MissingDependencyError

PARAM = """7767517
10 12
Input                    input    0 1 data
Split                    split    1 2 data one two
Convolution              conv     1 1 two a 0=12 1=1 4=0 5=1 6=36
PReLU                    prelu    1 1 a b 0=12
PixelShuffle             shuffle  1 1 b c 0=2
Interp                   resize   1 1 one d 0=1 1=2.000000e+00 2=2.000000e+00
BinaryOp                 add      2 1 c d e 0=0
Eltwise                  half     2 1 e d output 0=1 -23301=2,5.000000e-01,5.000000e-01
"""


def weights(*, half: bool) -> bytes:
    """Return weights: each color four times, times a quarter, plus a bias; the slope is 0.5."""
    kernel = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0) * 0.25
    flag, kind = (0x01306B47, "<f2") if half else (0, "<f4")
    return b"".join(
        [
            struct.pack("<I", flag),
            kernel.astype(kind).tobytes(),
            np.full(12, 1 / 255, "<f4").tobytes(),
            np.full(12, 0.5, "<f4").tobytes(),
        ]
    )


@pytest.mark.parametrize("half", [False, True])
def test_from_ncnn_every_layer_equals_numpy(half: bool) -> None:
    loaded = from_ncnn(PARAM, weights(half=half), name="test", licence="MIT")
    assert loaded.manifest == ModelManifest("rgb", 2, 1, "test", "MIT")
    picture = np.random.default_rng(0).integers(0, 200, (1, 3, 5, 7)).astype(np.uint8)
    large = UpscaleSession(loaded, provider="cpu", threads=1).run(picture)
    expected = np.rint(picture * 1.125 + 0.5).repeat(2, 2).repeat(2, 3)
    assert np.abs(large - expected).max() <= 1


def test_from_ncnn_convolution_activations_and_concat() -> None:
    param = """7767517
5 5
Input                    input    0 1 data
Convolution              conv     1 1 data a 0=3 1=1 4=0 5=0 6=9 9=2 -23310=1,2.000000e-01
Concat                   join     2 1 a a b
Convolution              first    1 1 b output 0=3 1=1 4=0 5=0 6=18 9=1
"""
    negative = -np.eye(3, dtype="<f4")
    joined = np.concatenate([np.zeros((3, 3), "<f4"), -5 * np.eye(3, dtype="<f4")], axis=1)
    data = b"\0\0\0\0" + negative.tobytes() + b"\0\0\0\0" + joined.astype("<f4").tobytes()
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 4, 4)).astype(np.uint8)
    upscaled = UpscaleSession(from_ncnn(param, data, name="test"), provider="cpu", threads=1).run(picture)
    assert np.abs(upscaled.astype(int) - picture).max() <= 1  # -x, leaking a fifth, times -5


@pytest.mark.parametrize(
    ("param", "data", "words"),
    [
        ("hello", b"", "its first line is not 7767517"),
        (
            PARAM.replace("PReLU   ", "Swish   "),
            weights(half=False),
            "the layer prelu has the unsupported type Swish",
        ),
        (PARAM.replace("d e 0=0", "d e 0=2"), weights(half=False), "the layer add is not a plain addition"),
        (PARAM.replace("output 0=1", "output 0=0"), weights(half=False), "the layer half is not a sum"),
        (PARAM.replace("6=36", "6=36 9=4"), weights(half=False), "the layer conv has the unsupported activation 4"),
        (PARAM.replace("0 1 data", "0 1 picture"), weights(half=False), "not data"),
        (PARAM, weights(half=False)[:-1], "the weights are truncated"),
        (PARAM, weights(half=False) + b"\0", "1 bytes of weights are unused"),
        (PARAM, b"\1\0\0\0" + weights(half=False)[4:], "quantized"),
    ],
)
def test_from_ncnn_unsupported_input_is_named(param: str, data: bytes, words: str) -> None:
    with pytest.raises(InvalidModelError, match=words):
        from_ncnn(param, data, name="test")


def test_load_unknown_network_lists_known_ones() -> None:
    with pytest.raises(InvalidModelError, match=r"animevideov3-x2, .*, x4plus-anime"):
        load("x8")


def test_load_without_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"reel-modal\[realesrgan\]"):
        load(next(iter(NAMES)))
