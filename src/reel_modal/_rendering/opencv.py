"""Lazy import of OpenCV: only code that draws or resizes frames loads it."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from reel_modal.errors import MissingDependencyError

__all__ = ["CURE", "exact_factor", "load_cv2"]

CURE: Final = "pip uninstall opencv-python && pip install opencv-python-headless"
"""Fix for servers without libGL: the headless package provides the same module without windows."""

_FACTOR_ONE: Final = 1 << 14


def load_cv2() -> ModuleType:
    """Return the module `cv2`.

    Raises:
        MissingDependencyError: OpenCV cannot be imported; the message names the missing library and the fix.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenCV cannot be imported: {error}; opencv-python needs libGL, which slim servers lack: {CURE}"
            " (the same module without windows), or on Debian and Ubuntu: apt-get install libgl1"
        ) from error
    return cv2


def exact_factor(factor: float) -> float:
    """Return `factor` rounded to a multiple of 2**-14, so that OpenCV's products are the same on every processor.

    OpenCV computes in float32, which has 24 bits of precision. Processors with fused multiply-add round once, others
    twice. A sample of 10 bits times a factor of 14 bits is exact on both, and so are sums of such products.
    """
    return round(factor * _FACTOR_ONE) / _FACTOR_ONE
