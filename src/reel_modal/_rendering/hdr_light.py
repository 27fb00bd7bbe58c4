"""Brightness changes of HDR frames (PQ or HLG).

The SDR signal is a power of the light, so scaling the light scales the signal. The PQ and HLG signals are not powers
of the light: luma goes through a lookup table, and chroma is scaled by the slope of that table.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.quantization import SampleLevels
from reel_modal._rendering.tiles import Samples
from reel_modal.media.frames import GRAPHICS_WHITE_NITS, ColorTags

__all__ = ["chroma_factor", "luma_table", "signal_of", "signals_of"]

_SDR_GAMMA: Final = 2.4  # ITU-R BT.1886
# Peak of HLG's reference display. Nothing becomes brighter than this unless it was brighter before.
_BRIGHTEST_NITS: Final = 1000.0
# Linear BT.709 to BT.2020 (ITU-R BT.2087-0), and the luminance weights of BT.2020.
_TO_BT2020: Final = np.array(((0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956)))
_BT2020_WEIGHTS: Final = np.array((0.2627, 0.6780, 0.0593))
# SMPTE ST 2084, and HLG of ITU-R BT.2100-2 with its reference display.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_PQ_NITS: Final = 10_000.0
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_HLG_GAMMA: Final = 1.2

_Light = npt.NDArray[np.float64]


def signal_of(rgb: tuple[float, ...], tags: ColorTags) -> tuple[float, ...]:
    """Return the PQ or HLG signal, 0 to 1, of an SDR color; SDR white becomes graphics white.

    Args:
        rgb: Gamma-encoded BT.709 color, 0 to 1.
        tags: Color tags of the HDR frame; untagged primaries are BT.2020.
    """
    return tuple(signals_of(np.array(rgb), tags).tolist())


def signals_of(rgb: _Light, tags: ColorTags) -> _Light:
    """Return the PQ or HLG signals, 0 to 1, of SDR colors; see `signal_of`.

    Args:
        rgb: Gamma-encoded BT.709 colors, 0 to 1, (3, ...).
        tags: Color tags of the HDR frame.
    """
    light = np.power(rgb, _SDR_GAMMA)
    if tags.primaries in {None, "bt2020"}:
        light = np.tensordot(_TO_BT2020, light, 1)
    nits = GRAPHICS_WHITE_NITS * light
    if tags.transfer == "smpte2084":
        return _pq(nits)
    # Invert the display's OOTF, which depends on the luminance of the scene.
    luminance = np.tensordot(_BT2020_WEIGHTS, nits, 1) / _BRIGHTEST_NITS
    factor = np.power(np.where(luminance > 0, luminance, 1), 1 / _HLG_GAMMA - 1)
    return _hlg(nits / _BRIGHTEST_NITS * factor)


@lru_cache(maxsize=64)
def luma_table(gain: float, tags: ColorTags, bits: int) -> Samples:
    """Return the luma lookup table for the change of light that multiplies an SDR signal by `gain`.

    Args:
        gain: Gain of the SDR signal, 0 or more.
        tags: Color tags with transfer and range.
        bits: Bits per sample.
    """
    levels = SampleLevels.of(bits, full=tags.range == "pc")
    zero, span = levels.black, levels.luma_span
    values = np.arange(levels.peak + 1, dtype=np.float64)
    signal = np.clip((values - zero) / span, 0, 1)
    nits = _nits(signal, tags)
    changed = _signal(np.minimum(nits * gain**_SDR_GAMMA, np.maximum(nits, _BRIGHTEST_NITS)), tags)
    changed = np.where((values < zero) | (values > zero + span), values, zero + span * changed)
    return np.rint(changed).astype(np.uint8 if bits == 8 else np.uint16)


@lru_cache(maxsize=64)
def chroma_factor(gain: float, tags: ColorTags) -> float:
    """Return the factor of the chroma's distance from gray: the slope of luma between white and a tenth of white."""
    before = _signal(np.array((GRAPHICS_WHITE_NITS, GRAPHICS_WHITE_NITS / 10)), tags)
    after = _signal(np.array((GRAPHICS_WHITE_NITS, GRAPHICS_WHITE_NITS / 10)) * gain**_SDR_GAMMA, tags)
    return float((after[0] - after[1]) / (before[0] - before[1]))


def _nits(signal: _Light, tags: ColorTags) -> _Light:
    """Return the luminance, in nits, of a gray signal."""
    if tags.transfer == "smpte2084":
        power = np.power(signal, 1 / _M2)
        share = np.maximum(power - _C1, 0) / (_C2 - _C3 * power)
        return _PQ_NITS * np.power(share, 1 / _M1)
    scene = np.where(signal <= 0.5, signal * signal / 3, (np.exp((signal - _C) / _A) + _B) / 12)
    return _BRIGHTEST_NITS * np.power(scene, _HLG_GAMMA)


def _signal(nits: _Light, tags: ColorTags) -> _Light:
    """Return the signal, 0 to 1, of a gray luminance in nits."""
    if tags.transfer == "smpte2084":
        return _pq(nits)
    return _hlg(np.power(nits / _BRIGHTEST_NITS, 1 / _HLG_GAMMA))


def _pq(nits: _Light) -> _Light:
    power = np.power(nits / _PQ_NITS, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def _hlg(scene: _Light) -> _Light:
    bright = _A * np.log(np.maximum(12 * scene - _B, 1e-9)) + _C
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)
