"""The words of ffmpeg's filter graphs that reader and writer share: colour, even sizes, tags, times.

Strings in, strings out; it must start nothing and read nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from numbers import Rational
from typing import Final, Literal

from reel_modal.errors import ConfigError
from reel_modal.frames import PLANAR, ColorTags, PixelFormat, matrix_or_assumed, plain_fraction
from reel_modal.schema.encoding import Deinterlace

__all__ = [
    "ON_BLACK",
    "chroma_options",
    "clock_arguments",
    "deinterlace_filter",
    "even_size",
    "exact_fraction",
    "from_yuv_filters",
    "range_arguments",
    "seconds_text",
    "tag_filters",
    "to_yuv_filters",
]

ON_BLACK: Final = "premultiply=inplace=1"
"""The filter that lays a transparent picture on black; without it, the color below its transparent parts shows."""

# swscale has its own names for some matrices.
_SWS_MATRIX: Final = {"bt2020nc": "bt2020", "bt2020c": "bt2020"}
# setsar reduces a ratio until its terms are below this, 100 unless told.
_LARGEST_TERM: Final = 65535


def exact_fraction(value: Fraction | float, name: str) -> Fraction:
    """Return `value` as it is, as a fraction.

    Args:
        value: A finite number; of seconds, say.
        name: What it is, for the message.

    Raises:
        ConfigError: It is not finite, or no number.
    """
    try:
        return plain_fraction(value) if isinstance(value, Rational) else Fraction(float(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} is {value!r}; a finite number is wanted") from error


def seconds_text(seconds: Fraction | float) -> str:
    """Return `seconds` as ffmpeg reads them: to the microsecond, which is all that it keeps."""
    return f"{float(seconds):.6f}"


def clock_arguments(zero_seconds: Fraction, *, first_seconds: Fraction) -> tuple[str, ...]:
    """Return the options before an input that make `zero_seconds` its time 0, reading from there on.

    Both times are on the file's own clock. Without `-seek_timestamp`, ffmpeg counts from the start of the file, and
    versions differ in where a file starts whose sound has samples before it.

    Args:
        zero_seconds: The time that becomes 0.
        first_seconds: Earliest time of any stream: a seek to it, or before it, is left out.
    """
    if zero_seconds > first_seconds:
        return ("-seek_timestamp", "1", "-ss", seconds_text(zero_seconds))
    return ("-seek_timestamp", "1", "-itsoffset", seconds_text(-zero_seconds))


def deinterlace_filter(deinterlace: Deinterlace, unmarked_order: Literal["tff", "bff"] | None) -> str:
    """Return the filter that makes pictures of fields; pictures that are not marked as fields stay as they are.

    Args:
        deinterlace: One of each frame, or one of each field.
        unmarked_order: Which field comes first in frames that have no mark, and all are fields then.
    """
    which = "parity=auto:deint=interlaced" if unmarked_order is None else f"parity={unmarked_order}:deint=all"
    return f"yadif=mode=send_{deinterlace}:{which}"


def even_size(
    size: tuple[int, int], odd: Literal["pad", "crop", "error"], step: tuple[int, int] = (2, 2)
) -> tuple[int, int]:
    """Return the size that an encoder takes for `size` (width, height).

    Args:
        size: In pixels.
        odd: What to do where it is odd.
        step: (across, down) pixels from one chroma sample to the next, 1 or 2; where it is 1, no size is odd.

    Raises:
        ConfigError: The size is odd and `odd` is `error`, or nothing would be left after the crop.
    """
    width, height = size
    over = (width % step[0], height % step[1])
    if over == (0, 0):
        return size
    if odd == "error":
        raise ConfigError(f"size {width}x{height} is odd, and its chroma wants an even one; pad, crop or resize it")
    sign = 1 if odd == "pad" else -1
    even = (width + sign * over[0], height + sign * over[1])
    if min(even) < 2:
        raise ConfigError(f"size {width}x{height} cannot be cropped to an even one; pad it")
    return even


def to_yuv_filters(pixel_format: PixelFormat, color: ColorTags) -> list[str]:
    """Return the filters from what is written to YUV: planar frames stay as they are, others become 4:2:0.

    RGB is converted to the matrix of `color`.
    """
    filters = []
    if pixel_format in {"bgr24", "rgb24"}:
        matrix = color.matrix or "bt709"
        filters.append(
            f"scale=out_color_matrix={_SWS_MATRIX.get(matrix, matrix)}:out_range={color.range or 'tv'}:flags=bicubic"
        )
    return [*filters, f"format={pixel_format if pixel_format in PLANAR else 'yuv420p'}"]


def chroma_options(source: tuple[float, float] | None, target: tuple[float, float] | None) -> list[str]:
    """Return the options of the scaler that say where chroma is; without them it takes it for centered.

    Args:
        source: Where the first sample of a 4:2:0 picture lies, in luma pixels from left and top; None for a picture
            with more chroma, whose samples lie on the left pixels.
        target: The same of the picture that is made.
    """
    return [*_chroma_position("in", source), *_chroma_position("out", target)]


def _chroma_position(side: str, origin: tuple[float, float] | None) -> list[str]:
    """Return the place in swscale's numbers: 256ths of the way from one pixel to the next."""
    if origin is None:
        return [f"{side}_h_chr_pos=0"]
    across, down = (round(256 * (place - 0.5)) for place in origin)
    return [f"{side}_h_chr_pos={across}", f"{side}_v_chr_pos={down}"]


