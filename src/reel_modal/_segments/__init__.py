"""Finished parts of long outputs: the grid that cuts an output, the hash of what determines it, and their store."""

from __future__ import annotations

from reel_modal._segments.address import Rendering
from reel_modal._segments.grid import Segment, segment_grid
from reel_modal._segments.store import KEPT, SegmentStore, folders_with_segments, list_segments, remove_old

__all__ = [
    "KEPT",
    "Rendering",
    "Segment",
    "SegmentStore",
    "folders_with_segments",
    "list_segments",
    "remove_old",
    "segment_grid",
]
