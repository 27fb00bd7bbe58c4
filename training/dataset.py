"""Makes the pools that the loop draws from: pairs of small and large luma planes, clean and through real H.264.

`python -m training.dataset PACKAGES OUT.npz --scale 2`. Small planes are made with Pillow's bicubic filter (a = -0.5,
with antialiasing: what MATLAB's imresize does), the same that the benchmark measures with. The other half of the
pool is the same kind of window, moved over the picture for eight frames, shrunk, encoded by x264 at a constant
quality between 18 and 32 and decoded again.
"""

from __future__ import annotations

import argparse
import gzip
import random
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from PIL import Image

from training.sources import Source, read_sources

Plane = npt.NDArray[np.uint8]

WINDOW = 384  # pixels of the large plane: a multiple of both scales, of 16 and of the patch
PAN_FRAMES = 8
KEPT_FRAMES = (0, 3, 6)  # an intra frame and two that were predicted
CLEAN_WINDOWS = 8
CODED_WINDOWS = 5
CLIP_FRAMES = 240
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
Image.MAX_IMAGE_PIXELS = None


def luma(image: Image.Image) -> Plane:
    """Return the BT.601 limited-range luma of a picture."""
    rgb = np.asarray(image.convert("RGB"), np.float32) / 255
    return np.rint(16 + rgb @ np.array([65.481, 128.553, 24.966], np.float32)).astype(np.uint8)


def shrink(plane: Plane, scale: int) -> Plane:
    """Return the plane `scale` times smaller, as the network will see it."""
    size = (plane.shape[1] // scale, plane.shape[0] // scale)
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC))


def sharpness(plane: Plane) -> float:
    """Return the mean absolute gradient, in levels a pixel."""
    wide = plane.astype(np.int16)
    return float(np.abs(np.diff(wide, axis=0)).mean() + np.abs(np.diff(wide, axis=1)).mean())


def sharp_corners(plane: Plane, height: int, width: int, count: int, draw: random.Random) -> list[tuple[int, int]]:
    """Return the upper left corners of the sharpest of many windows drawn at random."""
    rows, columns = plane.shape[0] - height, plane.shape[1] - width
    corners = [(draw.randint(0, rows), draw.randint(0, columns)) for _ in range(5 * count)]
    corners.sort(key=lambda at: -sharpness(plane[at[0] : at[0] + height, at[1] : at[1] + width]))
    return corners[:count]


def through_h264(frames: npt.NDArray[np.uint8], draw: random.Random) -> npt.NDArray[np.uint8]:
    """Encode planes (N, H, W) as one clip at a drawn quality, and return what a decoder gets."""
    count, height, width = frames.shape
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{width}x{height}"]
    preset = draw.choice(["veryfast", "fast", "medium"])
    with tempfile.TemporaryDirectory() as folder:
        coded = f"{folder}/clip.mkv"
        quality = ["-c:v", "libx264", "-preset", preset, "-crf", str(draw.randint(18, 32)), "-threads", "1"]
        encode = [FFMPEG, "-v", "error", *raw, "-r", "25", "-i", "-", *quality, coded]
        subprocess.run(encode, input=frames.tobytes(), check=True)
        decode = [FFMPEG, "-v", "error", "-i", coded, "-f", "rawvideo", "-pix_fmt", "gray", "-"]
        decoded = subprocess.run(decode, capture_output=True, check=True).stdout
    return np.frombuffer(decoded, np.uint8).reshape(count, height, width)


def of_picture(plane: Plane, scale: int, seed: int) -> tuple[list[tuple[Plane, Plane]], list[tuple[Plane, Plane]]]:
    """Return the clean and the coded pairs of one picture."""
    draw = random.Random(seed)
    clean = [
        (shrink(window := plane[y : y + WINDOW, x : x + WINDOW], scale), window)
        for y, x in sharp_corners(plane, WINDOW, WINDOW, CLEAN_WINDOWS, draw)
    ]
    coded = []
    reach = min(64, min(plane.shape) - WINDOW)
    for y, x in sharp_corners(plane, WINDOW + reach, WINDOW + reach, CODED_WINDOWS, draw):
        step = [draw.uniform(0, reach / (PAN_FRAMES - 1)) for _ in range(2)]
        corners = [(y + int(i * step[0]), x + int(i * step[1])) for i in range(PAN_FRAMES)]
        large = np.stack([plane[a : a + WINDOW, b : b + WINDOW] for a, b in corners])
        small = through_h264(np.stack([shrink(window, scale) for window in large]), draw)
        coded += [(small[i], large[i]) for i in KEPT_FRAMES]
    return clean, coded