def from_yuv_filters(
    pixel_format: PixelFormat,
    color: ColorTags,
    size: tuple[int, int] | None,
    height: int,
    *,
    chroma: Sequence[str] = (),
) -> list[str]:
    """Return the filters from a decoded picture to `pixel_format`, resized to `size` where given.

    YUV keeps its range; RGB is converted by the picture's own matrix, or the one that players assume.

    Args:
        pixel_format: What the reader gives.
        color: The tags of the source.
        size: (width, height) wanted, or None.
        height: Height of the source in pixels, which decides what an untagged matrix is.
        chroma: What `chroma_options` says of the places of chroma; without it they are in the middle.
    """
    options = [f"{size[0]}:{size[1]}:flags=bicubic"] if size else ["flags=bicubic"]
    if pixel_format in {"bgr24", "rgb24"}:
        matrix = matrix_or_assumed(color, height)
        options += [f"in_color_matrix={_SWS_MATRIX.get(matrix, matrix)}", f"in_range={color.range or 'tv'}"]
    else:
        keep = color.range or "tv"
        options += [f"in_range={keep}:out_range={keep}", *chroma]
    if pixel_format == "gray8":
        # The luma plane itself: a conversion to gray would stretch its range.
        return ["scale=" + ":".join(options), "format=yuv420p", "extractplanes=y"]
    return ["scale=" + ":".join(options), f"format={pixel_format}"]


def range_arguments(color: ColorTags) -> tuple[str, ...]:
    """Return the option that tells the encoder the range of `color`.

    Some take limited range alone unless they are told, and the samples would be converted.
    """
    return ("-color_range", color.range) if color.range else ()


def tag_filters(color: ColorTags, sample_aspect_ratio: Fraction) -> list[str]:
    """Return the filters that write the tags onto frames without changing a sample."""
    tags = {
        "range": color.range,
        "color_primaries": color.primaries,
        "color_trc": color.transfer,
        "colorspace": color.matrix,
    }
    said = ":".join(f"{key}={value}" for key, value in tags.items() if value is not None)
    ratio = f"setsar={sample_aspect_ratio.numerator}/{sample_aspect_ratio.denominator}:max={_LARGEST_TERM}"
    return [f"setparams={said}", ratio] if said else [ratio]
