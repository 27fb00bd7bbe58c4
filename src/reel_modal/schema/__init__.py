"""Typed requests and results: construction validates, so a bad request never leaves the host.

Pure; it must not know storage, media or backends.
"""

from __future__ import annotations

from reel_modal.schema.encoding import EncodeOptions
from reel_modal.schema.overlay import (
    Effect,
    HighlightKeyframe,
    HighlightRegion,
    Interpolation,
    OverlayRequest,
    OverlayStyle,
)
from reel_modal.schema.results import RenderResult

__all__ = [
    "Effect",
    "EncodeOptions",
    "HighlightKeyframe",
    "HighlightRegion",
    "Interpolation",
    "OverlayRequest",
    "OverlayStyle",
    "RenderResult",
]
