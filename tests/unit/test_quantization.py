"""Levels of YUV samples, with the values of ITU-R BT.709 and BT.2100 for 8, 10 and 12 bits."""

from __future__ import annotations

import pytest

from reel_modal._rendering.quantization import SampleLevels


@pytest.mark.parametrize(
    ("bits", "black", "white", "gray", "least", "most"),
    [(8, 16, 235, 128, 16, 240), (10, 64, 940, 512, 64, 960), (12, 256, 3760, 2048, 256, 3840)],
)
def test_sample_levels_limited_range_equals_standard(
    bits: int, black: int, white: int, gray: int, least: int, most: int
) -> None:
    levels = SampleLevels.of(bits, full=False)
    assert (levels.black, levels.black + levels.luma_span, levels.gray) == (black, white, gray)
    assert (gray - levels.chroma_span // 2, gray + levels.chroma_span // 2) == (least, most)


@pytest.mark.parametrize(("bits", "peak", "gray"), [(8, 255, 128), (10, 1023, 512), (12, 4095, 2048)])
def test_sample_levels_full_range_uses_all_values(bits: int, peak: int, gray: int) -> None:
    assert SampleLevels.of(bits, full=True) == SampleLevels(peak, 0, peak, gray, peak)
