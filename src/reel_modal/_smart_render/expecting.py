"""Estimate, from a clip's probe alone, how many frames a splice will render. Does not open the clip."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from reel_modal._smart_render.plan import Interval, refuse_most
from reel_modal._smart_render.source import refuse_by_headers
from reel_modal.media import MediaInfo

__all__ = ["estimate_rendered_frames"]

# The keyframe positions are unknown. Encoders for the web set a keyframe every two seconds, and a change ends, on
# average, in the middle between two keyframes.
_TO_KEYFRAME_SECONDS: Final = Fraction(1)


def estimate_rendered_frames(media: MediaInfo, changed: Iterable[Interval]) -> int:
    """Return how many frames of `media` would be rendered: those of each change and of one second after it.

    Args:
        media: The clip.
        changed: See `plan_render`.

    Raises:
        SpliceError: The clip's headers show that it cannot be spliced, or too few frames would be copied.
    """
    refuse_by_headers(media)
    frames = media.expected_frames or 1
    rendered = done = Fraction(0)
    for start, end in sorted(changed):
        begin, stop = max(start, done), min(end + _TO_KEYFRAME_SECONDS, frames / media.fps)
        if begin < stop:
            rendered, done = rendered + stop - begin, stop
    count = min(frames, round(rendered * media.fps))
    refuse_most(count, frames)
    return count
