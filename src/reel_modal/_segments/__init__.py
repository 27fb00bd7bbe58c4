"""Finished parts of long outputs: the grid that cuts an output, the hash of what determines it, and their store."""

from __future__ import annotations

from reel_modal._segments.address import Rendering
from reel_modal._segments.grid import (
    SEGMENT_SECONDS,
    SLOW_SEGMENT_SECONDS,
    WHOLE,
    Segment,
    consecutive_runs,
    segment_grid,
    segment_runs,
)
from reel_modal._segments.report import Engine, SegmentReport, SegmentsFinished
from reel_modal._segments.store import KEPT, SegmentStore, folders_with_segments, list_segments, remove_old

__all__ = [
    "KEPT",
    "SEGMENT_SECONDS",
    "SLOW_SEGMENT_SECONDS",
    "WHOLE",
    "Engine",
    "Rendering",
    "Segment",
    "SegmentReport",
    "SegmentStore",
    "SegmentsFinished",
    "consecutive_runs",
    "folders_with_segments",
    "list_segments",
    "remove_old",
    "segment_grid",
    "segment_runs",
]
