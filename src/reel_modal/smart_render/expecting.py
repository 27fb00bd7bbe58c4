"""How many pictures a splice will render of a clip that is not here, by what its probe says.

It must not open the clip.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Final

from reel_modal.media import MediaInfo
from reel_modal.smart_render.packets import refuse_by_headers
from reel_modal.smart_render.planning import Interval, refuse_most

__all__ = ["frames_guessed"]

# Nothing says where the keyframes are. Encoders for the web set one every two seconds; a window ends, on average, in
# the middle between two.
_TO_KEYFRAME_SECONDS: Final = Fraction(1)


def frames_guessed(media: MediaInfo, changed: Iterable[Interval]) -> int:
    """Return how many pictures of `media` would be rendered, each change and one second behind it.

    Args:
        media: The clip.
        changed: See `smart_render.plan`.

    Raises:
        SpliceError: By its headers, it cannot be spliced, or too little would be copied.
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
