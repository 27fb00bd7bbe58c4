"""Levels of YUV samples in limited and full range (ITU-T H.273, 8.3, VideoFullRangeFlag)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["SampleLevels"]


@dataclass(frozen=True, slots=True)
class SampleLevels:
    """Levels of the samples of one range and bit depth.

    Limited range is scaled by a power of two; full range ends at the largest value.

    Attributes:
        peak: The largest value.
        black: Luma of black.
        luma_span: Levels from black to white.
        gray: Chroma without color.
        chroma_span: Levels from the lowest to the highest chroma.
    """

    peak: int
    black: int
    luma_span: int
    gray: int
    chroma_span: int

    @classmethod
    def of(cls, bits: int, *, full: bool) -> Self:
        """Return the levels of samples of `bits` bits, 8 or more."""
        unit, peak = 1 << (bits - 8), (1 << bits) - 1
        if full:
            return cls(peak, 0, peak, 128 * unit, peak)
        return cls(peak, 16 * unit, 219 * unit, 128 * unit, 224 * unit)
