"""Resizing of the chroma planes of 4:2:0 video with correct chroma siting.

An origin is the position of the first chroma sample in luma pixels from the left and top edge, as in
`frames.CHROMA_ORIGIN`. 4:2:0 planes returned by this module have the siting `left`, the default of H.264 for files
that do not specify it (ITU-T H.264, annex E, figure E-1).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.resampling import Rect, resample, resample_unrounded
from reel_modal._rendering.tiles import Samples
from reel_modal.media.frames import CHROMA_ORIGIN

__all__ = ["at_luma", "from_luma", "resized_chroma"]

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
