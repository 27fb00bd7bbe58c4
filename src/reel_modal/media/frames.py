"""Layout of raw frames in memory: pixel formats, planes and color tags.

Uses only numpy: no files, no ffmpeg processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral, Rational
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

from reel_modal.errors import ConfigError, FrameError, FrameTypeError
from reel_modal.media.frame_buffers import SharedBuffer
from reel_modal.schema.rates import frame_rate

__all__ = [
    "BT709",
    "CHROMA_ORIGIN",
    "GRAPHICS_WHITE_NITS",
    "PLANAR",
    "AnyPlanes",
    "ColorTags",
    "DeepPlanes",
    "Frame",
    "PixelFormat",
    "PlanarFormat",
    "Planes",
    "U8Array",
    "fit_edges",
    "frame_bytes",
    "frame_rate",
    "is_420",
    "matrix_or_assumed",
    "plain_fraction",
    "plane_shapes",
    "plane_views",
    "raw_bytes",
    "sample_views",
]

PixelFormat: TypeAlias = Literal[
    "bgr24",
    "rgb24",
    "yuv420p",
    "gray8",
    "yuv422p",
    "yuv440p",
    "yuv444p",
    "yuv420p10le",
    "yuv422p10le",
    "yuv440p10le",
    "yuv444p10le",
]
"""The supported frame layouts. The names are ffmpeg's, except `gray8`, which ffmpeg calls `gray`."""

U8Array: TypeAlias = npt.NDArray[np.uint8]
Planes: TypeAlias = tuple[U8Array, ...]
"""The planes of one frame: `(Y, U, V)` for a planar format, else the single packed array."""

DeepPlanes: TypeAlias = tuple[npt.NDArray[np.uint16], ...]
"""`(Y, U, V)` of a 10-bit frame: 0 to 1023 in the low bits."""

AnyPlanes: TypeAlias = tuple[npt.NDArray[np.uint8 | np.uint16], ...]
"""The planes of a frame of any format."""

# Players assume BT.709 for an untagged video of at least this height, and BT.601 for a smaller one.
_HD_HEIGHT_PX: Final = 720
_CHANNELS: Final[dict[str, int]] = {"bgr24": 3, "rgb24": 3, "gray8": 1}
_U8: Final = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class PlanarFormat:
    """Layout of Y, U and V, which are stored one after another.

    Attributes:
        step: (horizontal, vertical) distance of the chroma samples in luma pixels.
        bits: Bits per sample; samples of more than 8 bits are stored in two bytes, little-endian.
    """

    step: tuple[int, int]
    bits: int = 8


PLANAR: Final[Mapping[str, PlanarFormat]] = {
    "yuv420p": PlanarFormat((2, 2)),
    "yuv422p": PlanarFormat((2, 1)),
    "yuv440p": PlanarFormat((1, 2)),
    "yuv444p": PlanarFormat((1, 1)),
    "yuv420p10le": PlanarFormat((2, 2), 10),
    "yuv422p10le": PlanarFormat((2, 1), 10),
    "yuv440p10le": PlanarFormat((1, 2), 10),
    "yuv444p10le": PlanarFormat((1, 1), 10),
}
"""The planar formats in `PixelFormat`; 4:4:0 is 4:2:2 rotated by 90 degrees."""


@dataclass(frozen=True, slots=True)
class ColorTags:
    """How the samples of a frame map to colors. The values are ffmpeg's names; None means unspecified.

    Attributes:
        matrix: YUV matrix, such as `bt709` or `smpte170m` (ffmpeg's `colorspace`).
        range: `tv` (limited) or `pc` (full).
        primaries: Such as `bt709` or `bt2020`.
        transfer: Such as `bt709`, `smpte2084` (PQ) or `arib-std-b67` (HLG).
        chroma_location: Position of the chroma samples, such as `left` or `topleft`.
    """

    matrix: str | None = None
    range: Literal["tv", "pc"] | None = None
    primaries: str | None = None
    transfer: str | None = None
    chroma_location: str | None = None

    @property
    def is_hdr(self) -> bool:
        """Whether samples can be brighter than SDR: PQ (SMPTE ST 2084) or HLG (ARIB STD-B67)."""
        return self.transfer in {"smpte2084", "arib-std-b67"}


BT709: Final = ColorTags(matrix="bt709", range="tv", primaries="bt709", transfer="bt709")


CHROMA_ORIGIN: Final = {
    "left": (0.5, 1.0),
    "center": (1.0, 1.0),
    "topleft": (0.5, 0.5),
    "top": (1.0, 0.5),
    "bottomleft": (0.5, 1.5),
    "bottom": (1.0, 1.5),
}
"""Position of the first chroma sample of a 4:2:0 frame, in luma pixels from the left and top edges."""


GRAPHICS_WHITE_NITS: Final = 203
"""Reference white of HDR in candelas per square metre, such as white paper or a caption (ITU-R BT.2408-7)."""


def is_420(pixel_format: str) -> bool:
    """Return whether an ffmpeg pixel format has one chroma sample for two by two pixels."""
    return "420" in pixel_format or pixel_format.startswith(("nv12", "nv21", "p010", "p012", "p016"))


