"""Rotation and mirroring that make stored frames upright, as in videos of phones.

Pure functions: ffmpeg's filters occur only as strings.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from reel_modal.media.frames import AnyPlanes
from reel_modal.media.pyav import display_matrix

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["Orientation"]

_TURNS = {90: ("transpose=clock",), 180: ("hflip", "vflip"), 270: ("transpose=cclock",)}


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored frames become upright: mirrored left to right first, then rotated clockwise.

    Attributes:
        rotation_degrees: 0, 90, 180 or 270, clockwise.
        mirrored: Whether left and right are swapped, before the rotation.
    """

    rotation_degrees: int = 0
    mirrored: bool = False

    @classmethod
    def of_frame(cls, frame: VideoFrame) -> Self:
        """Return the orientation from the display matrix of a decoded frame; upright if it has none.

        The matrix (ISO/IEC 14496-12, 8.5.2) maps the stored x axis to (a, b) and the y axis to (c, d). Cameras only
        write quarter turns; other angles are rounded to the nearest quarter turn.
        """
        if (matrix := display_matrix(frame)) is None:
            return cls()
        a, b, _, c, d = struct.unpack("=5i", matrix[:20])
        mirrored = a * d - b * c < 0
        if mirrored:
            a, b = -a, -b
        quarter = round(math.degrees(math.atan2(b, a)) / 90) % 4
        return cls(quarter * 90, mirrored)

    @property
    def turned(self) -> bool:
        """Whether width and height are swapped."""
        return self.rotation_degrees in {90, 270}

    def upright(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the upright size of a stored `size` (width, height)."""
        return (size[1], size[0]) if self.turned else size

    def upright_origin(self, origin: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
        """Return the position of the first chroma sample of a 4:2:0 frame after rotation, in luma pixels.

        Args:
            origin: Its position in the stored frame, from the left and top edges.
            size: (width, height) of the stored frame.
        """
        x, y = origin
        width, height = size
        if self.mirrored:
            x = _from_the_end(x, width)
        if self.rotation_degrees == 90:
            return _from_the_end(y, height), x
        if self.rotation_degrees == 180:
            return _from_the_end(x, width), _from_the_end(y, height)
        if self.rotation_degrees == 270:
            return y, _from_the_end(x, width)
        return x, y

    def turn(self, planes: AnyPlanes) -> AnyPlanes:
        """Return upright views of stored `planes`, each (H, W)."""
        mirrored = [plane[:, ::-1] if self.mirrored else plane for plane in planes]
        return tuple(np.rot90(plane, -(self.rotation_degrees // 90)) for plane in mirrored)

    def turn_back(self, planes: AnyPlanes) -> AnyPlanes:
        """Return views of upright `planes`, each (H, W), in stored orientation; the reverse of `turn`."""
        turned = [np.rot90(plane, self.rotation_degrees // 90) for plane in planes]
        return tuple(plane[:, ::-1] if self.mirrored else plane for plane in turned)

    def filters(self) -> tuple[str, ...]:
        """Return the ffmpeg filters that make a stored frame upright."""
        return (*(("hflip",) if self.mirrored else ()), *_TURNS.get(self.rotation_degrees, ()))


def _from_the_end(origin: float, length: int) -> float:
    """Return the distance of the last sample, with samples two pixels apart, from the end of `length` pixels."""
    return length - (origin + 2 * ((length + 1) // 2 - 1))
