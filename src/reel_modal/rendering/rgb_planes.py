"""YUV planes as RGB planes and back, for networks that want RGB: by the picture's own matrix, range and siting.

Pure; it must not know networks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal.frames import ColorTags
from reel_modal.rendering.chroma import at_luma, from_luma
from reel_modal.rendering.opencv import load_cv2
from reel_modal.rendering.tiles import Samples
from reel_modal.rendering.yuv_color import luma_weights

__all__ = ["RgbConversion"]

_F32: Final = np.float32


class RgbConversion:
    """Converts the pictures of one video, ITU-T H.273, equations 20 to 40.

    Args:
        color: The tags of the frames; an untagged matrix is assumed by the height, an untagged range is limited.
        height: Of the picture that players see, in pixels.
        bits: Of a sample, YUV and RGB alike; RGB has full range.
        origin: Of the chroma that is converted, see `chroma`; what comes back lies at the left.
    """

    def __init__(self, color: ColorTags, height: int, bits: int, origin: tuple[float, float]) -> None:
        red, blue = luma_weights(color, height)
        self._origin = origin
        self._peak = (1 << bits) - 1
        unit = 1 << (bits - 8)
        full = color.range == "pc"
        self._black = 0 if full else 16 * unit
        self._gray = 128 * unit
        luma_span, chroma_span = (self._peak, self._peak) if full else (219 * unit, 224 * unit)
        weights = np.array(
            [
                [red, 1 - red - blue, blue],
                [-red / (2 - 2 * blue), -(1 - red - blue) / (2 - 2 * blue), 0.5],
                [0.5, -(1 - red - blue) / (2 - 2 * red), -blue / (2 - 2 * red)],
            ]
        )
        self._to_yuv = np.diag([luma_span, chroma_span, chroma_span]) @ weights / self._peak
        self._to_rgb = np.linalg.inv(self._to_yuv)

    def to_rgb(self, y: Samples, u: Samples, v: Samples) -> Samples:
        """Return the planes red, green, blue, (3, H, W), of the type of `y`."""
        cv2 = load_cv2()
        size = (y.shape[1], y.shape[0])
        chroma = [at_luma(plane.astype(_F32) - self._gray, self._origin, size) for plane in (u, v)]
        yuv = np.dstack([y.astype(_F32) - self._black, *chroma])
        rgb = cv2.transform(yuv, self._to_rgb)
        return self._whole(np.moveaxis(rgb, 2, 0), y.dtype)

    def from_rgb(self, rgb: Samples) -> tuple[Samples, Samples, Samples]:
        """Return the planes Y (H, W), U and V ((H+1)//2, (W+1)//2) of planes (3, H, W)."""
        cv2 = load_cv2()
        yuv = cv2.transform(np.dstack([plane.astype(_F32) for plane in rgb]), self._to_yuv)
        y = yuv[:, :, 0] + self._black
        u, v = (from_luma(np.ascontiguousarray(yuv[:, :, at])) + self._gray for at in (1, 2))
        kind = rgb.dtype
        return self._whole(y, kind), self._whole(u, kind), self._whole(v, kind)

    def _whole(self, values: npt.NDArray[np.float32], kind: np.dtype[np.generic]) -> Samples:
        whole: Samples = np.rint(values.clip(0, self._peak)).astype(kind)
        return whole
