"""The two colour planes of 4:2:0 video in other sizes, each sample kept where it sits in the picture.

Pure; it must not know where frames come from. An origin is where the first chroma sample lies, in luma pixels from
the left and upper edge, as in `frames.CHROMA_ORIGIN`; what is made here has its samples at the left, which is what
H.264 means where a file does not say (ITU-T H.264, annex E, figure E-1).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal.frames import CHROMA_ORIGIN
from reel_modal.rendering.resampling import Window, resample, resample_unrounded
from reel_modal.rendering.tiles import Samples

__all__ = ["at_luma", "from_luma", "resized_chroma"]

_LEFT: Final = CHROMA_ORIGIN["left"]


def resized_chroma(
    plane: Samples, origin: tuple[float, float], before: tuple[int, int], after: tuple[int, int]
) -> Samples:
    """Return a chroma plane for a picture of another size.

    Args:
        plane: (h, w).
        origin: Of its samples.
        before: (width, height) of the picture that it belongs to, in luma pixels.
        after: The same of the picture that it is made for.
    """
    width, height = ((side + 1) // 2 for side in after)
    across, down = (old / new for old, new in zip(before, after, strict=True))
    # Sample i of the new plane lies at 2 i + left in the new picture; in the old one, the factor nearer to the edge.
    left, top = (
        (new * factor - old + 1 - factor) / 2 for new, factor, old in zip(_LEFT, (across, down), origin, strict=True)
    )
    resized: Samples = np.empty((height, width), plane.dtype)
    resample(plane, Window(left, top, across * width, down * height), resized)
    return resized


def at_luma(plane: Samples, origin: tuple[float, float], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return a chroma plane with a sample for each luma pixel; `size` is (width, height) of the luma."""
    left, top = ((1 - place) / 2 for place in origin)
    return resample_unrounded(plane, Window(left, top, size[0] / 2, size[1] / 2), size)


def from_luma(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a chroma plane for 4:2:0 out of one that has a sample for each luma pixel."""
    height, width = plane.shape
    padded = np.pad(plane, ((0, height % 2), (1, 1)), mode="edge")
    # Down, a sample lies between two pixels that count the same; across, on a pixel, whose neighbours count half.
    pairs = padded[::2] + padded[1::2]
    before, on, after = (pairs[:, at::2][:, : (width + 1) // 2] for at in range(3))
    mixed: npt.NDArray[np.float32] = (before + 2 * on + after) * np.float32(1 / 8)
    return mixed
