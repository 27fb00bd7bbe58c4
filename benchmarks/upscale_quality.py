"""How near the networks come to a larger original: still pictures, and real clips through real H.264.

`python -m benchmarks.upscale_quality [FOLDER]` takes the pictures of a folder, such as Kodak's; without one, frames
of clips that the networks were not trained on. Everything is measured on luma, BT.601 in limited range as the
literature does; what is made smaller is made so by antialiased cubics (a = -0.5, what MATLAB's imresize does).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from tests.clips import REAL, real

from reel_modal import FramePipe, FrameReader
from reel_modal._rendering.tiles import TilePlan, enlarged
from reel_modal._upscaling.model import UpscaleModel
from reel_modal._upscaling.session import UpscaleSession
from reel_modal.settings import MODEL_FAMILIES

Plane = npt.NDArray[np.uint8]
Enlarge = Callable[[Plane, int], Plane]

LUMA_OF_BGR = np.array([24.966, 128.553, 65.481])
CLIP_FRAMES = 48
QUALITIES = ("clean", "23", "28")
GATES = {("small", 2): 1.5, ("large", 2): 2.0}


@cache
def session(name: str) -> UpscaleSession:
    return UpscaleSession(UpscaleModel.load(name), provider="cpu")


def by_network(family: str) -> Enlarge:
    def enlarge(plane: Plane, scale: int) -> Plane:
        used = session(f"{family}-x{scale}")
        plan = TilePlan.of((plane.shape[1], plane.shape[0]), used.model.manifest.halo, 512 * 512)
        return enlarged([plane[None]], plan, scale, used.run)[0][0].astype(np.uint8)

    return enlarge


def by_filter(method: int) -> Enlarge:
    return lambda plane, scale: np.asarray(
        cv2.resize(plane, None, fx=scale, fy=scale, interpolation=method), np.uint8
    )


METHODS: dict[str, Enlarge] = {
    "bicubic": by_filter(cv2.INTER_CUBIC),
    "Lanczos": by_filter(cv2.INTER_LANCZOS4),
    **{family: by_network(family) for family in MODEL_FAMILIES},
}


@cache
def shrinking(length: int, scale: int) -> npt.NDArray[np.float64]:
    """The matrix (length / scale, length) of antialiased cubics, edges mirrored."""
    matrix = np.zeros((length // scale, length))
    for row in range(length // scale):
        centre = (row + 0.5) * scale - 0.5
        taps = np.arange(math.floor(centre - 2 * scale), math.ceil(centre + 2 * scale) + 1)
        at = np.abs((taps - centre) / scale)
        near, far = (1.5 * at - 2.5) * at * at + 1, ((-0.5 * at + 2.5) * at - 4) * at + 2
        weights = np.where(at <= 1, near, np.where(at < 2, far, 0))
        mirrored = np.where(taps < 0, -taps - 1, np.where(taps >= length, 2 * length - 1 - taps, taps))
        np.add.at(matrix[row], mirrored, weights / weights.sum())
    return matrix


def smaller(plane: Plane, scale: int) -> Plane:
    down, across = (shrinking(side // scale * scale, scale) for side in plane.shape)
    cut = plane[: down.shape[1], : across.shape[1]]
    return np.rint(down @ cut @ across.T).clip(0, 255).astype(np.uint8)


def psnr(one: Plane, other: Plane) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def ssim(one: Plane, other: Plane) -> float:
    """Wang and others 2004: Gaussian windows of 11 x 11, deviation 1.5."""

    def soft(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(plane, (11, 11), 1.5))[5:-5, 5:-5]

    a, b = one.astype(float), other.astype(float)
    mean_a, mean_b = soft(a), soft(b)
    var_a, var_b = soft(a * a) - mean_a**2, soft(b * b) - mean_b**2
    both = soft(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    map_ = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(map_.mean())


def pictures(folder: Path | None) -> Iterator[Plane]:
    """The luma of each picture of the folder, or of some frames of the clips."""
    if folder is not None:
        for path in sorted(folder.iterdir()):
            image = cv2.imread(str(path))
            if image is not None:
                yield np.rint(16 + image / 255 @ LUMA_OF_BGR).astype(np.uint8)
        return
    for name in REAL:
        with FrameReader(real(name), pixel_format="gray8") as reader:
            yield from [frame.image.copy() for frame in reader if frame.index % 40 == 0]


def stills(folder: Path | None) -> list[str]:
    """Measure enlarged pictures; borders of as many pixels as the scale do not count."""
    lines = ["| pictures | | " + " | ".join(METHODS) + " | target |", "|---|---|" + "---|" * (len(METHODS) + 1)]
    originals = list(pictures(folder))
    what = f"{len(originals)} of {folder.name}" if folder is not None else f"{len(originals)} frames of clips"
    for scale in (2, 4):
        scores: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
        for original in originals:
            small = smaller(original, scale)
            inside = np.s_[scale : small.shape[0] * scale - scale, scale : small.shape[1] * scale - scale]
            for name, enlarge in METHODS.items():
                large = enlarge(small, scale)
                scores[name].append((psnr(large[inside], original[inside]), ssim(large[inside], original[inside])))
        means = {name: np.mean(rows, axis=0) for name, rows in scores.items()}
        gates = [
            f"{family} {means[family][0] - means['Lanczos'][0]:+.2f}, wanted {gate:+.1f}"
            for (family, gated), gate in GATES.items()
            if gated == scale
        ]
        lines.append(
            f"| {what}, x{scale} | PSNR-Y, dB | "
            + " | ".join(f"{means[name][0]:.2f}" for name in METHODS)
            + f" | over Lanczos: {'; '.join(gates) or '-'} |"
        )
        lines.append("| | SSIM | " + " | ".join(f"{means[name][1]:.4f}" for name in METHODS) + " | - |")
    return lines


@dataclass(frozen=True)
class Clip:
    """The luma of a clip, (N, H, W), and its rate."""

    name: str
    frames: npt.NDArray[np.uint8]


def original_clip(name: str) -> Clip:
    with FrameReader(real(name), pixel_format="gray8") as reader:
        frames = []
        for frame in reader:
            height, width = (side // 4 * 4 for side in frame.image.shape)
            frames.append(frame.image[:height, :width].copy())
            if len(frames) == CLIP_FRAMES:
                break
    return Clip(name.removesuffix(".mp4"), np.stack(frames))


def written(frames: Sequence[Plane], path: Path, quality: str) -> Path:
    size = (frames[0].shape[1], frames[0].shape[0])
    encoder = {"encoder": "ffv1"} if quality == "clean" else {"encoder": "libx264", "preset": "medium"}
    options = {} if quality == "clean" else {"quality": int(quality)}
    with FramePipe(path, size=size, fps=25, pixel_format="gray8", **encoder, **options) as pipe:  # type: ignore[arg-type]
        for frame in frames:
            pipe.write(np.ascontiguousarray(frame))
    return path


def vmaf(made: Path, original: Path, folder: Path) -> float:
    """The mean of libvmaf's default model; the ffmpeg in imageio-ffmpeg carries it."""
    log = folder / "vmaf.json"
    graph = f"[0:v][1:v]libvmaf=log_fmt=json:log_path={log}:n_threads=2"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", made, "-i", original, "-lavfi", graph]
    subprocess.run([*map(str, command), "-f", "null", "-"], check=True)
    return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])


