"""OpenCV, loaded where frames are drawn or resized only.

It must not draw.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from reel_modal.errors import MissingDependencyError

__all__ = ["CURE", "exact_factor", "load_cv2"]

CURE: Final = "pip uninstall opencv-python && pip install opencv-python-headless"
"""What helps on a server without libGL: the same module without windows."""

_FACTOR_ONE: Final = 1 << 14


def load_cv2() -> ModuleType:
    """Return the module `cv2`.

    Raises:
        MissingDependencyError: It does not load. It names the missing library and the cure.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenCV does not load: {error}; opencv-python needs libGL, which slim servers lack: {CURE}"
            " (the same module without windows), or on Debian and Ubuntu: apt-get install libgl1"
        ) from error
    return cv2


def exact_factor(factor: float) -> float:
    """Return the nearest multiple of 2**-14: OpenCV multiplies samples by it alike on every processor.

    OpenCV computes in float32, which holds 24 bits. A processor with fused multiply-add rounds once, another one
    twice. Ten bits of a sample times 14 of a factor are exact on both, and so are sums of such products.
    """
    return round(factor * _FACTOR_ONE) / _FACTOR_ONE
