"""Highlights on YUV planes: dim outside, brighten inside, tint, outline; only where a region is.

Pure work on arrays; it must not know files, clocks or jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Final

import numpy as np

from reel_modal.errors import FrameError
from reel_modal.frames import ColorTags, Planes, U8Array, plane_shapes
from reel_modal.rendering.ellipse import (
    CHROMA_CENTER,
    CHROMA_LEFT,
    LUMA,
    Box,
    Ellipse,
    Grid,
    Mask,
    ellipse_mask,
)
from reel_modal.rendering.opencv import load_cv2
from reel_modal.rendering.timeline import EllipseState, RegionTrack
from reel_modal.rendering.yuv_color import yuv_of
from reel_modal.schema import OverlayRequest

__all__ = ["OverlayRenderer"]

_STROKE_LINES: Final = 1080


@dataclass(frozen=True, slots=True)
class _Levels:
    """The numbers of one plane: what stands for no light, and the most that light reaches."""

    zero: int
    most: int


@dataclass(frozen=True, slots=True)
class _Spot:
    """One region on one sampling grid, ready to be drawn."""

    state: EllipseState
    ellipse: Ellipse
    box: Box
    mask: Mask


class OverlayRenderer:
    """Draws the highlights of a request on yuv420p frames, in place.

    Scaling light by k is, in YUV, exactly Y' = z + k (Y - z) and C' = 128 + k (C - 128) with z = 16 in
    limited and 0 in full range, since the way to RGB is linear; so no frame is converted.

    Args:
        request: Regions, effect and style.
        size: (width, height) of the frames in pixels.
        color: Tags of the frames; an untagged matrix is assumed by the height, as players do.

    Example:
        >>> overlay = OverlayRenderer(request, (1920, 1080), ColorTags())
        >>> if overlay.active(seconds):
        ...     overlay.render(frame.planes, seconds)
    """

    def __init__(self, request: OverlayRequest, size: tuple[int, int], color: ColorTags) -> None:
        self._effect = request.effect
        self._style = request.style
        self._size = size
        self._shapes = plane_shapes("yuv420p", size)
        drawn = [] if request.effect == "original" else request.regions
        self._tracks = [RegionTrack(region, size, request.style) for region in drawn]
        full = color.range == "pc"
        self._luma = _Levels(0, 255) if full else _Levels(16, 235)
        self._chroma = _Levels(128, 255) if full else _Levels(128, 240)
        self._chroma_grid = CHROMA_CENTER if color.chroma_location == "center" else CHROMA_LEFT
        self._color = color

    @property
    def changed_intervals(self) -> tuple[tuple[Fraction, Fraction], ...]:
        """First and last moment, both inclusive, of each region that is drawn; outside of all nothing changes."""
        return tuple(track.interval for track in self._tracks if track.enabled)

    def active(self, seconds: Fraction) -> bool:
        """Whether anything is drawn at `seconds`; when not, the frame is to go through as it is."""
        return any(track.at(seconds) is not None for track in self._tracks)

    def render(self, planes: Planes, seconds: Fraction) -> None:
        """Draw what is to be seen at `seconds` on `planes`, in place.

        Args:
            planes: uint8 Y (H, W), U and V ((H+1)//2, (W+1)//2), C-contiguous rows.
            seconds: Time of the frame, from the first picture on.

        Raises:
            FrameError: The planes have other shapes than the announced size.
        """
        if [plane.shape for plane in planes] != self._shapes:
            raise FrameError(f"planes of shapes {[p.shape for p in planes]}; {self._shapes} are wanted")
        states = [state for track in self._tracks if (state := track.at(seconds)) is not None]
        if not states:
            return
        luma = self._spots(states, LUMA, planes[0].shape)
        chroma = self._spots(states, self._chroma_grid, planes[1].shape)
        for index, plane in enumerate(planes):
            spots, levels, grid = (
                (luma, self._luma, LUMA) if index == 0 else (chroma, self._chroma, self._chroma_grid)
            )
            if self._effect == "dark_overlay":
                self._darken(plane, spots, states, levels)
            else:
                self._brighten(plane, spots, levels)
            for spot in spots:
                self._tint(plane, spot, index, grid)

    def _spots(self, states: Sequence[EllipseState], grid: Grid, shape: tuple[int, ...]) -> list[_Spot]:
        spots = []
        for state in states:
            ellipse = Ellipse(state.center_x, state.center_y, state.radius_x, state.radius_y).on(grid)
            box = Box.around(ellipse, shape)
            if not box.empty:
                spots.append(_Spot(state, ellipse, box, ellipse_mask(ellipse, box, self._style.feather)))
        return spots

    def _darken(
        self, plane: U8Array, spots: Sequence[_Spot], states: Sequence[EllipseState], levels: _Levels
    ) -> None:
        """Take light away outside of all ellipses; where regions fade, the strongest says how much."""
        cv2 = load_cv2()
        strength = max(state.strength for state in states)
        gain = 1 - self._style.dim_strength * strength
        kept = _union(spots)
        original = plane[kept.slices].copy()
        cv2.convertScaleAbs(plane, plane, alpha=gain, beta=levels.zero * (1 - gain))
        _blend(original, plane[kept.slices], _lit(spots, kept, strength))

    def _brighten(self, plane: U8Array, spots: Sequence[_Spot], levels: _Levels) -> None:
        """Multiply the light inside, once where ellipses overlap."""
        kept = _union(spots)
        part = plane[kept.slices]
        gained = load_cv2().LUT(part, _gain_table(1 + self._style.boost_strength, levels))
        _blend(gained, part, _lit(spots, kept, 1.0))

    def _tint(self, plane: U8Array, spot: _Spot, index: int, grid: Grid) -> None:
        """Lay the region's colour over the inside and along the edge."""
        state = spot.state
        if state.color is None:
            return
        value = yuv_of(state.color, self._color, self._size[1])[index]
        if state.fill_opacity > 0:
            _lay_over(plane, spot.box, spot.mask, value, state.fill_opacity * state.strength)
        half = self._style.stroke_width_px * self._size[1] / _STROKE_LINES / 2 / grid.step
        if state.stroke_opacity > 0 and half > 0:
            outer, inner = spot.ellipse.grown(half), spot.ellipse.grown(-half)
            box = Box.around(outer, plane.shape)
            if not box.empty:
                ring = load_cv2().subtract(ellipse_mask(outer, box), ellipse_mask(inner, box))
                _lay_over(plane, box, ring, value, state.stroke_opacity * state.strength)


def _union(spots: Sequence[_Spot]) -> Box:
    """Return the box around all spots, an empty one without any."""
    return reduce(Box.union, (spot.box for spot in spots[1:]), spots[0].box) if spots else Box(0, 0, 0, 0)


def _lit(spots: Sequence[_Spot], kept: Box, strongest: float) -> Mask:
    """Return how much of each sample of `kept` is inside of any ellipse, as far as each has faded in."""
    if len(spots) == 1:
        return _scaled(spots[0].mask, spots[0].state.strength / strongest)
    lit = np.zeros((kept.bottom - kept.top, kept.right - kept.left), np.uint8)
    for spot in spots:
        part = lit[spot.box.within(kept)]
        np.maximum(part, _scaled(spot.mask, spot.state.strength / strongest), out=part)
    return lit


def _scaled(mask: Mask, share: float) -> Mask:
    if share >= 1:
        return mask
    scaled: Mask = load_cv2().convertScaleAbs(mask, alpha=share)
    return scaled


def _blend(over: U8Array, below: U8Array, mask: Mask) -> None:
    """Lay `over` on `below`, in place, as far as `mask` says; where it is 0 or 255, exactly."""
    if mask.size == 0:
        return
    cv2 = load_cv2()
    seen = cv2.multiply(over, mask, scale=1 / 255)
    left = cv2.multiply(below, cv2.bitwise_not(mask), scale=1 / 255)
    cv2.add(seen, left, below)


def _lay_over(plane: U8Array, box: Box, mask: Mask, value: int, opacity: float) -> None:
    below = plane[box.slices]
    _blend(np.full(below.shape, value, np.uint8), below, _scaled(mask, opacity))


def _gain_table(gain: float, levels: _Levels) -> U8Array:
    """Return what each of the 256 values becomes; none goes beyond legal light, nor back to it."""
    values = np.arange(256, dtype=np.float64)
    gained = levels.zero + gain * (values - levels.zero)
    least = 256 - levels.most if levels.zero == 128 else 0  # chroma reaches as far down as up
    within = np.clip(gained, np.minimum(values, least), np.maximum(values, levels.most))
    return np.clip(np.rint(within), 0, 255).astype(np.uint8)
