"""Frames of a reel: mix two clips, fade to black, and convert to one YUV matrix and range."""

from __future__ import annotations

import numpy as np

from reel_modal._rendering.framing import mix
from reel_modal._rendering.yuv import RgbConversion, yuv_of
from reel_modal.media.frames import (
    CHROMA_ORIGIN,
    PLANAR,
    ColorTags,
    PixelFormat,
    U8Array,
    frame_bytes,
    matrix_or_assumed,
    sample_views,
)

__all__ = ["ColorConversion", "FrameMixer"]


class FrameMixer:
    """Mixer of the frames of a reel, which all have one size, format and color.

    Args:
        size: (width, height) of the frames.
        pixel_format: 4:2:0 in 8 or 10 bits.
        color: Color tags of the frames.
    """

    def __init__(self, size: tuple[int, int], pixel_format: PixelFormat, color: ColorTags) -> None:
        self._format: PixelFormat = pixel_format
        self._mixed: U8Array = np.empty(frame_bytes(pixel_format, size), np.uint8)
        self._black: U8Array = np.empty_like(self._mixed)
        black = yuv_of("#000000", color, size[1], PLANAR[pixel_format].bits)
        for plane, value in zip(sample_views(self._black, pixel_format, size), black, strict=True):
            plane[:] = value

    def mixed(self, frame: U8Array, share: float, other: U8Array | None = None) -> U8Array:
        """Return `share` of a frame and the rest of another one, or of black; valid until the next call.

        Args:
            frame: uint8, (frame_bytes,), C-contiguous: all planes, one after another.
            share: Weight of `frame`, 0 to 1.
            other: The other frame, in the same layout; None is black.
        """
        mix(self._black if other is None else other, frame, share, self._mixed, self._format)
        return self._mixed


class ColorConversion:
    """Conversion of frames to the YUV matrix and range of other frames; primaries and transfer are not converted.

    Args:
        source: Color tags of the frames; their chroma has the siting `left`.
        target: Color tags of the result.
        size: (width, height) of the frames, which decides about untagged matrices.
        pixel_format: 4:2:0 in 8 or 10 bits.
    """

    def __init__(
        self, source: ColorTags, target: ColorTags, size: tuple[int, int], pixel_format: PixelFormat
    ) -> None:
        bits, origin = PLANAR[pixel_format].bits, CHROMA_ORIGIN["left"]
        self._size, self._format = size, pixel_format
        self._read = RgbConversion(source, size[1], bits, origin)
        self._write = RgbConversion(target, size[1], bits, origin)
        self._converted: U8Array = np.empty(frame_bytes(pixel_format, size), np.uint8)

    @staticmethod
    def needed(source: ColorTags, target: ColorTags, height: int) -> bool:
        """Return whether frames of this height differ in matrix or range."""
        matrices = {matrix_or_assumed(color, height) for color in (source, target)}
        return len(matrices) > 1 or (source.range == "pc") != (target.range == "pc")

    def converted(self, frame: U8Array) -> U8Array:
        """Return a frame with other samples and the same colors; valid until the next call.

        Args:
            frame: uint8, (frame_bytes,), C-contiguous: all planes, one after another.
        """
        y, u, v = sample_views(frame, self._format, self._size)
        planes = self._write.from_rgb(self._read.to_rgb(y, u, v))
        for target, plane in zip(sample_views(self._converted, self._format, self._size), planes, strict=True):
            target[:] = plane
        return self._converted
