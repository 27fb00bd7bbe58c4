"""Image files for layers, and a slow reference of how they look on a flat frame."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from tests.clips import ffmpeg

PNG = b"\x89PNG\r\n\x1a\n"
RGBA, GRAY, RGB = 6, 0, 2
ROTATED = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size: tuple[int, int], *, bits: int = 8, kind: int = RGBA, rows: bytes = b"", extra: bytes = b"") -> bytes:
    """Return a PNG file with given rows, each after its filter byte; `extra` chunks come before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0))
    return PNG + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_of(rgba: np.ndarray) -> bytes:
    """Return a PNG file with these pixels: uint8, (H, W, 4), RGB and alpha."""
    height, width = rgba.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in rgba)
    return png((width, height), rows=rows)


def webp_of(rgba: np.ndarray, path: Path) -> bytes:
    """Return a lossless WebP file with these pixels."""
    source = path.with_suffix(".png")
    source.write_bytes(png_of(rgba))
    ffmpeg("-i", source, "-c:v", "libwebp", "-lossless", "1", "-pix_fmt", "bgra", path)
    return path.read_bytes()


def random_image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return random pixels, of which a part is completely transparent or opaque: uint8, (H, W, 4)."""
    random = np.random.default_rng(seed)
    rgba = random.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    rgba[: size[1] // 3, :, 3] = 0
    rgba[-(size[1] // 3) :, :, 3] = 255
    return rgba


def reference(
    frame_yuv: tuple[int, int, int],
    frame_size: tuple[int, int],
    rgba: np.ndarray,
    corner: tuple[int, int],
    opacity: float = 1,
    bits: int = 8,
) -> list[np.ndarray]:
    """Return the planes, as floats, of a flat BT.601 frame of limited range with an image that is not resized.

    Blends red, green and blue pixel by pixel, then converts the whole frame and filters its chroma.
    """
    unit = 1 << (bits - 8)
    margin = 64  # the frame is a part of a larger one, so that its edges need no rule of their own
    width, height = (side + 2 * margin for side in frame_size)
    luma, u, v = (frame_yuv[0] / unit - 16) / 219, *((value / unit - 128) / 224 for value in frame_yuv[1:])
    red, blue = luma + 1.402 * v, luma + 1.772 * u
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    frame = np.empty((height, width, 3))
    frame[:] = red, green, blue
    for row in range(rgba.shape[0]):
        for column in range(rgba.shape[1]):
            x, y = margin + corner[0] + column, margin + corner[1] + row
            if 0 <= x < width and 0 <= y < height:
                alpha = rgba[row, column, 3] / 255 * opacity
                frame[y, x] = alpha * rgba[row, column, :3] / 255 + (1 - alpha) * frame[y, x]
    y_plane = frame @ (0.299, 0.587, 0.114)
    planes = [unit * (16 + 219 * y_plane)]
    for part, span in ((frame[..., 2], 1.772), (frame[..., 0], 1.402)):
        chroma = np.pad((part - y_plane) / span, ((0, 0), (1, 1)), mode="edge")
        filtered = chroma[:, :-2] / 4 + chroma[:, 1:-1] / 2 + chroma[:, 2:] / 4
        planes.append(unit * (128 + 224 * (filtered[::2, ::2] + filtered[1::2, ::2]) / 2))
    cuts = (margin, margin // 2, margin // 2)
    return [plane[cut:-cut, cut:-cut] for plane, cut in zip(planes, cuts, strict=True)]