def matrix_or_assumed(color: ColorTags, height: int) -> str:
    """Return the YUV matrix of a video; if it has no tag, the one that players assume for its height, or for HDR."""
    if color.is_hdr:
        return color.matrix or "bt2020nc"
    return color.matrix or ("bt709" if height >= _HD_HEIGHT_PX else "smpte170m")


@dataclass(slots=True)
class Frame:
    """One upright frame and its timestamp.

    Attributes:
        data: uint8, (bytes,), C-contiguous: all planes, one after another. The reader may reuse the memory for the
            next frame; `copy()` returns a frame that stays valid.
        size: (width, height) in pixels.
        pixel_format: Layout of `data`.
        pts_seconds: Exact presentation time: a timestamp in the source.
        index: 0 for the first frame that was read.
        shared: The memory of `data` if a pipe can take it without a copy; None if it must be copied.
    """

    data: U8Array
    size: tuple[int, int]
    pixel_format: PixelFormat
    pts_seconds: Fraction
    index: int
    shared: SharedBuffer | None = None

    @property
    def planes(self) -> Planes:
        """Views into `data`: for yuv420p Y (H, W), U and V ((H+1)//2, (W+1)//2); for packed formats one array.

        For 10-bit formats they are the bytes of the rows, two for each sample; `deep_planes` are the samples.
        """
        return plane_views(self.data, self.pixel_format, self.size)

    @property
    def deep_planes(self) -> DeepPlanes:
        """Views into the `data` of a 10-bit frame: uint16, Y (H, W), U and V with the same sizes as in 8 bits.

        Raises:
            ConfigError: The frame has 8 bits; use `planes`.
        """
        if _element_type(self.pixel_format) == _U8:
            raise ConfigError(f"a {self.pixel_format} frame has 8-bit samples; use frame.planes")
        return tuple(plane.view("<u2") for plane in self.planes)

    @property
    def image(self) -> U8Array:
        """View of a packed frame: uint8, (H, W, 3), or (H, W) for gray8, C-contiguous.

        Raises:
            ConfigError: The frame is planar; use `planes`.
        """
        if self.pixel_format in PLANAR:
            raise ConfigError(f"a {self.pixel_format} frame has planes, not a single image; use frame.planes")
        return self.planes[0]

    def copy(self) -> Frame:
        """Return a copy of the frame with separate memory."""
        return Frame(self.data.copy(), self.size, self.pixel_format, self.pts_seconds, self.index)


def frame_bytes(pixel_format: PixelFormat, size: tuple[int, int]) -> int:
    """Return the number of bytes of one frame of `size` (width, height), without padding.

    Raises:
        ConfigError: The pixel format is not supported, or the size has no pixels.
    """
    return sum(math.prod(shape) for shape in _byte_shapes(pixel_format, size))


def plane_views(data: U8Array, pixel_format: PixelFormat, size: tuple[int, int]) -> Planes:
    """Return the planes in the flat buffer `data`, without copying.

    Args:
        data: uint8, (frame_bytes,), C-contiguous.
        pixel_format: Layout of `data`.
        size: (width, height) in pixels.

    Returns:
        The planes; for 10-bit formats as bytes, two for each sample.
    """
    views, start = [], 0
    for shape in _byte_shapes(pixel_format, size):
        end = start + math.prod(shape)
        views.append(data[start:end].reshape(shape))
        start = end
    return tuple(views)


def sample_views(data: U8Array, pixel_format: PixelFormat, size: tuple[int, int]) -> AnyPlanes:
    """Return the planes in the flat buffer `data` as samples: uint8, or uint16 for 10-bit formats."""
    kind = _element_type(pixel_format)
    return tuple(plane.view(kind) for plane in plane_views(data, pixel_format, size))


def plain_fraction(value: Rational) -> Fraction:
    """Return `value` with Python integers, because numpy integers overflow."""
    return Fraction(int(value.numerator), int(value.denominator))


