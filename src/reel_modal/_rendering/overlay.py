"""Drawing of highlights on YUV planes: dim the outside, brighten the inside, tint, outline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Final

import numpy as np

from reel_modal._rendering.blending import blend, scaled
from reel_modal._rendering.ellipse import LUMA, Box, Ellipse, Grid, Mask, ellipse_mask
from reel_modal._rendering.hdr_light import chroma_factor, luma_table
from reel_modal._rendering.opencv import exact_factor, load_cv2
from reel_modal._rendering.quantization import SampleLevels
from reel_modal._rendering.region_track import STANDING_SECONDS, EllipseState, RegionTrack
from reel_modal._rendering.tiles import Samples
from reel_modal._rendering.yuv import yuv_of
from reel_modal.errors import FrameError
from reel_modal.media.frames import PLANAR, AnyPlanes, ColorTags, PixelFormat, PlanarFormat, plane_shapes
from reel_modal.schema import OverlayRequest

__all__ = ["OverlayRenderer"]

_STROKE_LINES: Final = 1080


@dataclass(frozen=True, slots=True)
class _Levels:
    """Levels of one plane: the level without light or color, the legal range, and the number of levels."""

    zero: int
    least: int
    most: int
    count: int

    @classmethod
    def of(cls, bits: int, *, full: bool, chroma: bool) -> _Levels:
        """Return the levels of samples of `bits` bits (ITU-T H.273, 8.3)."""
        levels = SampleLevels.of(bits, full=full)
        count = levels.peak + 1
        if chroma:  # symmetric around the zero level
            least = 1 if full else levels.gray - levels.chroma_span // 2
            return cls(levels.gray, least, 2 * levels.gray - least, count)
        return cls(levels.black, 0, levels.black + levels.luma_span, count)


@dataclass(frozen=True, slots=True)
class _Spot:
    """One region on one sampling grid, ready to draw."""

    state: EllipseState
    ellipse: Ellipse
    box: Box
    mask: Mask


class OverlayRenderer:
    """Renderer that draws the highlights of a request on planar frames, in place.

    Scaling the RGB signal by k is, in YUV, exactly Y' = z + k (Y - z) and C' = 128 + k (C - 128) with z = 16 in
    limited and 0 in full range, since the conversion to RGB is linear; so no frame is converted. With 10 bits, these
    numbers are four times as large; HDR goes through `hdr_light`. Each plane has a mask on its own grid, so any
    chroma subsampling works.

    Args:
        request: Request with regions, effect and style.
        size: (width, height) of the frames in pixels.
        color: Color tags of the frames; an untagged matrix is assumed from the height, as players do.
        pixel_format: Pixel format of the frames; must be planar.

    Example:
        >>> overlay = OverlayRenderer(request, (1920, 1080), ColorTags())
        >>> if overlay.active(seconds):
        ...     overlay.render(frame.planes, seconds)
    """

    def __init__(
        self,
        request: OverlayRequest,
        size: tuple[int, int],
        color: ColorTags,
        pixel_format: PixelFormat = "yuv420p",
    ) -> None:
        self._effect = request.effect
        self._style = request.style
        self._size = size
        self._shapes = plane_shapes(pixel_format, size)
        self._bits = PLANAR[pixel_format].bits
        self._samples = np.dtype(np.uint8 if self._bits == 8 else np.uint16)
        drawn = [] if request.effect == "original" else request.regions
        self._tracks = [RegionTrack(region, size, request.style) for region in drawn]
        full = color.range == "pc"
        self._luma, self._chroma = (_Levels.of(self._bits, full=full, chroma=chroma) for chroma in (False, True))
        self._chroma_grid = _chroma_grid(PLANAR[pixel_format], color)
        self._color = color

    @property
    def changed_intervals(self) -> tuple[tuple[Fraction, Fraction], ...]:
        """First and last moment, both inclusive, of each drawn region. Outside these intervals nothing changes."""
        return tuple(track.interval for track in self._tracks if track.enabled)

    def active(self, seconds: Fraction) -> bool:
        """Return whether anything is drawn at `seconds`; if not, the frame can be passed on unchanged."""
        return any(track.at(seconds) is not None for track in self._tracks)

    def moment(self, start: Fraction, end: Fraction) -> Fraction | None:
        """Return the moment whose highlights a frame shown from `start` to `end` gets; None if it gets none.

        This is `start`. If nothing is drawn at `start` and the frame is a still, it is the middle of the time that a
        region is active during the frame.
        """
        if self.active(start):
            return start
        for track in self._tracks if end - start > STANDING_SECONDS else ():
            first, last = track.interval
            if track.enabled and start < first < end:
                return (first + min(last, end)) / 2
        return None

    def moments(self, start: Fraction, end: Fraction, step: Fraction) -> Iterator[Fraction]:
        """Yield the moments at which the highlights on a frame shown from `start` to `end` change.

        These are `start` and, for a still, every step at which a highlight is drawn or has just ended.

        Args:
            start: Start of the frame, in seconds from the first frame.
            end: Start of the next frame, in seconds from the first frame.
            step: Seconds between two positions of a highlight.
        """
        yield start
        if end - start <= STANDING_SECONDS:
            return
        drawn, moment = self.active(start), start + step
        while moment < end:
            before, drawn = drawn, self.active(moment)
            if before or drawn:
                yield moment
            moment += step

    def draw(self, planes: AnyPlanes, seconds: Fraction, frame_seconds: Fraction) -> None:
        """Draw the highlights of a frame that is shown from `seconds` on for `frame_seconds`, in place.

        Raises:
            FrameError: See `render`.
        """
        if (moment := self.moment(seconds, seconds + frame_seconds)) is not None:
            self.render(planes, moment)

    def render(self, planes: AnyPlanes, seconds: Fraction) -> None:
        """Draw the highlights at `seconds` on `planes`, in place.

        Args:
            planes: uint8, or uint16 for 10 bits: Y (H, W), U and V with the shape of the pixel format, for yuv420p
                ((H+1)//2, (W+1)//2), C-contiguous rows.
            seconds: Timestamp of the frame, in seconds from the first frame.

        Raises:
            FrameError: The shapes of the planes do not match `size`, or their dtype does not match `pixel_format`.
        """
        if [plane.shape for plane in planes] != self._shapes or {plane.dtype for plane in planes} != {self._samples}:
            given = [(plane.shape, plane.dtype.name) for plane in planes]
            raise FrameError(
                f"planes are {given}; they must have the shapes {self._shapes} and {self._samples} samples"
            )
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
        self, plane: Samples, spots: Sequence[_Spot], states: Sequence[EllipseState], levels: _Levels
    ) -> None:
        """Darken the outside of all ellipses; while regions fade, by the strength of the strongest one."""
        cv2 = load_cv2()
        strength = max(state.strength for state in states)
        gain = exact_factor(1 - self._style.dim_strength * strength)
        kept = _union(spots)
        original = plane[kept.slices].copy()
        if self._color.is_hdr and levels is self._luma:
            plane[:] = luma_table(gain, self._color, self._bits).take(plane, mode="clip")
            blend(original, plane[kept.slices], _lit(spots, kept, strength))
            return
        gain = exact_factor(chroma_factor(gain, self._color)) if self._color.is_hdr else gain
        lifted = levels.zero * (1 - gain)
        if self._bits == 8:  # three times as fast as addWeighted, with the same result
            cv2.convertScaleAbs(plane, plane, alpha=gain, beta=lifted)
        else:
            cv2.addWeighted(plane, gain, plane, 0, lifted, dst=plane)
        blend(original, plane[kept.slices], _lit(spots, kept, strength))

    def _brighten(self, plane: Samples, spots: Sequence[_Spot], levels: _Levels) -> None:
        """Brighten the inside of the ellipses; overlaps are brightened once."""
        kept = _union(spots)
        part = plane[kept.slices]
        table = self._table(1 + self._style.boost_strength, levels, plane.dtype)
        gained = load_cv2().LUT(part, table) if self._bits == 8 else table.take(part, mode="clip")
        blend(gained, part, _lit(spots, kept, 1.0))

    def _table(self, gain: float, levels: _Levels, samples: np.dtype[np.uint8 | np.uint16]) -> Samples:
        """Return the lookup table for a gain of the signal."""
        if not self._color.is_hdr:
            return _gain_table(gain, levels, samples)
        if levels is self._luma:
            return luma_table(gain, self._color, self._bits)
        return _gain_table(chroma_factor(gain, self._color), levels, samples)

    def _tint(self, plane: Samples, spot: _Spot, index: int, grid: Grid) -> None:
        """Blend the region's color over the inside and the outline."""
        state = spot.state
        if state.color is None:
            return
        value = yuv_of(state.color, self._color, self._size[1], self._bits)[index]
        if state.fill_opacity > 0:
            _lay_over(plane, spot.box, spot.mask, value, state.fill_opacity * state.strength)
        half = self._style.stroke_width_px * self._size[1] / _STROKE_LINES / 2
        if state.stroke_opacity > 0 and half > 0:
            across, down = (half / step for step in grid.step)
            outer, inner = spot.ellipse.grown(across, down), spot.ellipse.grown(-across, -down)
            box = Box.around(outer, plane.shape)
            if not box.empty:
                ring = load_cv2().subtract(ellipse_mask(outer, box), ellipse_mask(inner, box))
                _lay_over(plane, box, ring, value, state.stroke_opacity * state.strength)


def _union(spots: Sequence[_Spot]) -> Box:
    """Return the bounding box of all spots; an empty box if there are no spots."""
    return reduce(Box.union, (spot.box for spot in spots[1:]), spots[0].box) if spots else Box(0, 0, 0, 0)


def _lit(spots: Sequence[_Spot], kept: Box, strongest: float) -> Mask:
    """Return the mask of the union of all ellipses on `kept`, each weighted by its fade relative to `strongest`."""
    if len(spots) == 1:
        return scaled(spots[0].mask, spots[0].state.strength / strongest)
    lit = np.zeros((kept.bottom - kept.top, kept.right - kept.left), np.uint8)
    for spot in spots:
        part = lit[spot.box.within(kept)]
        np.maximum(part, scaled(spot.mask, spot.state.strength / strongest), out=part)
    return lit


def _lay_over(plane: Samples, box: Box, mask: Mask, value: int, opacity: float) -> None:
    below = plane[box.slices]
    blend(np.full(below.shape, value, below.dtype), below, scaled(mask, opacity))


def _gain_table(gain: float, levels: _Levels, samples: np.dtype[np.uint8 | np.uint16]) -> Samples:
    """Return the lookup table for `gain`; it moves no level out of the legal range, and none from outside into it."""
    values = np.arange(levels.count, dtype=np.float64)
    gained = levels.zero + gain * (values - levels.zero)
    within = np.clip(gained, np.minimum(values, levels.least), np.maximum(values, levels.most))
    return np.clip(np.rint(within), 0, levels.count - 1).astype(samples)


def _chroma_grid(layout: PlanarFormat, color: ColorTags) -> Grid:
    """Return the grid of the chroma samples: on the left of two pixels, unless the tags specify the center.

    4:2:2 has them on the first of two pixels (ITU-T H.264, 6.2); 4:4:0, which is 4:2:2 rotated, on the upper one.
    """
    across, down = layout.step
    left = 0.5 if across == 2 and color.chroma_location != "center" else 0.0
    return Grid((across, down), (left, 0.5 if layout.step == (1, 2) else 0.0))
