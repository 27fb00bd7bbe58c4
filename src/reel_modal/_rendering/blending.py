"""Blending of planes by masks, with the same result on every processor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.ellipse import Mask
from reel_modal._rendering.opencv import exact_factor, load_cv2
from reel_modal._rendering.tiles import Samples

__all__ = ["blend", "scaled"]


def scaled(mask: Mask, share: float) -> Mask:
    """Return a mask times `share`, 0 to 1; the mask itself if `share` is 1."""
    if share >= 1:
        return mask
    reduced: Mask = load_cv2().convertScaleAbs(mask, alpha=exact_factor(share))
    return reduced


def blend(over: Samples, below: Samples, mask: Mask) -> None:
    """Blend `over` onto `below`, in place, weighted by `mask`; rounded once, and exact if the mask is 0 or 255.

    Computed with integers: OpenCV's scaled product differs by one level between Intel and Arm processors.
    """
    if mask.size == 0:
        return
    wide: npt.DTypeLike = np.uint16 if below.dtype == np.uint8 else np.uint32
    kept, seen = below.astype(wide), over.astype(wide)
    # over * mask + below * (255 - mask) with one product. Negative differences wrap around; adding `kept` wraps back.
    seen -= kept
    seen *= mask
    kept *= 255
    kept += 127
    seen += kept
    seen //= 255
    below[:] = seen
