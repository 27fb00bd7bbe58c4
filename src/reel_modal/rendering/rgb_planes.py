"""YUV planes as RGB planes and back, for networks that want RGB: by the picture's own matrix, range and siting.

Pure; it must not know networks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal.frames import ColorTags
from reel_modal.rendering.chroma import at_luma, from_luma
from reel_modal.rendering.tiles import Samples
from reel_modal.rendering.yuv_color import luma_weights

__all__ = ["RgbConversion"]

_F32: Final = np.float32


class RgbConversion:
    """Converts the pictures of one video, ITU-T H.273, equations 20 to 40.

    Every step is one operation of IEEE 754 on each sample, in float32: processors do not differ in them.

    Args:
        color: The tags of the frames; an untagged matrix is assumed by the height, an untagged range is limited.
        height: Of the picture that players see, in pixels.
        bits: Of a sample, YUV and RGB alike; RGB has full range.
        origin: Of the chroma that is converted, see `chroma`; what comes back lies at the left.
    """

    def __init__(self, color: ColorTags, height: int, bits: int, origin: tuple[float, float]) -> None:
        self._red, self._blue = luma_weights(color, height)
        self._green = 1 - self._red - self._blue
        self._origin = origin
        self._peak = (1 << bits) - 1
        unit = 1 << (bits - 8)
        full = color.range == "pc"
        self._black = 0 if full else 16 * unit
        self._gray = 128 * unit
        luma_span, chroma_span = (self._peak, self._peak) if full else (219 * unit, 224 * unit)
        self._luma_gain, self._chroma_gain = luma_span / self._peak, chroma_span / self._peak
        self._u_span, self._v_span = 2 - 2 * self._blue, 2 - 2 * self._red

    def to_rgb(self, y: Samples, u: Samples, v: Samples) -> Samples:
        """Return the planes red, green, blue, (3, H, W), of the type of `y`."""
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
        """Return the planes Y (H, W), U and V ((H+1)//2, (W+1)//2) of planes (3, H, W)."""
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
