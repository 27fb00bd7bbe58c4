"""Frames through a network that enlarges pictures: luma or RGB, in tiles, and on to any size.

Pure; it must not know what runs the network, nor where frames come from and go to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from reel_modal.frames import CHROMA_ORIGIN, ColorTags
from reel_modal.rendering.chroma import resized_chroma
from reel_modal.rendering.resampling import Window, resample
from reel_modal.rendering.rgb_planes import RgbConversion
from reel_modal.rendering.tiles import Samples, TilePlan, enlarged

__all__ = ["SamplePlanes", "UpscaleRenderer"]

SamplePlanes: TypeAlias = tuple[Samples, Samples, Samples]
"""Y (H, W), U and V ((H+1)//2, (W+1)//2) of one frame."""

_EIGHT: Final = 8


class UpscaleRenderer:
    """Enlarges the frames of one video.

    A luma network makes the luma, which has all of the detail that eyes see; chroma is resized with its siting, so
    that no matrix and no range can go wrong. An RGB network gets the picture converted, and gives it back.

    Args:
        run: The network: whole numbers (n, C, h, w) to (n, C, scale h, scale w), C being 1 or 3.
        kind: What the network takes.
        scale: Of the network.
        halo: Pixels around a tile that its pixels depend on.
        size: (width, height) of the frames in pixels.
        target: (width, height) of the result; where the network does not land on it, one resize follows.
        color: Tags of the frames.
        origin: Where their first chroma sample lies, in luma pixels from left and top; that of the result lies at
            the left, whatever the clip was turned by.
        bits: Of a sample.
        budget_pixels: Most that is given to the network at once, in pixels of the source.
        batch: Most pictures or tiles that are given at once; they share the budget.
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
        """Return what the network makes of frames: (C, scale H, scale W) each. This is the slow half."""
        convert = self._rgb
        pictures = [y[None] if convert is None else convert.to_rgb(y, u, v) for y, u, v in frames]
        return enlarged(pictures, self.plan, self._scale, self._run, self._batch)

    def finished(self, detail: Samples, frame: SamplePlanes) -> SamplePlanes:
        """Return the frame in the target's size, of the network's `detail` and the frame that it was made of."""
        if self._rgb is not None:
            return self._rgb.from_rgb(self._on_target(detail))
        _, u, v = frame
        u, v = (resized_chroma(plane, self._origin, self._size, self._target) for plane in (u, v))
        return self._on_target(detail)[0], u, v

    def _on_target(self, detail: Samples) -> Samples:
        """Resize planes (C, H, W) that are not of the target's size."""
        height, width = detail.shape[1:]
        if (width, height) == self._target:
            return detail
        resized: Samples = np.empty((len(detail), *self._target[::-1]), detail.dtype)
        for plane, target in zip(detail, resized, strict=True):
            resample(plane, Window(0, 0, width, height), target)
        return resized
