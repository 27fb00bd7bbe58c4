"""Conversion between YUV and RGB planes with the frame's matrix, range and chroma siting, for RGB networks."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.chroma import at_luma, from_luma
from reel_modal._rendering.quantization import SampleLevels
from reel_modal._rendering.tiles import Samples
from reel_modal._rendering.yuv_color import luma_weights
from reel_modal.media.frames import ColorTags

__all__ = ["RgbConversion"]

_F32: Final = np.float32


class RgbConversion:
    """Conversion of the frames of one video (ITU-T H.273, equations 20 to 40).

    Every step is a single IEEE 754 operation per sample in float32, so the result is the same on every processor.

    Args:
        color: Color tags of the frames; an untagged matrix is assumed from the height, an untagged range is limited.
        height: Height of the frame that players see, in pixels.
        bits: Bits per sample of both YUV and RGB; RGB has full range.
        origin: Chroma origin of the input, see `chroma`; the output has the siting `left`.
    """

    def __init__(self, color: ColorTags, height: int, bits: int, origin: tuple[float, float]) -> None:
        self._red, self._blue = luma_weights(color, height)
        self._green = 1 - self._red - self._blue
        self._origin = origin
        levels = SampleLevels.of(bits, full=color.range == "pc")
        self._peak, self._black, self._gray = levels.peak, levels.black, levels.gray
        self._luma_gain, self._chroma_gain = levels.luma_span / self._peak, levels.chroma_span / self._peak
        self._u_span, self._v_span = 2 - 2 * self._blue, 2 - 2 * self._red

    def to_rgb(self, y: Samples, u: Samples, v: Samples) -> Samples:
        """Return the planes red, green, blue: (3, H, W), with the dtype of `y`."""
        size = (y.shape[1], y.shape[0])
        light = (y.astype(_F32) - self._black) * (1 / self._luma_gain)
        blue_less_light, red_less_light = (
            (at_luma(plane, self._origin, size) - self._gray) * (span / self._chroma_gain)
            for plane, span in ((u, self._u_span), (v, self._v_span))
        )
        rgb = np.empty((3, *y.shape), _F32)
        np.add(light, red_less_light, out=rgb[0])
        np.subtract(light, red_less_light * (self._red / self._green), out=rgb[1])
        rgb[1] -= blue_less_light * (self._blue / self._green)
        np.add(light, blue_less_light, out=rgb[2])
        return self._whole(rgb, y.dtype)

    def from_rgb(self, rgb: Samples) -> tuple[Samples, Samples, Samples]:
        """Return the planes Y (H, W), U and V ((H+1)//2, (W+1)//2) of RGB planes (3, H, W)."""
        red, green, blue = (plane.astype(_F32) for plane in rgb)
        light = red * self._red
        light += green * self._green
        light += blue * self._blue
        u, v = (
            from_luma(part - light) * (self._chroma_gain / span) + self._gray
            for part, span in ((blue, self._u_span), (red, self._v_span))
        )
        y = light * self._luma_gain + self._black
        kind = rgb.dtype
        return self._whole(y, kind), self._whole(u, kind), self._whole(v, kind)

    def _whole(self, values: npt.NDArray[np.float32], kind: np.dtype[np.generic]) -> Samples:
        whole: Samples = np.rint(values.clip(0, self._peak)).astype(kind)
        return whole
