"""What of a source is not in the output, a sentence each.

It must not know what was rendered.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from reel_modal.media import MediaInfo

__all__ = ["not_kept"]

_BITS: Final = 8
_SAME_CHROMA: Final = frozenset({"yuv420p", "yuvj420p", "nv12", "gray", "yuv420p10le", "p010le", "gray10le"})


def not_kept(media: MediaInfo, broken_packets: int, *, fps: Fraction | None, bits: int = _BITS) -> list[str]:
    """Return the notes.

    Args:
        media: The source.
        broken_packets: Those that could not be decoded.
        fps: The rate that was chosen for the output; None where somebody asked for one.
        bits: Of a sample of the output.
    """
    notes = []
    if fps is not None and not media.constant_rate:
        notes.append(f"the variable frame rate was resampled to {float(fps):g} frames a second")
    if broken_packets:
        notes.append(f"{broken_packets} packets of the source could not be decoded; their neighbors were repeated")
    if media.bit_depth > bits:
        notes.append(f"the {media.bit_depth}-bit source was rendered in {bits} bits")
    if media.pixel_format not in _SAME_CHROMA and media.bit_depth <= bits:
        notes.append(f"the {media.pixel_format} source was rendered in 4:2:0 chroma")
    return notes
