"""Light levels of HDR samples, checked by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reel_modal._rendering.hdr_light import chroma_factor, luma_table, signal_of
from reel_modal._rendering.yuv import yuv_of
from reel_modal.media.frames import ColorTags

PQ = ColorTags(matrix="bt2020nc", range="tv", primaries="bt2020", transfer="smpte2084")
HLG = ColorTags(matrix="bt2020nc", range="tv", primaries="bt2020", transfer="arib-std-b67")
TAGS = st.sampled_from([PQ, HLG, ColorTags(transfer="smpte2084", range="pc"), ColorTags(transfer="arib-std-b67")])
BITS = st.sampled_from([8, 10])


@pytest.mark.parametrize(("tags", "code"), [(PQ, 0.58), (HLG, 0.75)])
def test_hdr_white_is_graphics_white(tags: ColorTags, code: float) -> None:
    assert signal_of((1.0, 1.0, 1.0), tags) == pytest.approx((code,) * 3, abs=0.002)
    luma, u, v = yuv_of("#ffffff", tags, 1080, 10)
    assert luma == round(64 + 876 * signal_of((1.0, 1.0, 1.0), tags)[0])
    assert (u, v) == (512, 512)
    assert yuv_of("#000000", tags, 1080, 10) == (64, 512, 512)


@given(color=st.from_regex(r"\A#[0-9a-f]{6}\Z"), tags=TAGS, bits=BITS)
def test_hdr_no_color_is_brighter_than_white(color: str, tags: ColorTags, bits: int) -> None:
    white = yuv_of("#ffffff", tags, 1080, bits)[0]
    luma, *chroma = yuv_of(color, tags, 1080, bits)
    assert luma <= white
    assert all(0 <= value < 1 << bits for value in chroma)


@given(gain=st.floats(0, 5), tags=TAGS, bits=BITS)
def test_luma_table_is_monotone_and_in_range(gain: float, tags: ColorTags, bits: int) -> None:
    table = luma_table(gain, tags, bits).astype(int)
    assert (np.diff(table) >= 0).all()
    assert table.min() >= 0
    assert table.max() < 1 << bits
    values = np.arange(1 << bits)
    assert ((table <= values) if gain <= 1 else (table >= values)).all()


@given(tags=TAGS, bits=BITS)
def test_luma_table_gain_one_changes_nothing(tags: ColorTags, bits: int) -> None:
    assert luma_table(1.0, tags, bits).tolist() == list(range(1 << bits))
    assert chroma_factor(1.0, tags) == pytest.approx(1)


@given(gain=st.floats(0.05, 1), tags=TAGS)
def test_luma_table_dims_light_as_in_sdr(gain: float, tags: ColorTags) -> None:
    """White times a gain in SDR is gray with that light; the same must hold in HDR."""
    level = round(255 * gain)
    white, gray = (yuv_of(f"#{value:02x}{value:02x}{value:02x}", tags, 1080, 10)[0] for value in (255, level))
    assert abs(int(luma_table(level / 255, tags, 10)[white]) - gray) <= 2
