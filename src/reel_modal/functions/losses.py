"""What of a source is not in the output."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from reel_modal.media import MediaInfo
from reel_modal.schema import Degradation

__all__ = ["not_kept"]

_BITS: Final = 8
_SAME_CHROMA: Final = frozenset({"yuv420p", "yuvj420p", "nv12", "gray", "yuv420p10le", "p010le", "gray10le"})


def not_kept(media: MediaInfo, broken_packets: int, *, fps: Fraction | None, bits: int = _BITS) -> list[Degradation]:
    """Return the notes.

    Args:
        media: The source.
        broken_packets: Those that could not be decoded.
        fps: The rate that was chosen for the output; None where somebody asked for one.
        bits: Of a sample of the output.
    """
    notes: list[Degradation] = []
    if fps is not None and not media.constant_rate:
        message = f"the variable frame rate was resampled to {float(fps):g} frames a second"
        notes.append(Degradation("frame_rate_changed", message))
    if broken_packets:
        message = f"{broken_packets} packets of the source could not be decoded; their neighbors were repeated"
        notes.append(Degradation("pictures_undecodable", message))
    if media.bit_depth > bits:
        message = f"the {media.bit_depth}-bit source was rendered in {bits} bits"
        notes.append(Degradation("bit_depth_reduced", message))
    if media.pixel_format not in _SAME_CHROMA and media.bit_depth <= bits:
        message = f"the {media.pixel_format} source was rendered in 4:2:0 chroma"
        notes.append(Degradation("chroma_reduced", message))
    return notes
