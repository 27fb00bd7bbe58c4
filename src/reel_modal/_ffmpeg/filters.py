"""ffmpeg filter strings and options shared by reader and writer: color, even sizes, tags, times.

These functions only build strings: they start no process and read no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from numbers import Rational
from typing import Final, Literal

from reel_modal.errors import ConfigError
from reel_modal.media.frames import PLANAR, ColorTags, PixelFormat, matrix_or_assumed, plain_fraction
from reel_modal.schema.options import Deinterlace

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
"""The filter that composites a transparent frame onto black; without it, the color of transparent pixels shows."""

# swscale's names for some matrices differ.
_SWS_MATRIX: Final = {"bt2020nc": "bt2020", "bt2020c": "bt2020"}
# setsar reduces a ratio until its terms are at most this. ffmpeg's default is 100.
_LARGEST_TERM: Final = 65535


def exact_fraction(value: Fraction | float, name: str) -> Fraction:
    """Return the exact value of `value` as a fraction.

    Args:
        value: A finite number, for example of seconds.
        name: Name of the value, for the message.

    Raises:
        ConfigError: The value is not a number, or not finite.
    """
    try:
        return plain_fraction(value) if isinstance(value, Rational) else Fraction(float(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name} is {value!r}; it must be a finite number") from error


def seconds_text(seconds: Fraction | float) -> str:
    """Return `seconds` in ffmpeg's notation, rounded to the microsecond, which is ffmpeg's resolution."""
    return f"{float(seconds):.6f}"


def clock_arguments(zero_seconds: Fraction, *, first_seconds: Fraction) -> tuple[str, ...]:
    """Return the options before an input that make `zero_seconds` its time 0 and start reading there.

    Both times are timestamps in the file. Without `-seek_timestamp`, ffmpeg counts from the start of the file, and
    ffmpeg versions disagree on that start if the audio has samples before it.

    Args:
        zero_seconds: The timestamp that becomes 0.
        first_seconds: Earliest timestamp of any stream. A time at or before it needs no seek.
    """
    if zero_seconds > first_seconds:
        return ("-seek_timestamp", "1", "-ss", seconds_text(zero_seconds))
    return ("-seek_timestamp", "1", "-itsoffset", seconds_text(-zero_seconds))


def deinterlace_filter(deinterlace: Deinterlace, unmarked_order: Literal["tff", "bff"] | None) -> str:
    """Return the filter that deinterlaces a video; frames that are not marked as interlaced are not changed.

    Args:
        deinterlace: `frame` makes one frame of each frame, `field` one of each field.
        unmarked_order: The field order of a video whose frames have no interlacing mark; all are then deinterlaced.
    """
    which = "parity=auto:deint=interlaced" if unmarked_order is None else f"parity={unmarked_order}:deint=all"
    return f"yadif=mode=send_{deinterlace}:{which}"


def even_size(
    size: tuple[int, int], odd: Literal["pad", "crop", "error"], step: tuple[int, int] = (2, 2)
) -> tuple[int, int]:
    """Return the size (width, height) that an encoder accepts for `size`.

    Args:
        size: (width, height) in pixels.
        odd: How to handle an odd size.
        step: (horizontal, vertical) distance of the chroma samples in pixels, 1 or 2. With 1, any size is valid.

    Raises:
        ConfigError: The size is odd and `odd` is `error`, or nothing would be left after the crop.
    """
    width, height = size
    over = (width % step[0], height % step[1])
    if over == (0, 0):
        return size
    if odd == "error":
        raise ConfigError(
            f"size {width}x{height} is odd, but subsampled chroma requires an even size; pad, crop or resize it"
        )
    sign = 1 if odd == "pad" else -1
    even = (width + sign * over[0], height + sign * over[1])
    if min(even) < 2:
        raise ConfigError(f"size {width}x{height} cannot be cropped to an even size; pad it")
    return even


def to_yuv_filters(pixel_format: PixelFormat, color: ColorTags) -> list[str]:
    """Return the filters from written frames to YUV: planar formats are not changed, others become 4:2:0.

    RGB is converted with the matrix of `color`.
    """
    filters = []
    if pixel_format in {"bgr24", "rgb24"}:
        matrix = color.matrix or "bt709"
        filters.append(
            f"scale=out_color_matrix={_SWS_MATRIX.get(matrix, matrix)}:out_range={color.range or 'tv'}:flags=bicubic"
        )
    return [*filters, f"format={pixel_format if pixel_format in PLANAR else 'yuv420p'}"]


def chroma_options(source: tuple[float, float] | None, target: tuple[float, float] | None) -> list[str]:
    """Return the scaler options for the chroma location; without them the scaler assumes centered chroma.

    Args:
        source: Position of the first chroma sample of a 4:2:0 frame, in luma pixels from the left and top edges. None
            for a frame with more chroma, whose samples are on the left pixels.
        target: The same for the output frame.
    """
    return [*_chroma_position("in", source), *_chroma_position("out", target)]


def _chroma_position(side: str, origin: tuple[float, float] | None) -> list[str]:
    """Return the position in swscale's unit, 1/256 of a pixel."""
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
    """Return the filters from a decoded frame to `pixel_format`, resized to `size` if it is given.

    YUV keeps its range. RGB is converted with the matrix of the video, or with the one that players assume.

    Args:
        pixel_format: The reader's output format.
        color: The color tags of the source.
        size: (width, height) of the output, or None.
        height: Height of the source in pixels; it decides which matrix an untagged source is assumed to have.
        chroma: The options from `chroma_options`; without them chroma is assumed to be centered.
    """
    options = [f"{size[0]}:{size[1]}:flags=bicubic"] if size else ["flags=bicubic"]
    if pixel_format in {"bgr24", "rgb24"}:
        matrix = matrix_or_assumed(color, height)
        options += [f"in_color_matrix={_SWS_MATRIX.get(matrix, matrix)}", f"in_range={color.range or 'tv'}"]
    else:
        color_range = color.range or "tv"
        options += [f"in_range={color_range}:out_range={color_range}", *chroma]
    if pixel_format == "gray8":
        # Use the luma plane directly: a conversion to gray would stretch its range.
        return ["scale=" + ":".join(options), "format=yuv420p", "extractplanes=y"]
    return ["scale=" + ":".join(options), f"format={pixel_format}"]


def range_arguments(color: ColorTags) -> tuple[str, ...]:
    """Return the option that tells the encoder the range of `color`.

    Without it, some encoders accept only limited range, and the samples would be converted.
    """
    return ("-color_range", color.range) if color.range else ()


def tag_filters(color: ColorTags, sample_aspect_ratio: Fraction) -> list[str]:
    """Return the filters that tag frames without changing a sample."""
    tags = {
        "range": color.range,
        "color_primaries": color.primaries,
        "color_trc": color.transfer,
        "colorspace": color.matrix,
    }
    parameters = ":".join(f"{key}={value}" for key, value in tags.items() if value is not None)
    ratio = f"setsar={sample_aspect_ratio.numerator}/{sample_aspect_ratio.denominator}:max={_LARGEST_TERM}"
    return [f"setparams={parameters}", ratio] if parameters else [ratio]
