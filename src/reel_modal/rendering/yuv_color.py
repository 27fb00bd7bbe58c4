"""A colour that people write, in the numbers of a frame.

Pure; it must not know what is painted with it.
"""

from __future__ import annotations

from typing import Final

from reel_modal.frames import ColorTags, matrix_or_assumed
from reel_modal.rendering.hdr_light import signal_of

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
    """Return `#rrggbb` in the matrix and range of a frame.

    In HDR the color is as bright as it is in SDR beside it: `#ffffff` is graphics white, 203 cd/m2.

    Args:
        color: As people write it.
        tags: Of the frame; an untagged matrix is assumed by the height, as players do.
        height: Of the picture that players see, in pixels.
        bits: Of a sample. Limited range grows by powers of two; full range ends where the bits do (ITU-T H.273, 8.3).
    """
    written = tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = signal_of(written, tags) if tags.is_hdr else written
    red_weight, blue_weight = luma_weights(tags, height)
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    u, v = (blue - luma) / (2 - 2 * blue_weight), (red - luma) / (2 - 2 * red_weight)
    unit, most = 1 << (bits - 8), (1 << bits) - 1
    if tags.range == "pc":
        zero, span, chroma_span = 0, most, most
    else:
        zero, span, chroma_span = 16 * unit, 219 * unit, 224 * unit
    across, down = (min(most, max(0, round(128 * unit + chroma_span * value))) for value in (u, v))
    return round(zero + span * luma), across, down


def luma_weights(tags: ColorTags, height: int) -> tuple[float, float]:
    """Return how much red and blue count in the luma of a frame; an untagged matrix is assumed by the height."""
    return _LUMA_WEIGHTS.get(matrix_or_assumed(tags, height), _LUMA_WEIGHTS["bt709"])
