"""Upscaling on an NVIDIA GPU: `make bench-gpu`, on any machine with CUDA, from a checkout, without network.

It needs what `pip install '.[models]' 'onnxruntime-gpu[cuda,cudnn]'` installs, and writes
benchmarks/out/upscale_gpu.json and .md, with the device's name and the date. It measures, for each size and network:

- the network alone, by frames at once, against the roofline: what a large matrix product and a large copy reach on
  the same device in the same run;
- the whole function body, clip to clip;
- a loop in the style of Real-ESRGAN's own: OpenCV reads a frame, numpy turns it into floats, the same weights run on
  it in single precision and alone, numpy turns it back, BGR bytes go through a pipe;
- how far half precision is from single, and tiles from the whole, in levels.

`--provider cpu` runs the same on a CPU with small sizes: it says nothing but that the benchmark works.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from reel_modal import FrameReader, UpscaleRequest, probe
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._rendering.opencv import load_cv2
from reel_modal._rendering.tiles import TilePlan, enlarged
from reel_modal._upscaling.bundled import BUNDLED
from reel_modal._upscaling.model import UpscaleModel
from reel_modal._upscaling.onnx_files import build_model
from reel_modal._upscaling.session import Provider, UpscaleSession, load_onnxruntime
from reel_modal._upscaling.user_network import read_network
from reel_modal.errors import ProviderUnavailableError
from reel_modal.functions import apply_upscale
from reel_modal.functions.context import JobContext
from reel_modal.functions.upscale_plan import UpscalePlan
from reel_modal.storage import PathStorage
from reel_modal.testing import make_clip

OUT = Path(__file__).parent / "out"
SIZES = ((320, 180), (640, 360), (960, 540), (1920, 1080))
MODELS = ("small-x2", "large-x2", "large-x4")
AT_ONCE = (1, 4, 8)
MATRIX = 8192
COPY_MB = 512
WANTED_OVER_LOOP = 10


@dataclass
class Row:
    """The figures of one network at one size."""

    model: str
    size: tuple[int, int]
    network_fps: dict[int, float] = field(default_factory=dict)
    roofline_share: float = 0.0
    body_fps: float = 0.0
    body_busy_share: float = 0.0
    encoder: str = ""
    loop_fps: float = 0.0

    @property
    def over_loop(self) -> float:
        """How many times faster the whole body is than the loop."""
        return self.body_fps / self.loop_fps


def seconds_of(work: Callable[[], object], least_seconds: float = 2.0) -> float:
    """Seconds of one call, the best of many: other work only makes them longer."""
    for _ in range(3):
        work()
    took, until = [], time.perf_counter() + least_seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return min(took)


def device_name(provider: Provider) -> str:
    if provider == "cpu":
        return platform.processor() or platform.machine()
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]


def on_device(
    model: ModelProto, provider: Provider, inputs: dict[str, npt.NDArray[np.generic]]
) -> Callable[[], object]:
    """Return a call that runs a model whose inputs lie on the device already."""
    ort = load_onnxruntime()
    name = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[provider]
    session = ort.InferenceSession(model.SerializeToString(), providers=[name])
    binding = session.io_binding()
    for key, value in inputs.items():
        binding.bind_ortvalue_input(key, ort.OrtValue.ortvalue_from_numpy(value, provider, 0))
    binding.bind_output(model.graph.output[0].name, provider)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def half_model(node: NodeProto, sides: list[int]) -> ModelProto:
    """Return a model of one operation in half precision."""
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT16, sides) for name in names]
        for names in (node.input, node.output)
    )
    graph = GraphProto(name="one", node=[node], input=inputs, output=outputs)
    return build_model(graph, opset=17, metadata={})


def core_of(name: str) -> ModelProto:
    """Return a network of this package, with floats as input and output."""
    return read_network(BUNDLED[name].path.read_bytes(), name=name).core


def roofline(provider: Provider) -> tuple[float, float]:
    """What this device reaches: operations a second in half precision, and bytes a second of memory."""
    side = MATRIX if provider == "cuda" else 256
    product = half_model(helper.make_node("MatMul", "ab", "c"), [side, side])
    half = np.full((side, side), 0.01, np.float16)
    flops = 2 * side**3 / seconds_of(on_device(product, provider, {"a": half, "b": half}))
    count = (COPY_MB if provider == "cuda" else 8) * 500_000
    copying = half_model(helper.make_node("Neg", "a", "b"), [count])
    moved = 2 * 2 * count / seconds_of(on_device(copying, provider, {"a": np.ones(count, np.float16)}))
    return flops, moved


def work_of(name: str) -> tuple[float, float]:
    """Operations and bytes for one pixel of the source: each layer read and written once, in half precision."""
    graph = core_of(name).graph
    kernels = {each.name: each.dims for each in graph.initializer}
    operations = moved = 0.0
    for node in graph.node:
        if node.op_type == "Conv":
            kernel = kernels[node.input[1]]
            operations += 2 * math.prod(kernel)
            moved += 2 * (kernel[0] + kernel[1])
    return operations, moved


def frames_of(size: tuple[int, int], count: int) -> npt.NDArray[np.uint8]:
    """Pictures with detail: (count, 1, H, W)."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 1, size[1], size[0]))
    return noise.astype(np.uint8)


