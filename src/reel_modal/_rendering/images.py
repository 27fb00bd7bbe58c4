"""Decode still PNG and WebP images; everything that would be decoded wrongly or needs much memory is refused."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.opencv import load_cv2
from reel_modal.errors import InvalidMediaError

__all__ = ["MOST_BYTES", "decoded_image"]

MOST_BYTES: Final = 32 << 20
"""Maximum size of an image file in bytes."""

_MOST_PIXELS: Final = 1 << 24
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_BITS: Final = 8
_GRAY: Final = 0
_VP8_START: Final = b"\x9d\x01\x2a"
_VP8L_START: Final = 0x2F
_ANIMATED: Final = 0x02
_ORIENTATION: Final = 0x0112
_MOST_TAGS: Final = 1000


def decoded_image(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the pixels of a PNG or WebP file: uint8, (H, W, 4), BGR and alpha, not premultiplied.

    The size is read from the header before any pixel is decoded. Color profiles and gamma are ignored: the samples
    are taken as sRGB.

    Args:
        data: The whole file, at most `MOST_BYTES`.

    Raises:
        InvalidMediaError: It is no PNG or WebP, damaged, animated, with 16 bits, rotated by EXIF, or too large.
        MissingDependencyError: OpenCV cannot be loaded.
    """
    if len(data) > MOST_BYTES:
        raise InvalidMediaError(f"the image has {len(data)} bytes; at most {MOST_BYTES} are accepted")
    header = _header(data)
    width, height = header.size
    if not width or not height or width * height > _MOST_PIXELS:
        raise InvalidMediaError(f"the image has {width} x {height} pixels; 1 to {_MOST_PIXELS} are accepted")
    if header.animated:
        raise InvalidMediaError("the image is animated; save one of its frames as PNG")
    if header.bits > _PNG_BITS:
        raise InvalidMediaError(f"the image has {header.bits} bits per sample; save it with 8")
    if _orientation(header.exif) != 1:
        raise InvalidMediaError("the image is rotated by its EXIF orientation; rotate its pixels and save it without")
    cv2 = load_cv2()
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InvalidMediaError(f"the image cannot be decoded: {error}") from error
    if pixels is None or pixels.dtype != np.uint8 or pixels.shape[:2] != (height, width):
        raise InvalidMediaError("the image is damaged")
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGRA)
    elif channels == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2BGRA)
    image: npt.NDArray[np.uint8] = pixels
    return image


@dataclass(frozen=True, slots=True)
class _Header:
    """What the headers of an image file state."""

    size: tuple[int, int]
    bits: int = 8
    animated: bool = False
    exif: bytes = b""


def _header(data: bytes) -> _Header:
    if data.startswith(_PNG):
        return _png_header(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_header(data)
    raise InvalidMediaError("the file is not a PNG or WebP image")


def _png_header(data: bytes) -> _Header:
    chunks = list(_png_chunks(data))
    kinds = [kind for kind, _ in chunks]
    first = chunks[0][1] if kinds and kinds[0] == b"IHDR" else b""
    if len(first) != 13 or kinds[-1] != b"IEND" or b"IDAT" not in kinds:
        raise InvalidMediaError("the PNG image is damaged or incomplete")
    if first[9] == _GRAY and b"tRNS" in kinds:  # OpenCV draws such pixels
        raise InvalidMediaError("the PNG image has a transparent gray level; save it with an alpha channel")
    exif = next((body for kind, body in chunks if kind == b"eXIf"), b"")
    size = int.from_bytes(first[:4], "big"), int.from_bytes(first[4:8], "big")
    return _Header(size, first[8], b"acTL" in kinds, exif)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of each chunk up to `IEND`, or to the first one that is damaged."""
    at = len(_PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if data[at + 8 + length : at + 12 + length] != zlib.crc32(kind + body).to_bytes(4, "big"):
            return
        yield kind, body
        if kind == b"IEND":
            return
        at += 12 + length


def _webp_header(data: bytes) -> _Header:
    chunks = dict(reversed(list(_riff_chunks(data))))  # the first chunk of each kind
    if (extended := chunks.get(b"VP8X", b"")) and len(extended) >= 10:
        size = int.from_bytes(extended[4:7], "little") + 1, int.from_bytes(extended[7:10], "little") + 1
        return _Header(size, animated=bool(extended[0] & _ANIMATED), exif=chunks.get(b"EXIF", b""))
    lossless = chunks.get(b"VP8L", b"")
    if len(lossless) >= 5 and lossless[0] == _VP8L_START:
        sides = int.from_bytes(lossless[1:5], "little")
        return _Header(((sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1))
    lossy = chunks.get(b"VP8 ", b"")
    if len(lossy) >= 10 and lossy[3:6] == _VP8_START:
        width, height = (int.from_bytes(lossy[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        return _Header((width, height))
    raise InvalidMediaError("the WebP image is damaged or incomplete")


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > len(data):
            raise InvalidMediaError("the WebP image is incomplete")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _orientation(exif: bytes) -> int:
    """Return the orientation tag of EXIF data, which is a TIFF file; 1, upright, if it has none."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None:
        return 1

    def whole(at: int, length: int) -> int:
        return int.from_bytes(tiff[at : at + length], "little" if order == "little" else "big")

    first = whole(4, 4)
    for index in range(min(whole(first, 2), _MOST_TAGS)):
        tag = first + 2 + 12 * index
        if whole(tag, 2) == _ORIENTATION:
            return whole(tag + 8, 2)
    return 1
