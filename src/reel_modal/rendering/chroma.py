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
from reel_modal.rendering.opencv import load_cv2
from reel_modal.rendering.tiles import Samples

__all__ = ["at_luma", "from_luma", "resized_chroma"]

_LEFT: Final = CHROMA_ORIGIN["left"]


def resized_chroma(
    plane: Samples, origin: tuple[float, float], before: tuple[int, int], after: tuple[int, int]
) -> Samples:
    """Return a chroma plane for a picture that was enlarged by any factor of at least 1, by cubics.

    Args:
        plane: (h, w).
        origin: Of its samples.
        before: (width, height) of the picture that it belongs to, in luma pixels.
        after: The same of the picture that it is made for.
    """
    size = ((after[0] + 1) // 2, (after[1] + 1) // 2)
    # Sample i of the new plane lies at 2 i + left in the new picture; in the old one, the factor nearer to the edge.
    factors = [old / new for old, new in zip(before, after, strict=True)]
    shifts = [(left * factor - old) / 2 for left, factor, old in zip(_LEFT, factors, origin, strict=True)]
    return _warped(plane, size, (factors[0], shifts[0]), (factors[1], shifts[1]))


def at_luma(
    plane: npt.NDArray[np.float32], origin: tuple[float, float], size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Return a chroma plane with a sample for each luma pixel; `size` is (width, height) of the luma."""
    across, down = ((0.5, (0.5 - place) / 2) for place in origin)
    return np.asarray(_warped(plane, size, across, down), np.float32)


def from_luma(plane: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a chroma plane for 4:2:0 out of one that has a sample for each luma pixel."""
    cv2 = load_cv2()
    # Across, a sample lies on a pixel, whose neighbours count half; down, between two pixels that count the same.
    across, down = np.array([0.25, 0.5, 0.25], np.float32), np.array([0, 0.5, 0.5], np.float32)
    soft = cv2.sepFilter2D(plane, cv2.CV_32F, across, down, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(soft[::2, ::2], np.float32)


def _warped(
    plane: Samples | npt.NDArray[np.float32],
    size: tuple[int, int],
    across: tuple[float, float],
    down: tuple[float, float],
) -> Samples:
    cv2 = load_cv2()
    matrix = np.array([[across[0], 0, across[1]], [0, down[0], down[1]]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped: Samples = cv2.warpAffine(plane, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return warped