def accuracy(model: UpscaleModel, provider: Provider) -> dict[str, int]:
    """The most levels between half and single precision, and between tiles and the whole."""
    with tempfile.TemporaryDirectory() as scratch:
        clip = make_clip(Path(scratch) / "clip.mp4", size=(320, 180), seconds=0.1)
        with FrameReader(clip, pixel_format="gray8") as reader:
            picture = next(iter(reader)).image.copy()
    single, half = (
        UpscaleSession(model, provider=provider, precision=precision).run(picture[None, None]).astype(int)
        for precision in ("fp32", "fp16")
    )
    plan = TilePlan.of((320, 180), model.manifest.halo, 10_000)
    tiles = enlarged([picture[None]], plan, model.manifest.scale, UpscaleSession(model, provider=provider).run, 4)[0]
    whole_plan = TilePlan.of((320, 180), model.manifest.halo, 10**9)
    used = UpscaleSession(model, provider=provider)
    whole = enlarged([picture[None]], whole_plan, model.manifest.scale, used.run)[0]
    flat = np.full((1, 1, 64, 64), 77, np.uint8)
    solid = UpscaleSession(model, provider=provider).run(flat)[0, 0, 40:-40, 40:-40].astype(int)
    return {
        "half_from_single": int(np.abs(single - half).max()),
        "tiles_from_whole": int(np.abs(tiles.astype(int) - whole).max()),
        "solid_from_77": int(np.abs(solid - 77).max()),
    }


def loop_fps(clip: Path, model: str, provider: Provider, target: tuple[int, int]) -> float:
    """The style of Real-ESRGAN's own loop, with the same weights."""
    cv2 = load_cv2()
    ort = load_onnxruntime()
    name = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[provider]
    core = core_of(model)
    session = ort.InferenceSession(core.SerializeToString(), providers=[name])
    source = core.graph.input[0].name
    with tempfile.TemporaryDirectory() as scratch:
        command = [find_ffmpeg().path, "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24"]
        command += ["-s", f"{target[0]}x{target[1]}", "-r", "25", "-i", "-", "-c:v", "libx264", "-preset", "fast"]
        started, frames = time.perf_counter(), 0
        writer = subprocess.Popen([*command, "-pix_fmt", "yuv420p", f"{scratch}/out.mp4"], stdin=subprocess.PIPE)
        capture = cv2.VideoCapture(str(clip))
        while True:
            there, picture = capture.read()
            if not there:
                break
            ycc = cv2.cvtColor(picture, cv2.COLOR_BGR2YCrCb).astype(np.float32) / 255
            luma = session.run(None, {source: np.ascontiguousarray(ycc[None, None, :, :, 0])})[0][0, 0]
            large = cv2.resize(ycc, target, interpolation=cv2.INTER_CUBIC)
            large[:, :, 0] = luma
            whole = (large.clip(0, 1) * 255).round().astype(np.uint8)
            assert writer.stdin is not None
            writer.stdin.write(cv2.cvtColor(whole, cv2.COLOR_YCrCb2BGR).tobytes())
            frames += 1
        assert writer.stdin is not None
        writer.stdin.close()
        writer.wait()
    return frames / (time.perf_counter() - started)


