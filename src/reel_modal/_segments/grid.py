"""Cut the frames of an output into segments. The grid depends on the frames and their rate alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

__all__ = [
    "SEGMENT_SECONDS",
    "SLOW_SEGMENT_SECONDS",
    "WHOLE",
    "Segment",
    "consecutive_runs",
    "segment_grid",
    "segment_runs",
]

SEGMENT_SECONDS: Final = Fraction(8)
"""Duration of a segment. Each begins with a keyframe: at 8 s, that costs less than 1 % of the bytes at 1080p."""

SLOW_SEGMENT_SECONDS: Final = SEGMENT_SECONDS / 2
"""Duration of a segment of a function whose frames take about ten times as long."""

_LEAST_SECONDS: Final = 1
_LEAST_FRAMES: Final = 2

_RUNS_PER_WORKER: Final = 3
"""Each run costs a fetch of the source; more runs give workers of different speeds an equal share."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of frames of an output.

    Attributes:
        first: Index of the first frame.
        end: Index after the last frame.
    """

    first: int
    end: int

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.end - self.first


WHOLE: Final = Segment(0, 0)
"""Stands for all of an output, rendered in one piece."""


def segment_grid(frames: int, fps: Fraction, seconds: Fraction = SEGMENT_SECONDS) -> tuple[Segment, ...]:
    """Return the segments of an output, in order; a short output is one segment.

    Args:
        frames: Number of frames of the output, at least 1.
        fps: Frames per second of the output.
        seconds: Duration of a segment. The last one may be shorter, but has at least one second; a shorter rest
            belongs to the segment before it.

    Example:
        >>> [segment.frames for segment in segment_grid(500, Fraction(25))]
        [200, 200, 100]
    """
    size = max(_LEAST_FRAMES, round(seconds * fps))
    least = max(_LEAST_FRAMES, math.ceil(_LEAST_SECONDS * fps))
    edges = [*range(0, frames, size), frames]
    if len(edges) > 2 and edges[-1] - edges[-2] < least:
        del edges[-2]
    return tuple(Segment(first, end) for first, end in pairwise(edges))


def segment_runs(grid: Sequence[Segment], workers: int, at_once: int = 1) -> list[Segment]:
    """Return the runs of consecutive segments that workers render, longest first; each worker gets about three.

    Args:
        grid: The segments of an output, in order; frames between them are copied.
        workers: Number of workers, at least 1.
        at_once: Number of segments that each worker renders at once; a run has at least as many, except the last.

    Example:
        >>> [run.frames for run in segment_runs(segment_grid(2000, Fraction(25)), workers=2)]
        [200, 200, 200, 200, 200, 200, 200, 200, 200, 200]
    """
    return consecutive_runs(grid, max(at_once, len(grid) // (_RUNS_PER_WORKER * workers)))


def consecutive_runs(grid: Sequence[Segment], most: int) -> list[Segment]:
    """Return the runs of consecutive segments, longest first.

    Args:
        grid: The segments, in order.
        most: Maximum number of segments in a run, at least 1.

    Example:
        >>> [run.frames for run in consecutive_runs(segment_grid(1000, Fraction(25)), most=3)]
        [600, 400]
    """
    runs: list[list[Segment]] = []
    for segment in grid:
        if not runs or len(runs[-1]) == most or runs[-1][-1].end != segment.first:
            runs.append([])
        runs[-1].append(segment)
    return sorted((Segment(run[0].first, run[-1].end) for run in runs), key=lambda run: -run.frames)
