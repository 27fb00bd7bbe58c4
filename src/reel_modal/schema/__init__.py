"""Typed requests and results. The constructors validate, so an invalid request is never submitted."""

from __future__ import annotations

from reel_modal.schema.degradation import DEGRADATION_CODES, Degradation, DegradationCode
from reel_modal.schema.framing import CropKeyframe, Fit, FramingRequest, Outside, SlowMotion, SpeedSegment
from reel_modal.schema.interpolation import Interpolation
from reel_modal.schema.options import EncodeOptions, Existing, Scope, StoreOptions, store_key
from reel_modal.schema.overlay import Effect, OverlayRequest, OverlayStyle
from reel_modal.schema.reel import ReelClip, ReelRequest, ReelTransition
from reel_modal.schema.reel_layers import Anchor, ReelLayer
from reel_modal.schema.reel_music import Loudness, ReelMusic
from reel_modal.schema.reel_timeline import PlacedClip, ReelTimeline, TransitionKind
from reel_modal.schema.regions import HighlightKeyframe, HighlightRegion
from reel_modal.schema.results import RenderResult, Usage
from reel_modal.schema.timeline import Piece, Timeline
from reel_modal.schema.upscale import UpscaleRequest

__all__ = [
    "DEGRADATION_CODES",
    "Anchor",
    "CropKeyframe",
    "Degradation",
    "DegradationCode",
    "Effect",
    "EncodeOptions",
    "Existing",
    "Fit",
    "FramingRequest",
    "HighlightKeyframe",
    "HighlightRegion",
    "Interpolation",
    "Loudness",
    "Outside",
    "OverlayRequest",
    "OverlayStyle",
    "Piece",
    "PlacedClip",
    "ReelClip",
    "ReelLayer",
    "ReelMusic",
    "ReelRequest",
    "ReelTimeline",
    "ReelTransition",
    "RenderResult",
    "Scope",
    "SlowMotion",
    "SpeedSegment",
    "StoreOptions",
    "Timeline",
    "TransitionKind",
    "UpscaleRequest",
    "Usage",
    "store_key",
]
