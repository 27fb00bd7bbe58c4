"""YUV planes: colors, chroma of 4:2:0, and the conversion to and from RGB.

An origin is the position of the first chroma sample in luma pixels from the left and top edge, as in
`frames.CHROMA_ORIGIN`. 4:2:0 planes returned by this module have the siting `left`, the default of H.264 for files
that do not specify it (ITU-T H.264, annex E, figure E-1).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.hdr_light import signal_of
from reel_modal._rendering.quantization import SampleLevels
from reel_modal._rendering.resampling import Rect, resample, resample_unrounded
from reel_modal._rendering.tiles import Samples
from reel_modal.media.frames import CHROMA_ORIGIN, ColorTags, matrix_or_assumed

__all__ = ["RgbConversion", "at_luma", "from_luma", "luma_weights", "resized_chroma", "yuv_of"]

_LEFT: Final = CHROMA_ORIGIN["left"]


def resized_chroma(
    plane: Samples, origin: tuple[float, float], before: tuple[int, int], after: tuple[int, int]
) -> Samples:
    """Return a chroma plane resized for a frame of another size.

    Args:
        plane: Chroma plane, (h, w).
        origin: Origin of its samples.
        before: (width, height) of the source frame in luma pixels.
        after: (width, height) of the resized frame in luma pixels.
    """
    width, height = ((side + 1) // 2 for side in after)
    across, down = (old / new for old, new in zip(before, after, strict=True))
    # Sample i of the new plane is at 2 i + left in the new frame, and at that position times old / new in the old.
    left, top = (
        (new * factor - old + 1 - factor) / 2 for new, factor, old in zip(_LEFT, (across, down), origin, strict=True)
    )
    resized: Samples = np.empty((height, width), plane.dtype)
    resample(plane, Rect(left, top, across * width, down * height), resized)
    return resized


def at_luma(plane: Samples, origin: tuple[float, float], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return a chroma plane upsampled to one sample per luma pixel; `size` is the (width, height) of the luma."""
    left, top = ((1 - place) / 2 for place in origin)
    return resample_unrounded(plane, Rect(left, top, size[0] / 2, size[1] / 2), size)


def from_luma(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a 4:2:0 chroma plane, downsampled from one sample per luma pixel."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, height % 2), (1, 1)), mode="edge")
    # Vertically, a sample is between two pixels of equal weight; horizontally, it is on a pixel, and the neighbors of
    # that pixel have half its weight.
    pairs = padded[::2] + padded[1::2]
    before, on, after = (pairs[:, at::2][:, : (width + 1) // 2] for at in range(3))
    mixed: npt.NDArray[np.float32] = (before + 2 * on + after) * np.float32(1 / 8)
    return mixed


# Kr and Kb of ITU-R BT.601, BT.709, BT.2020, SMPTE 240M and FCC.
_LUMA_WEIGHTS: Final = {
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020nc": (0.2627, 0.0593),
    "bt2020c": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.3, 0.11),
}


def yuv_of(color: str, tags: ColorTags, height: int, bits: int = 8) -> tuple[int, int, int]:
    """Return (Y, U, V) of a color in the matrix and range of a frame.

    In HDR, the color is as bright as in SDR: `#ffffff` is graphics white, 203 cd/m2.

    Args:
        color: Color, `#rrggbb`.
        tags: Color tags of the frame; an untagged matrix is assumed from the height, as players do.
        height: Height of the frame that players see, in pixels.
        bits: Bits per sample. Limited range is scaled by a power of two; full range ends at the largest value of
            that many bits (ITU-T H.273, 8.3).
    """
    written = tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = signal_of(written, tags) if tags.is_hdr else written
    red_weight, blue_weight = luma_weights(tags, height)
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    u, v = (blue - luma) / (2 - 2 * blue_weight), (red - luma) / (2 - 2 * red_weight)
    levels = SampleLevels.of(bits, full=tags.range == "pc")
    across, down = (min(levels.peak, max(0, round(levels.gray + levels.chroma_span * value))) for value in (u, v))
    return round(levels.black + levels.luma_span * luma), across, down


def luma_weights(tags: ColorTags, height: int) -> tuple[float, float]:
    """Return Kr and Kb, the weights of red and blue in luma; an untagged matrix is assumed from the height."""
    return _LUMA_WEIGHTS.get(matrix_or_assumed(tags, height), _LUMA_WEIGHTS["bt709"])


_F32: Final = np.float32


class RgbConversion:
    """Conversion of the frames of one video (ITU-T H.273, equations 20 to 40).

    Every step is a single IEEE 754 operation per sample in float32, so the result is the same on every processor.

    Args:
        color: Color tags of the frames; an untagged matrix is assumed from the height, an untagged range is limited.
        height: Height of the frame that players see, in pixels.
        bits: Bits per sample of both YUV and RGB; RGB has full range.
        origin: Chroma origin of the input, see the module; the output has the siting `left`.
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
