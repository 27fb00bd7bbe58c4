"""Makes the pools that the loop draws from: tiles of small and large luma, clean and through real H.264.

`python -m training.dataset PACKAGES OUT.npz --scale 2`. Nearly all of each picture is used, at two sizes, cut
without overlap; the flattest third of the tiles is left out. Small planes are made with Pillow's bicubic filter
(a = -0.5, with antialiasing: what MATLAB's imresize does), the same that the benchmark measures with. The other half
of the pool is windows moved over the picture for eight frames, shrunk, encoded by x264 at a constant quality between
18 and 32 and decoded again. About every twelfth picture is held out whole.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from PIL import Image

from training.sources import Source, read_sources

Plane = npt.NDArray[np.uint8]

SIZES = (1.0, 1.6)  # by which a picture is shrunk once more
PAN_FRAMES = 8
KEPT_FRAMES = (0, 5)  # an intra frame and one that was predicted
PAN_PIXELS = 64
CLIP_FRAMES = 240
HELD_OUT = 12  # one picture in so many
JPEG = b"\xff\xd8\xff"
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


def tiles(small: Plane, large: Plane, tile: int) -> Iterator[tuple[Plane, Plane]]:
    """Cut a pair of planes into pairs of tiles, `tile` small pixels wide, that do not overlap."""
    scale = large.shape[0] // small.shape[0]
    for y in range(0, small.shape[0] - tile + 1, tile):
        for x in range(0, small.shape[1] - tile + 1, tile):
            yield (
                small[y : y + tile, x : x + tile],
                large[y * scale : (y + tile) * scale, x * scale : (x + tile) * scale],
            )


def coded_tiles(plane: Plane, tile: int, scale: int, draw: random.Random) -> Iterator[tuple[Plane, Plane]]:
    """Return pairs out of clips that pan over the plane, about as many as `tiles` makes of it."""
    wide = min(2 * tile * scale, min(plane.shape) // (16 * scale) * 16 * scale)
    reach = [min(PAN_PIXELS, side - wide) for side in plane.shape]
    for _ in range(max(1, plane.size // (tile * scale) ** 2 // 8)):
        start = [draw.randint(0, side - wide - far) for side, far in zip(plane.shape, reach, strict=True)]
        step = [draw.uniform(0, far / (PAN_FRAMES - 1)) for far in reach]
        corners = [[int(at + i * move) for at, move in zip(start, step, strict=True)] for i in range(PAN_FRAMES)]
        large = np.stack([plane[y : y + wide, x : x + wide] for y, x in corners])
        small = through_h264(np.stack([shrink(window, scale) for window in large]), draw)
        for kept in KEPT_FRAMES:
            yield from tiles(small[kept], large[kept], tile)


def clip_tiles(path: Path, shrunk: int, scale: int, tile: int, draw: random.Random) -> Iterator[tuple[Plane, Plane]]:
    """Return coded pairs of one real clip."""
    width, height = (
        int(side / shrunk) // 16 * 16 for side in next(imageio_ffmpeg.read_frames(str(path)))["source_size"]
    )
    graph = f"scale=iw/{shrunk}:ih/{shrunk}:flags=bicubic,crop={width}:{height}"
    command = [FFMPEG, "-v", "error", "-i", str(path), "-vf", graph, "-frames:v", str(CLIP_FRAMES)]
    done = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "gray", "-"], capture_output=True, check=True)
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width)
    for start in range(0, len(frames) - PAN_FRAMES, PAN_FRAMES):
        large = frames[start : start + PAN_FRAMES]
        small = through_h264(np.stack([shrink(plane, scale) for plane in large]), draw)
        for kept in KEPT_FRAMES:
            yield from tiles(small[kept], large[kept], tile)


def opened(path: Path) -> Image.Image:
    """Open a picture; of an Edje theme the largest JPEG that lies in it as it is."""
    if path.suffix != ".edj":
        return Image.open(path)
    packed = path.read_bytes()
    entries = struct.iter_unpack(">6i", packed[12 : 12 + 24 * struct.unpack(">3i", packed[:12])[1]])
    files = [packed[at : at + size] for at, size, *_ in entries]
    return Image.open(io.BytesIO(max((data for data in files if data.startswith(JPEG)), key=len)))


def planes(path: Path, shrunk: float, least: int, multiple: int) -> Iterator[Plane]:
    """Return the luma of a picture at each size that is large enough, cut to multiples of the scale."""
    with opened(path) as image:
        rgb = image.convert("RGB")
    for size in SIZES:
        width, height = (round(side / shrunk / size) for side in rgb.size)
        if min(width, height) >= least:
            smaller = rgb.resize((width, height), Image.Resampling.BICUBIC) if shrunk * size > 1 else rgb
            yield luma(smaller)[: height // multiple * multiple, : width // multiple * multiple]


Pairs = list[tuple[Plane, Plane]]


def of_source(source: Source, folder: Path, scale: int, tile: int, seed: int) -> tuple[Pairs, Pairs]:
    """Return the clean and the coded pairs of one picture or clip."""
    draw = random.Random(seed + zlib.crc32(source.path.encode()))
    path = source.file(folder)
    if path.suffix == ".gz":
        plain = path.with_suffix("")
        if not plain.exists():
            with gzip.open(path) as packed, plain.open("wb") as out:
                shutil.copyfileobj(packed, out)
        path = plain
    if path.suffix in {".avi", ".mp4"}:
        return [], list(clip_tiles(path, int(source.shrink), scale, tile, draw))
    clean: Pairs = []
    coded: Pairs = []
    for plane in planes(path, source.shrink, tile * scale, scale):
        clean += tiles(shrink(plane, scale), plane, tile)
        coded += coded_tiles(plane, tile, scale, draw)
    return clean, coded


def held_out(source: Source) -> bool:
    """Return whether a source is for validation alone."""
    return zlib.crc32(source.path.encode()) % HELD_OUT == 0


def main() -> None:
    """Build the pools of one scale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scale", type=int, required=True, choices=(2, 4))
    parser.add_argument("--tile", type=int, default=96, help="small pixels")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    sources = read_sources()
    with ThreadPoolExecutor(2) as pool:
        parts = list(
            pool.map(
                lambda source: of_source(source, arguments.packages, arguments.scale, arguments.tile, arguments.seed),
                sources,
            )
        )
    arrays = {}
    for number, name in enumerate(("clean", "coded")):
        found = [(source, *pair) for source, part in zip(sources, parts, strict=True) for pair in part[number]]
        sharp = np.array([sharpness(large) for _, _, large in found])
        kept = [found[i] for i in np.flatnonzero(sharp > np.quantile(sharp, 1 / 3))]
        arrays[f"{name}_small"] = np.stack([small for _, small, _ in kept])
        arrays[f"{name}_large"] = np.stack([large for _, _, large in kept])
        arrays[f"{name}_weight"] = np.array([source.weight for source, _, _ in kept], np.float32)
        arrays[f"{name}_held"] = np.array([held_out(source) for source, _, _ in kept])
        print(name, len(found), "tiles,", len(kept), "kept,", int(arrays[f"{name}_held"].sum()), "held out")
    np.savez(arguments.output, **arrays)


if __name__ == "__main__":
    main()