def body(clip: Path, model: str, provider: Provider) -> tuple[float, float, str]:
    """Frames a second of the whole body, how busy the network is, and the encoder."""
    family, _, scale = model.partition("-x")
    request = UpscaleRequest(
        job_id="b", user_id="b", input_key="in.mp4", output_key="out.mp4", scale=int(scale), model=family,
        provider=provider,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        context = JobContext(storage=PathStorage(), workdir=Path(scratch))
        plan = UpscalePlan.of(request, probe(clip), context.settings)
        made = apply_upscale.upscale(plan, request, context)
    took = made.stages
    return made.file.frames / took.wall, took.infer / took.wall, made.file.encoder


def measure(model: str, size: tuple[int, int], clip: Path, provider: Provider, peak: tuple[float, float]) -> Row:
    loaded = UpscaleModel.load(model)
    row = Row(model, size)
    for count in AT_ONCE:
        session, pictures = UpscaleSession(loaded, provider=provider), frames_of(size, count)
        row.network_fps[count] = count / seconds_of(lambda used=session, given=pictures: used.run(given))  # type: ignore[misc]
    operations, moved = work_of(model)
    best_possible = 1 / (size[0] * size[1] * max(operations / peak[0], moved / peak[1]))
    row.roofline_share = max(row.network_fps.values()) / best_possible
    row.body_fps, row.body_busy_share, row.encoder = body(clip, model, provider)
    scale = loaded.manifest.scale
    row.loop_fps = loop_fps(clip, model, provider, (scale * size[0], scale * size[1]))
    return row


def table(rows: list[Row]) -> list[str]:
    lines = [
        "| network | from | network alone, fps at "
        + ", ".join(map(str, AT_ONCE))
        + " at once | of the roofline | body,"
        " fps | network busy | encoder | Real-ESRGAN's loop, fps | body / loop | target |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        alone = " / ".join(f"{row.network_fps[count]:.0f}" for count in AT_ONCE)
        lines.append(
            f"| {row.model} | {row.size[0]}x{row.size[1]} | {alone} | {100 * row.roofline_share:.0f} % |"
            f" {row.body_fps:.1f} | {100 * row.body_busy_share:.0f} % | {row.encoder} | {row.loop_fps:.1f} |"
            f" {row.over_loop:.1f} | ≥ {WANTED_OVER_LOOP} |"
        )
    return lines


def main() -> int:
    """Measure and write; return 3 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    provider: Provider = parser.parse_args().provider
    sizes, models, seconds = (SIZES, MODELS, 8) if provider == "cuda" else (((160, 90),), ("small-x2",), 1)
    try:
        UpscaleSession(UpscaleModel.load("small-x2"), provider=provider)
    except ProviderUnavailableError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 3
    peak = roofline(provider)
    levels = {model: accuracy(UpscaleModel.load(model), provider) for model in models}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            clip = make_clip(Path(scratch) / f"{size[0]}.mp4", size=size, seconds=seconds, audio_seconds=seconds)
            for model in models:
                rows.append(measure(model, size, clip, provider, peak))
                print(table(rows)[-1], file=sys.stderr)
    said = {
        "device": device_name(provider),
        "provider": provider,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "onnxruntime": load_onnxruntime().__version__,
        "half_precision_tflops": peak[0] / 1e12,
        "memory_gb_per_second": peak[1] / 1e9,
        "levels": levels,
        "rows": [asdict(row) | {"over_loop": row.over_loop} for row in rows],
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "upscale_gpu.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    reached = f"{peak[0] / 1e12:.1f} TFLOP/s in half precision, a copy {peak[1] / 1e9:.0f} GB/s"
    lines = [
        f"{said['device']}, {said['date']}, ONNX Runtime {said['onnxruntime']}: a matrix product reaches {reached}.",
        "",
        *table(rows),
        "",
        *(
            f"{model}: half precision within {found['half_from_single']} levels of single (≤ 2), tiles within"
            f" {found['tiles_from_whole']} of the whole (≤ 1), a solid picture within {found['solid_from_77']} (0)."
            for model, found in levels.items()
        ),
    ]
    (OUT / "upscale_gpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
