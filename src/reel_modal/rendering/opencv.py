"""OpenCV, loaded where frames are drawn or resized only.

It must not draw.
"""

from __future__ import annotations

from types import ModuleType

from reel_modal.errors import MissingDependencyError

__all__ = ["load_cv2"]


def load_cv2() -> ModuleType:
    """Return the module `cv2`.

    Raises:
        MissingDependencyError: It does not load; on servers without libGL the headless build does.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenCV does not load here ({error}); opencv-python needs libGL, which slim servers lack:"
            " pip uninstall opencv-python, then pip install opencv-python-headless, the same module without it"
        ) from error
    return cv2
