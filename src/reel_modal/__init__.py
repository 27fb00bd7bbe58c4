"""Render video from a typed Python backend, on Modal GPUs or on this machine with the same code.

The public names are loaded on first use: importing the package imports neither modal nor cv2.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from reel_modal._version import VERSION

if TYPE_CHECKING:
    from reel_modal._support.portal import run_sync
    from reel_modal.backends.base import JobStatus
    from reel_modal.backends.local import LocalBackend
    from reel_modal.backends.modal import ModalBackend
    from reel_modal.client import (
        Estimate,
        FunctionRegistry,
        Job,
        JobOptions,
        Parallel,
        RemoteFunction,
        Resources,
        estimate,
    )
    from reel_modal.errors import ReelModalError, RemoteError, RequestError
    from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
    from reel_modal.functions.context import JobContext
    from reel_modal.functions.declaration import Command, RenderFunction, Work, render_function
    from reel_modal.functions.specs import ImageSpec, SegmentSpec
    from reel_modal.media import MediaInfo, probe
    from reel_modal.media.frames import ColorTags, Frame
    from reel_modal.progress import (
        ProgressEvent,
        ProgressPlan,
        ProgressSimulator,
        ProgressUpdate,
        TimingHistory,
        track,
    )
    from reel_modal.schema import (
        CropKeyframe,
        Degradation,
        EncodeOptions,
        FramingRequest,
        HighlightKeyframe,
        HighlightRegion,
        OverlayRequest,
        OverlayStyle,
        ReelClip,
        ReelLayer,
        ReelMusic,
        ReelRequest,
        ReelTransition,
        RenderResult,
        SpeedSegment,
        StoreOptions,
        UpscaleRequest,
        Usage,
        store_key,
    )
    from reel_modal.schema.requests import Request
    from reel_modal.schema.results import Result
    from reel_modal.settings import MediaLimits, ModelSource, Settings
    from reel_modal.storage import Storage

__version__ = VERSION

__all__ = [
    "ColorTags",
    "Command",
    "CropKeyframe",
    "Degradation",
    "EncodeOptions",
    "Estimate",
    "Frame",
    "FramePipe",
    "FrameReader",
    "FramingRequest",
    "FunctionRegistry",
    "HighlightKeyframe",
    "HighlightRegion",
    "ImageSpec",
    "Job",
    "JobContext",
    "JobOptions",
    "JobStatus",
    "LocalBackend",
    "MediaInfo",
    "MediaLimits",
    "ModalBackend",
    "ModelSource",
    "OverlayRequest",
    "OverlayStyle",
    "Parallel",
    "ProgressEvent",
    "ProgressPlan",
    "ProgressSimulator",
    "ProgressUpdate",
    "ReelClip",
    "ReelLayer",
    "ReelModalError",
    "ReelMusic",
    "ReelRequest",
    "ReelTransition",
    "RemoteError",
    "RemoteFunction",
    "RenderFunction",
    "RenderResult",
    "Request",
    "RequestError",
    "Resources",
    "Result",
    "SegmentSpec",
    "Settings",
    "SpeedSegment",
    "Storage",
    "StoreOptions",
    "TimingHistory",
    "UpscaleRequest",
    "Usage",
    "Work",
    "__version__",
    "estimate",
    "probe",
    "render_function",
    "run_sync",
    "store_key",
    "track",
]

_HOME = {
    "ColorTags": "media.frames",
    "Command": "functions.declaration",
    "CropKeyframe": "schema",
    "Degradation": "schema",
    "EncodeOptions": "schema",
    "Estimate": "client",
    "Frame": "media.frames",
    "FramePipe": "ffmpeg_pipe",
    "FrameReader": "ffmpeg_pipe",
    "FramingRequest": "schema",
    "FunctionRegistry": "client",
    "HighlightKeyframe": "schema",
    "HighlightRegion": "schema",
    "ImageSpec": "functions.specs",
    "Job": "client",
    "JobContext": "functions.context",
    "JobOptions": "client",
    "JobStatus": "backends.base",
    "LocalBackend": "backends.local",
    "MediaInfo": "media",
    "MediaLimits": "settings",
    "ModalBackend": "backends.modal",
    "ModelSource": "settings",
    "OverlayRequest": "schema",
    "OverlayStyle": "schema",
    "Parallel": "client",
    "ProgressEvent": "progress",
    "ProgressPlan": "progress",
    "ProgressSimulator": "progress",
    "ProgressUpdate": "progress",
    "ReelClip": "schema",
    "ReelLayer": "schema",
    "ReelModalError": "errors",
    "ReelMusic": "schema",
    "ReelRequest": "schema",
    "ReelTransition": "schema",
    "RemoteError": "errors",
    "RemoteFunction": "client",
    "Resources": "client",
    "RenderFunction": "functions.declaration",
    "RenderResult": "schema",
    "Request": "schema.requests",
    "RequestError": "errors",
    "Result": "schema.results",
    "SegmentSpec": "functions.specs",
    "Settings": "settings",
    "SpeedSegment": "schema",
    "Storage": "storage",
    "StoreOptions": "schema",
    "TimingHistory": "progress",
    "UpscaleRequest": "schema",
    "Usage": "schema",
    "Work": "functions.declaration",
    "estimate": "client",
    "probe": "media",
    "render_function": "functions.declaration",
    "run_sync": "_support.portal",
    "store_key": "schema",
    "track": "progress",
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
