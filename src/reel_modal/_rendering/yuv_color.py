"""Conversion of `#rrggbb` colors to YUV samples."""

from __future__ import annotations

from typing import Final

from reel_modal._rendering.hdr_light import signal_of
from reel_modal._rendering.quantization import SampleLevels
from reel_modal.media.frames import ColorTags, matrix_or_assumed

__all__ = ["luma_weights", "yuv_of"]

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
