"""What a raw frame looks like in memory: pixel formats, planes and colour tags.

Pure numpy; it must know neither files nor ffmpeg processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from reel_modal.errors import ConfigError

__all__ = ["ColorTags", "Frame", "PixelFormat", "Planes", "U8Array", "frame_bytes", "plane_views"]

PixelFormat: TypeAlias = Literal["bgr24", "rgb24", "yuv420p", "gray8"]
"""The layouts that frames travel in; the names are ffmpeg's, but `gray8`, which ffmpeg calls `gray`."""

U8Array: TypeAlias = npt.NDArray[np.uint8]
Planes: TypeAlias = tuple[U8Array, ...]
"""The planes of one frame: `(Y, U, V)` for yuv420p, else the one packed array."""

_CHANNELS: Final[dict[str, int]] = {"bgr24": 3, "rgb24": 3, "gray8": 1}


@dataclass(frozen=True, slots=True)
class ColorTags:
    """How the numbers of a frame are to be read as colours; the words are ffmpeg's, None is "not said".

    Attributes:
        matrix: YUV matrix, such as `bt709` or `smpte170m` (ffmpeg's `colorspace`).
        range: `tv` (limited) or `pc` (full).
        primaries: Such as `bt709` or `bt2020`.
        transfer: Such as `bt709`, `smpte2084` (PQ) or `arib-std-b67` (HLG).
        chroma_location: Where chroma samples sit, such as `left` or `topleft`.
    """

    matrix: str | None = None
    range: Literal["tv", "pc"] | None = None
    primaries: str | None = None
    transfer: str | None = None
    chroma_location: str | None = None


BT709: Final = ColorTags(matrix="bt709", range="tv", primaries="bt709", transfer="bt709")


@dataclass(slots=True)
class Frame:
    """One upright frame and its time.

    Attributes:
        data: uint8, (bytes,), C-contiguous: all planes behind one another. The reader may fill the same
            memory again for the next frame; `copy()` keeps a frame for longer.
        size: (width, height) in pixels.
        pixel_format: How `data` is laid out.
        pts_seconds: Exact presentation time on the source's own clock.
        index: 0 for the first frame that was read.
    """

    data: U8Array
    size: tuple[int, int]
    pixel_format: PixelFormat
    pts_seconds: Fraction
    index: int

    @property
    def planes(self) -> Planes:
        """Views into `data`: for yuv420p Y (H, W), U and V ((H+1)//2, (W+1)//2); else one array."""
        return plane_views(self.data, self.pixel_format, self.size)

    @property
    def image(self) -> U8Array:
        """View of a packed frame: uint8, (H, W, 3) or for gray8 (H, W), C-contiguous.

        Raises:
            ConfigError: The frame is planar; use `planes`.
        """
        if self.pixel_format == "yuv420p":
            raise ConfigError("a yuv420p frame has planes, no single image; use frame.planes")
        return self.planes[0]

    def copy(self) -> Frame:
        """Return a frame with memory of its own."""
        return Frame(self.data.copy(), self.size, self.pixel_format, self.pts_seconds, self.index)


def frame_bytes(pixel_format: PixelFormat, size: tuple[int, int]) -> int:
    """Return the bytes of one frame of `size` (width, height) without padding.

    Raises:
        ConfigError: The pixel format is not one that frames travel in.
    """
    width, height = size
    if pixel_format == "yuv420p":
        return width * height + 2 * (((width + 1) // 2) * ((height + 1) // 2))
    if pixel_format not in _CHANNELS:
        raise ConfigError(
            f"pixel format {pixel_format!r} is not supported; use one of {', '.join(get_args(PixelFormat))}"
        )
    return width * height * _CHANNELS[pixel_format]


def plane_views(data: U8Array, pixel_format: PixelFormat, size: tuple[int, int]) -> Planes:
    """Return the planes that lie in the flat buffer `data`, without copying.

    Args:
        data: uint8, (frame_bytes,), C-contiguous.
        pixel_format: How `data` is laid out.
        size: (width, height) in pixels.
    """
    width, height = size
    if pixel_format != "yuv420p":
        channels = _CHANNELS[pixel_format]
        shape = (height, width) if channels == 1 else (height, width, channels)
        return (data.reshape(shape),)
    chroma_width, chroma_height = (width + 1) // 2, (height + 1) // 2
    luma, chroma = width * height, chroma_width * chroma_height
    return (
        data[:luma].reshape(height, width),
        data[luma : luma + chroma].reshape(chroma_height, chroma_width),
        data[luma + chroma :].reshape(chroma_height, chroma_width),
    )
