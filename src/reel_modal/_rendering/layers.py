"""Images on YUV planes: resize and convert once, then blend them onto frames with integers."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal._rendering.blending import blend, scaled
from reel_modal._rendering.ellipse import Mask
from reel_modal._rendering.hdr_light import signals_of
from reel_modal._rendering.quantization import SampleLevels
from reel_modal._rendering.resampling import Rect, resample_unrounded
from reel_modal._rendering.tiles import Samples
from reel_modal._rendering.yuv import from_luma, luma_weights
from reel_modal.media.frames import PLANAR, AnyPlanes, ColorTags, PixelFormat

__all__ = ["LayerImage"]

# Premultiplied samples have 10 bits, the most that the resampling computes exactly.
_PEAK: Final = 1023
_OPAQUE: Final = 255
_F32: Final = np.float32
_Plane = npt.NDArray[np.float32]
_Kind = type[np.uint8] | type[np.uint16]


class LayerImage:
    """An image at its place on frames of one size and color, resized and converted.

    Alpha is premultiplied before the image is resized, and before its chroma is reduced, so that the color of
    transparent pixels appears nowhere.

    Args:
        image: uint8, (H, W, 4), BGR and alpha, not premultiplied; sRGB.
        size: (width, height) of the image on the frame in pixels.
        corner: (left, top) of the image on the frame in pixels, even; it may be outside of the frame.
        frame_size: (width, height) of the frames in pixels, even.
        color: Color tags of the frames; their chroma has the siting `left`.
        pixel_format: 4:2:0 in 8 or 10 bits.
    """

    def __init__(
        self,
        image: npt.NDArray[np.uint8],
        *,
        size: tuple[int, int],
        corner: tuple[int, int],
        frame_size: tuple[int, int],
        color: ColorTags,
        pixel_format: PixelFormat,
    ) -> None:
        self._parts: list[tuple[Samples, Mask, tuple[slice, slice]]] = []
        bits = PLANAR[pixel_format].bits
        planes, masks = _converted(image, size, frame_size[1], color, bits)
        left, top = corner[0] - _PAD, corner[1]
        for index, plane in enumerate(planes):
            step = 2 if index else 1
            place, seen = _inside((left // step, top // step), plane, (frame_size[0] // step, frame_size[1] // step))
            # Copies, so that the rest of the image can be freed.
            self._parts.append((plane[seen].copy(), masks[min(index, 1)][seen].copy(), place))

    @property
    def pixels(self) -> int:
        """Number of pixels of the frame that are blended; 0 if the image is outside."""
        return int(self._parts[0][0].size)

    def draw(self, planes: AnyPlanes, strength: float) -> None:
        """Blend the image onto the planes of a frame, in place.

        Args:
            planes: Y, U and V of a frame.
            strength: Opacity of the image in addition to its alpha, 0 to 1.
        """
        if self.pixels == 0:  # OpenCV scales no empty mask
            return
        for plane, (over, mask, place) in zip(planes, self._parts, strict=True):
            blend(over, plane[place], scaled(mask, strength))


_PAD: Final = 2  # The chroma of the two pixels on the left and right of an image contains some of its color.


def _converted(
    image: npt.NDArray[np.uint8], size: tuple[int, int], frame_height: int, color: ColorTags, bits: int
) -> tuple[list[Samples], list[Mask]]:
    """Return Y, U and V of the resized image, not premultiplied, and the masks of luma and chroma, all padded."""
    window = Rect(0, 0, image.shape[1], image.shape[0])
    red, green, blue, alpha = (resample_unrounded(plane, window, size) for plane in _premultiplied(image))
    alpha = alpha.clip(0, _PEAK)
    straight = np.zeros((3, *alpha.shape), _F32)
    for target, plane in zip(straight, (red, green, blue), strict=True):
        # Resampling may overshoot: no color is brighter than white.
        np.divide(plane.clip(0, alpha), alpha, out=target, where=alpha > 0)
    if color.is_hdr:
        straight = signals_of(straight.astype(np.float64), color).astype(_F32)
    red_weight, blue_weight = (_F32(weight) for weight in luma_weights(color, frame_height))
    light = straight[0] * red_weight
    light += straight[1] * (_F32(1) - red_weight - blue_weight)
    light += straight[2] * blue_weight
    levels = SampleLevels.of(bits, full=color.range == "pc")
    alpha *= _F32(1 / _PEAK)
    padding = ((0, size[1] % 2), (_PAD, _PAD - size[0] % 2))
    padded = np.pad(alpha, padding)
    shares = from_luma(padded)
    kind: _Kind = np.uint8 if bits == PLANAR["yuv420p"].bits else np.uint16
    planes: list[Samples] = [_whole(np.pad(light * levels.luma_span + levels.black, padding), levels.peak, kind)]
    for part, weight in ((straight[2], blue_weight), (straight[0], red_weight)):
        difference = from_luma(np.pad((part - light) * alpha, padding)) / (2 - 2 * weight)
        chroma = np.divide(difference, shares, out=np.zeros_like(shares), where=shares > 0)
        planes.append(_whole(chroma * levels.chroma_span + levels.gray, levels.peak, kind))
    masks: list[Mask] = [np.rint(mask * _OPAQUE).astype(np.uint8) for mask in (padded, shares)]
    return planes, masks


def _premultiplied(image: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint16]]:
    """Return red, green and blue times alpha, and alpha, each with 10 bits."""
    alpha = image[..., 3].astype(np.uint32)
    most = _OPAQUE * _OPAQUE
    planes = [
        ((image[..., channel] * alpha * (2 * _PEAK) + most) // (2 * most)).astype(np.uint16) for channel in (2, 1, 0)
    ]
    return [*planes, ((alpha * (2 * _PEAK) + _OPAQUE) // (2 * _OPAQUE)).astype(np.uint16)]


def _whole(values: _Plane, most: int, kind: _Kind) -> Samples:
    whole: Samples = np.rint(values.clip(0, most)).astype(kind)
    return whole


def _inside(
    corner: tuple[int, int], plane: Samples, frame_size: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of the frame that a plane at `corner` covers, and the same part of the plane."""
    places, parts = [], []
    for first, count, length in zip(corner, plane.shape[::-1], frame_size, strict=True):
        begin = min(max(first, 0), length)
        end = max(begin, min(first + count, length))
        places.append(slice(begin, end))
        parts.append(slice(begin - first, end - first))
    return (places[1], places[0]), (parts[1], parts[0])
