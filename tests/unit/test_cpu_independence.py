"""Identical pixels on every processor.

The digests were recorded once; running these tests compares this machine with them. Each library is configured to
disable some instructions, as on older processors, and if qemu is installed, whole processors are emulated. A digest
changes only if the pixels are meant to change.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests import kernels

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.filters import tag_filters
from reel_modal.media.frames import ColorTags
from reel_modal.media.hdr import tone_map_filters
from reel_modal.settings import Settings

DIGESTS = {
    "resample 8 bits": "f490dfab2b7fb33c",
    "resample 10 bits": "58da2c3092979569",
    "frame, cover": "a04528accc3586cc",
    "frame, blurred background": "a89aabe632c8377b",
    "frame, coloured background": "ada88ab6bc3f1d4b",
    "mix two frames": "dfef8e6e5ce96c36",
    "darken 8 bits": "60ec0d6315464a69",
    "darken 10 bits": "a05b86385d9e99c4",
    "darken, soft edge": "c32ab5c05dc39840",
    "brighten 8 bits": "d22726a368eb187a",
    "brighten 10 bits": "5c2838f44c441538",
    "upscale luma 8 bits": "8009c2abc9514749",
    "upscale luma 10 bits": "4cc5610a80196a8d",
    "upscale luma to another size": "1d6cc2aa5204c3fa",
    "upscale RGB 8 bits": "136fe59eb9b81042",
    "upscale RGB 10 bits": "f201c40e4d46b7fa",
}
OPENCV_WITHOUT_AVX512 = "AVX512-SKX"
OPENCV_WITHOUT_AVX2 = f"{OPENCV_WITHOUT_AVX512},AVX2,FMA3"
OPENCV_BASELINE = f"{OPENCV_WITHOUT_AVX2},AVX,FP16,SSE4.2,SSE4.1,SSSE3,POPCNT"
SETTINGS = {
    "as it is": {},
    "no AVX-512": {
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR AVX512F AVX512CD AVX512_SKX",
        "OPENCV_CPU_DISABLE": OPENCV_WITHOUT_AVX512,
        "OPENCV_IPP": "avx2",
    },
    "Zen": {"OPENBLAS_CORETYPE": "Zen"},
    "AVX-512": {"OPENBLAS_CORETYPE": "SkylakeX", "OPENCV_IPP": "avx512"},
    "no AVX2, no fused multiply-add": {
        "OPENBLAS_CORETYPE": "Sandybridge",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 AVX512F AVX512CD AVX512_SKX",
        "OPENCV_CPU_DISABLE": OPENCV_WITHOUT_AVX2,
        "OPENCV_IPP": "sse42",
    },
    "SSE3": {"OPENBLAS_CORETYPE": "Prescott", "OPENCV_CPU_DISABLE": OPENCV_BASELINE, "OPENCV_IPP": "disabled"},
    "one thread": {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
}
EMULATED = ("Nehalem", "Haswell")
CHOOSING = ("OPENBLAS_", "NPY_", "OPENCV_", "OMP_")
QEMU = shutil.which("qemu-x86_64")
needs_qemu = pytest.mark.skipif(
    QEMU is None or platform.machine() != "x86_64", reason="qemu-x86_64 is not installed, or this is no x86-64 Linux"
)


def run(*command: str, **variables: str) -> str:
    """Run a command without variables that choose instructions, except `variables`; return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(CHOOSING)}
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, **variables}, check=False)
    if done.returncode == -signal.SIGILL:
        pytest.skip("this processor does not have these instructions")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("setting", SETTINGS)
def test_kernels_other_instructions_give_equal_bytes(setting: str) -> None:
    output = run(sys.executable, "-m", "tests.kernels", **SETTINGS[setting])
    assert json.loads(output) == DIGESTS


@needs_qemu
@pytest.mark.parametrize("processor", EMULATED)
def test_kernels_emulated_processors_give_equal_bytes(processor: str) -> None:
    output = run(str(QEMU), "-cpu", processor, sys.executable, "-m", "tests.kernels")
    assert json.loads(output) == DIGESTS


@needs_qemu
def test_networks_emulated_differ_by_one_level_in_few_samples(tmp_path: Path) -> None:
    """ONNX Runtime's summation order depends on the processor and cannot be configured."""
    file = tmp_path / "networks.npz"
    run(str(QEMU), "-cpu", "Nehalem", sys.executable, "-m", "tests.kernels", "networks", str(file))
    with np.load(file) as emulated:
        for name, local in kernels.networks().items():
            difference = np.abs(emulated[name].astype(int) - local)
            assert difference.max() <= 1, name
            assert (difference > 0).mean() < 2e-4, name


@needs_qemu
@pytest.mark.parametrize(("processor", "most"), [("Nehalem", 1e-4), ("Haswell", 0.0)])
def test_tone_map_emulated_noise_differs_by_one_level(processor: str, most: float) -> None:
    """zscale's default curves are approximate: they differ by up to 49 levels between processors."""
    size, path = (160, 90), find_ffmpeg(Settings(ffmpeg=None)).path
    noise = np.random.default_rng(5).integers(64, 941, size[0] * size[1] * 3 // 2, np.uint16).tobytes()
    tags = ColorTags(range="tv", matrix="bt2020nc", primaries="bt2020", transfer="smpte2084")
    filters = ",".join([*tag_filters(tags, Fraction(1)), *tone_map_filters(tags, None)])
    source = ("-f", "rawvideo", "-pixel_format", "yuv420p10le", "-video_size", f"{size[0]}x{size[1]}", "-i", "pipe:0")
    command = (path, "-v", "error", *source, "-vf", filters, "-f", "rawvideo", "pipe:1")
    local, emulated = (
        np.frombuffer(
            subprocess.run(each, input=noise, capture_output=True, check=True, timeout=100).stdout, np.uint8
        )
        for each in (command, (str(QEMU), "-cpu", processor, *command))
    )
    difference = np.abs(local.astype(int) - emulated)
    assert len(local) == size[0] * size[1] * 3 // 2
    assert difference.max() <= 1
    assert (difference > 0).mean() <= most