def raw_bytes(
    frame: Frame | U8Array | AnyPlanes | Buffer,
    pixel_format: PixelFormat,
    size: tuple[int, int],
    index: int,
) -> list[memoryview]:
    """Check `frame` and return its bytes in the order of `pixel_format`; contiguous memory is not copied.

    Args:
        frame: A Frame; an array of the format's shape; the planes of a planar format; or a bytes-like object.
        pixel_format: The required layout.
        size: The required (width, height) in pixels.
        index: The frame number, for the message.

    Raises:
        FrameError: The frame has a different shape, length, size or layout.
        FrameTypeError: The frame is neither bytes-like nor an array of uint8 (of uint16 for 10-bit formats).
    """
    width, height = size
    expected = f"{pixel_format} of {width}x{height}"
    if isinstance(frame, Frame):
        if (frame.pixel_format, *frame.size) != (pixel_format, width, height):
            actual = f"{frame.pixel_format} of {frame.size[0]}x{frame.size[1]}"
            raise FrameError(f"frame {index} is {actual}; it must be {expected}")
        return [_array_bytes(frame.data, ((frame_bytes(pixel_format, size),),), index)]
    planes, kind = plane_shapes(pixel_format, size), _element_type(pixel_format)
    if isinstance(frame, tuple):
        if len(frame) != len(planes):
            raise FrameError(f"frame {index} has {len(frame)} planes; {expected} has {len(planes)}")
        return [_array_bytes(plane, (shape,), index, kind) for plane, shape in zip(frame, planes, strict=True)]
    if isinstance(frame, np.ndarray):
        return [_array_bytes(frame, _whole_shapes(pixel_format, size), index, kind)]
    try:
        view = memoryview(frame)
    except TypeError as error:
        raise _no_frame(frame, index) from error
    if view.itemsize != 1:
        raise FrameTypeError(f"frame {index} is a {type(frame).__name__} of {view.itemsize}-byte items, not of bytes")
    if not view.c_contiguous:
        raise FrameError(f"frame {index} is a {type(frame).__name__} with strides; use contiguous bytes or an array")
    view = view.cast("B")
    if len(view) != frame_bytes(pixel_format, size):
        raise FrameError(f"frame {index} has {len(view)} bytes; {expected} has {frame_bytes(pixel_format, size)}")
    return [view]


def fit_edges(
    chunks: Sequence[memoryview], pixel_format: PixelFormat, size: tuple[int, int], fitted_size: tuple[int, int]
) -> list[memoryview]:
    """Return a frame's bytes at a size that differs by one pixel: repeat or drop the last row or column.

    Args:
        chunks: The bytes of a frame of `size`, in order.
        pixel_format: Their layout.
        size: Their (width, height).
        fitted_size: The (width, height) of the result.
    """
    planes = sample_views(np.frombuffer(b"".join(chunks), np.uint8), pixel_format, size)
    fitted = []
    for plane, shape in zip(planes, plane_shapes(pixel_format, fitted_size), strict=True):
        missing = [(0, max(0, new - old)) for old, new in zip(plane.shape, shape, strict=True)]
        whole = np.pad(plane, missing, mode="edge")[: shape[0], : shape[1]]
        fitted.append(np.ascontiguousarray(whole).data.cast("B"))
    return fitted


def plane_shapes(pixel_format: PixelFormat, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return the shape of each plane of a frame of `size` (width, height), in samples.

    Raises:
        ConfigError: The pixel format is not supported, or the size has no pixels.
    """
    if pixel_format not in get_args(PixelFormat):
        raise ConfigError(
            f"pixel format {pixel_format!r} is not supported; use one of {', '.join(get_args(PixelFormat))}"
        )
    if len(size) != 2 or not all(isinstance(side, Integral) and side >= 1 for side in size):
        raise ConfigError(f"size {size!r} must be (width, height), whole numbers of at least 1 pixel")
    width, height = size
    if pixel_format in PLANAR:
        across, down = PLANAR[pixel_format].step
        chroma = (-(-height // down), -(-width // across))
        return [(height, width), chroma, chroma]
    channels = _CHANNELS[pixel_format]
    return [(height, width)] if channels == 1 else [(height, width, channels)]


def _byte_shapes(pixel_format: PixelFormat, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return the same shapes in bytes, as stored in a raw frame."""
    shapes = plane_shapes(pixel_format, size)
    return [(*shape[:-1], shape[-1] * _element_type(pixel_format).itemsize) for shape in shapes]


def _element_type(pixel_format: PixelFormat) -> np.dtype[np.uint8 | np.uint16]:
    deep = pixel_format in PLANAR and PLANAR[pixel_format].bits > 8
    return np.dtype("<u2") if deep else _U8


def _whole_shapes(pixel_format: PixelFormat, size: tuple[int, int]) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a single array that can hold a whole frame."""
    width, height = size
    flat = (sum(math.prod(shape) for shape in plane_shapes(pixel_format, size)),)
    if pixel_format not in PLANAR:
        return (plane_shapes(pixel_format, size)[0], flat)
    even = PLANAR[pixel_format].step == (2, 2) and width % 2 == 0 and height % 2 == 0
    return ((height * 3 // 2, width), flat) if even else (flat,)


def _no_frame(value: object, index: int) -> FrameTypeError:
    return FrameTypeError(f"frame {index} is a {type(value).__name__}, not a uint8 array or bytes")


def _array_bytes(
    array: object, shapes: tuple[tuple[int, ...], ...], index: int, kind: np.dtype[np.uint8 | np.uint16] = _U8
) -> memoryview:
    """Return the bytes of `array` in C order, copied only if it is strided."""
    if not isinstance(array, np.ndarray):
        raise _no_frame(array, index)
    if array.dtype != kind:
        raise FrameTypeError(
            f"frame {index} is an array of {array.dtype}; it must be {kind} (multiply floats from 0 to 1 by"
            f" {255 if kind == _U8 else 1023} and convert them)"
        )
    if array.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise FrameError(f"frame {index} has shape {array.shape}; it must be {expected} (height first)")
    return np.ascontiguousarray(array).data.cast("B")
