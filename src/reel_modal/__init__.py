"""reel_modal renders video on Modal GPUs from a typed Python backend, and the same code on this machine.

The public names load on first use: importing the package pulls in neither modal nor cv2.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from reel_modal.version import VERSION

if TYPE_CHECKING:
    from reel_modal.blocking import run_sync
    from reel_modal.client import FunctionRegistry
    from reel_modal.config import MediaLimits, ModelSource, Settings
    from reel_modal.errors import ReelModalError, RemoteError, RequestError
    from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
    from reel_modal.frames import ColorTags, Frame
    from reel_modal.job import Job, JobOptions
    from reel_modal.media import MediaInfo, probe
    from reel_modal.progress import ProgressEvent, ProgressPlan, ProgressSimulator, ProgressUpdate
    from reel_modal.remote_function import RemoteFunction
    from reel_modal.schema import (
        CropKeyframe,
        Degradation,
        EncodeOptions,
        FramingRequest,
        HighlightKeyframe,
        HighlightRegion,
        OverlayRequest,
        OverlayStyle,
        RenderResult,
        SpeedSegment,
        StoreOptions,
        UpscaleRequest,
        Usage,
        store_key,
    )
    from reel_modal.storage import Storage

__version__ = VERSION

__all__ = [
    "ColorTags",
    "CropKeyframe",
    "Degradation",
    "EncodeOptions",
    "Frame",
    "FramePipe",
    "FrameReader",
    "FramingRequest",
    "FunctionRegistry",
    "HighlightKeyframe",
    "HighlightRegion",
    "Job",
    "JobOptions",
    "MediaInfo",
    "MediaLimits",
    "ModelSource",
    "OverlayRequest",
    "OverlayStyle",
    "ProgressEvent",
    "ProgressPlan",
    "ProgressSimulator",
    "ProgressUpdate",
    "ReelModalError",
    "RemoteError",
    "RemoteFunction",
    "RenderResult",
    "RequestError",
    "Settings",
    "SpeedSegment",
    "Storage",
    "StoreOptions",
    "UpscaleRequest",
    "Usage",
    "__version__",
    "probe",
    "run_sync",
    "store_key",
]

_HOME = {
    "ColorTags": "frames",
    "CropKeyframe": "schema",
    "Degradation": "schema",
    "EncodeOptions": "schema",
    "Frame": "frames",
    "FramePipe": "ffmpeg_pipe",
    "FrameReader": "ffmpeg_pipe",
    "FramingRequest": "schema",
    "FunctionRegistry": "client",
    "HighlightKeyframe": "schema",
    "HighlightRegion": "schema",
    "Job": "job",
    "JobOptions": "job",
    "MediaInfo": "media",
    "MediaLimits": "config",
    "ModelSource": "config",
    "OverlayRequest": "schema",
    "OverlayStyle": "schema",
    "ProgressEvent": "progress",
    "ProgressPlan": "progress",
    "ProgressSimulator": "progress",
    "ProgressUpdate": "progress",
    "ReelModalError": "errors",
    "RemoteError": "errors",
    "RemoteFunction": "remote_function",
    "RenderResult": "schema",
    "RequestError": "errors",
    "Settings": "config",
    "SpeedSegment": "schema",
    "Storage": "storage",
    "UpscaleRequest": "schema",
    "StoreOptions": "schema",
    "Usage": "schema",
    "probe": "media",
    "run_sync": "blocking",
    "store_key": "schema",
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
