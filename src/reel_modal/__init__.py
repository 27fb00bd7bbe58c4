"""reel_modal renders video on Modal GPUs from a typed Python backend, and the same code on this machine.

The public names load on first use: importing the package pulls in neither modal nor cv2.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reel_modal.config import MediaLimits, Settings
    from reel_modal.errors import ReelModalError, RemoteError, RequestError
    from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
    from reel_modal.frames import ColorTags, Frame
    from reel_modal.media import MediaInfo, probe
    from reel_modal.schema import (
        CropKeyframe,
        EncodeOptions,
        FramingRequest,
        HighlightKeyframe,
        HighlightRegion,
        OverlayRequest,
        OverlayStyle,
        RenderResult,
        SpeedSegment,
    )
    from reel_modal.storage import Storage

__version__ = "0.1.0"

__all__ = [
    "ColorTags",
    "CropKeyframe",
    "EncodeOptions",
    "Frame",
    "FramePipe",
    "FrameReader",
    "FramingRequest",
    "HighlightKeyframe",
    "HighlightRegion",
    "MediaInfo",
    "MediaLimits",
    "OverlayRequest",
    "OverlayStyle",
    "ReelModalError",
    "RemoteError",
    "RenderResult",
    "RequestError",
    "Settings",
    "SpeedSegment",
    "Storage",
    "__version__",
    "probe",
]

_HOME = {
    "ColorTags": "frames",
    "CropKeyframe": "schema",
    "EncodeOptions": "schema",
    "Frame": "frames",
    "FramePipe": "ffmpeg_pipe",
    "FrameReader": "ffmpeg_pipe",
    "FramingRequest": "schema",
    "HighlightKeyframe": "schema",
    "HighlightRegion": "schema",
    "MediaInfo": "media",
    "MediaLimits": "config",
    "OverlayRequest": "schema",
    "OverlayStyle": "schema",
    "ReelModalError": "errors",
    "RemoteError": "errors",
    "RenderResult": "schema",
    "RequestError": "errors",
    "Settings": "config",
    "SpeedSegment": "schema",
    "Storage": "storage",
    "probe": "media",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
