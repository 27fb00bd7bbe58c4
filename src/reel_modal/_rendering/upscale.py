"""Upscaling of frames with a luma or RGB network, in tiles, followed by a resize to any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from reel_modal._rendering.resampling import Rect, resample
from reel_modal._rendering.tiles import Samples, TilePlan, enlarged
from reel_modal._rendering.yuv import RgbConversion, resized_chroma
from reel_modal.media.frames import CHROMA_ORIGIN, ColorTags

__all__ = ["SamplePlanes", "UpscaleRenderer"]

SamplePlanes: TypeAlias = tuple[Samples, Samples, Samples]
"""Y (H, W), U and V ((H+1)//2, (W+1)//2) of one frame."""

_EIGHT: Final = 8


class UpscaleRenderer:
    """Renderer that upscales the frames of one video.

    A luma network upscales only the luma, which has all of the visible detail; chroma is resized with its siting, so
    that no matrix and no range is involved. For an RGB network, frames are converted to RGB and back.

    Args:
        run: The network: integers (n, C, h, w) to (n, C, scale h, scale w); C is 1 or 3.
        kind: Input of the network.
        scale: Scale of the network.
        halo: Pixels around a tile that its pixels depend on.
        size: (width, height) of the frames in pixels.
        target: (width, height) of the result; if the network's output has another size, it is resized once.
        color: Color tags of the frames.
        origin: Position of the frames' first chroma sample, in luma pixels from left and top; the result has the
            siting `left`, also for a rotated clip.
        bits: Bits per sample.
        budget_pixels: Maximum size of one call of the network, in source pixels.
        batch: Maximum number of frames or tiles per call; they share the budget.
    """

    def __init__(
        self,
        run: Callable[[Samples], Samples],
        *,
        kind: Literal["luma", "rgb"],
        scale: int,
        halo: int,
        size: tuple[int, int],
        target: tuple[int, int],
        color: ColorTags,
        origin: tuple[float, float] = CHROMA_ORIGIN["left"],
        bits: int = _EIGHT,
        budget_pixels: int = 512 * 512,
        batch: int = 1,
    ) -> None:
        self._run = run
        self._scale = scale
        self._target = target
        self._size = size
        self._origin = origin
        self._batch = batch
        self.plan: TilePlan = TilePlan.of(size, halo, budget_pixels // batch)
        self._rgb = RgbConversion(color, size[1], bits, origin) if kind == "rgb" else None

    def detail(self, frames: Sequence[SamplePlanes]) -> list[Samples]:
        """Return the network's output for each frame, (C, scale H, scale W). This is the slow half of the work."""
        convert = self._rgb
        pictures = [y[None] if convert is None else convert.to_rgb(y, u, v) for y, u, v in frames]
        return enlarged(pictures, self.plan, self._scale, self._run, self._batch)

    def finished(self, detail: Samples, frame: SamplePlanes) -> SamplePlanes:
        """Return the upscaled frame in the target size, from the network's `detail` and its source frame."""
        if self._rgb is not None:
            return self._rgb.from_rgb(self._on_target(detail))
        _, u, v = frame
        u, v = (resized_chroma(plane, self._origin, self._size, self._target) for plane in (u, v))
        return self._on_target(detail)[0], u, v

    def _on_target(self, detail: Samples) -> Samples:
        """Return planes (C, H, W) resized to the target size; unchanged if they have it."""
        height, width = detail.shape[1:]
        if (width, height) == self._target:
            return detail
        resized: Samples = np.empty((len(detail), *self._target[::-1]), detail.dtype)
        for plane, target in zip(detail, resized, strict=True):
            resample(plane, Rect(0, 0, width, height), target)
        return resized
