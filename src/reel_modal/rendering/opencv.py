"""OpenCV, loaded where frames are drawn or resized only.

It must not draw.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from reel_modal.errors import MissingDependencyError

__all__ = ["CURE", "load_cv2"]

CURE: Final = "pip uninstall opencv-python && pip install opencv-python-headless"
"""What helps on a server without libGL: the same module without windows."""


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