def of_clip(path: Path, shrunk: int, scale: int, seed: int) -> list[tuple[Plane, Plane]]:
    """Return coded pairs of one real clip: windows at a fixed place over successive frames."""
    draw = random.Random(seed)
    width, height = (side // shrunk // 16 * 16 for side in next(imageio_ffmpeg.read_frames(str(path)))["source_size"])
    graph = f"scale=iw/{shrunk}:ih/{shrunk}:flags=bicubic,crop={width}:{height}"
    command = [FFMPEG, "-v", "error", "-i", str(path), "-vf", graph, "-frames:v", str(CLIP_FRAMES)]
    done = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "gray", "-"], capture_output=True, check=True)
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width)
    pairs = []
    for start in range(0, len(frames) - PAN_FRAMES, PAN_FRAMES):
        large = frames[start : start + PAN_FRAMES]
        small = through_h264(np.stack([shrink(plane, scale) for plane in large]), draw)
        pairs += [(small[i], large[i]) for i in KEPT_FRAMES]
    return pairs


def load(source: Source, folder: Path) -> Plane:
    """Return the luma of a picture, shrunk as the table says."""
    with Image.open(source.file(folder)) as image:
        rgb = image.convert("RGB")
        size = (max(rgb.width // source.shrink, WINDOW), max(rgb.height // source.shrink, WINDOW))
        return luma(rgb.resize(size, Image.Resampling.BICUBIC) if size != rgb.size else rgb)


def build(folder: Path, scale: int, seed: int) -> tuple[list[tuple[Plane, Plane]], list[tuple[Plane, Plane]]]:
    """Return the clean and the coded pairs of every source."""

    def one(numbered: tuple[int, Source]) -> tuple[list[tuple[Plane, Plane]], list[tuple[Plane, Plane]]]:
        number, source = numbered
        path = source.file(folder)
        if path.suffix == ".gz":
            plain = path.with_suffix("")
            if not plain.exists():
                with gzip.open(path) as packed, plain.open("wb") as out:
                    shutil.copyfileobj(packed, out)
            path = plain
        if path.suffix in {".avi", ".mp4"}:
            return [], of_clip(path, source.shrink, scale, seed + number)
        return of_picture(load(source, folder), scale, seed + number)

    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(one, enumerate(read_sources())))
    return [pair for clean, _ in parts for pair in clean], [pair for _, coded in parts for pair in coded]


def pack(pairs: list[tuple[Plane, Plane]], scale: int, patch: int) -> tuple[Plane, Plane]:
    """Cut pairs into patches, `patch` small pixels wide, and drop the flattest third; return (N, h, w) twice."""
    small, large, sharp = [], [], []
    for little, big in pairs:
        for y in range(0, little.shape[0] - patch + 1, patch // 2):
            for x in range(0, little.shape[1] - patch + 1, patch // 2):
                window = big[scale * y : scale * (y + patch), scale * x : scale * (x + patch)]
                small.append(little[y : y + patch, x : x + patch])
                large.append(window)
                sharp.append(sharpness(window))
    keep = np.flatnonzero(np.array(sharp) > np.quantile(sharp, 1 / 3))
    return np.stack([small[i] for i in keep]), np.stack([large[i] for i in keep])


def main() -> None:
    """Build the pools of one scale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scale", type=int, required=True, choices=(2, 4))
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    clean, coded = build(arguments.packages, arguments.scale, arguments.seed)
    arrays = {}
    for name, pairs in (("clean", clean), ("coded", coded)):
        arrays[f"{name}_small"], arrays[f"{name}_large"] = pack(pairs, arguments.scale, 32)
        print(name, len(pairs), "windows", arrays[f"{name}_small"].shape, "patches")
    np.savez(arguments.output, **arrays)


if __name__ == "__main__":
    main()