def temporal_error(made: npt.NDArray[np.uint8], original: npt.NDArray[np.uint8]) -> float:
    """How much what changes from frame to frame differs: root mean square, in levels. Flicker shows here."""
    steps = [np.diff(frames.astype(np.int16), axis=0) for frames in (made, original)]
    return float(np.sqrt(np.mean((steps[0] - steps[1]).astype(float) ** 2)))


def clips() -> list[str]:
    """Measure clips that were made half as large, encoded, and enlarged again."""
    lines = ["| clip, x2 | half as large as | | " + " | ".join(METHODS) + " | target |"]
    lines.append("|---|---|---|" + "---|" * (len(METHODS) + 1))
    for name in REAL:
        clip = original_clip(name)
        for quality in QUALITIES:
            with tempfile.TemporaryDirectory() as scratch:
                lines += one_clip(clip, quality, Path(scratch))
    return lines


def one_clip(clip: Clip, quality: str, folder: Path) -> list[str]:
    small = written([smaller(frame, 2) for frame in clip.frames], folder / "small.mkv", quality)
    with FrameReader(small, pixel_format="gray8") as reader:
        decoded = [frame.image.copy() for frame in reader]
    reference = written(list(clip.frames), folder / "original.mkv", "clean")
    found: dict[str, tuple[float, float, float]] = {}
    for name, enlarge in METHODS.items():
        large = np.stack([enlarge(frame, 2) for frame in decoded])
        made = written(list(large), folder / f"{name}.mkv", "clean")
        score = float(np.mean([psnr(one, other) for one, other in zip(large, clip.frames, strict=True)]))
        found[name] = (vmaf(made, reference, folder), score, temporal_error(large, clip.frames))
    better = [name for name in MODEL_FAMILIES if found[name][0] > found["Lanczos"][0]]
    gate = (
        "-" if quality == "clean" else f"both above Lanczos: {'yes' if len(better) == len(MODEL_FAMILIES) else 'NO'}"
    )
    title = "lossless" if quality == "clean" else f"x264 crf {quality}"
    rows = [("VMAF", 0, ".1f"), ("PSNR-Y, dB", 1, ".2f"), ("temporal error", 2, ".2f")]
    return [
        f"| {clip.name if at == 0 else ''} | {title if at == 0 else ''} | {what} | "
        + " | ".join(format(found[name][at], form) for name in METHODS)
        + f" | {gate if at == 0 else '-'} |"
        for what, at, form in rows
    ]


def main(folder: Path | None = None) -> list[str]:
    """Run and return the tables as Markdown."""
    named = folder or (Path(os.environ["REEL_MODAL_IMAGES"]) if "REEL_MODAL_IMAGES" in os.environ else None)
    return [*stills(named), "", *clips()]


if __name__ == "__main__":
    print("\n".join(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)))
