"""Describe raw frames to ffmpeg: their layout, and the filters to the input format of an encoder."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from reel_modal._ffmpeg.filters import range_arguments, tag_filters, to_yuv_filters
from reel_modal.errors import ConfigError
from reel_modal.media.frames import ColorTags, PixelFormat
from reel_modal.media.hdr import HdrMetadata
from reel_modal.schema.degradation import Degradation

__all__ = ["check_arguments", "format_notes", "raw_filters", "raw_input"]


def raw_input(pixel_format: PixelFormat, size: tuple[int, int], fps: Fraction) -> tuple[str, ...]:
    """Return the options of an input that reads raw frames from stdin.

    Args:
        pixel_format: Layout of the frames.
        size: (width, height) in pixels.
        fps: Frames per second.
    """
    # Gray frames are sent as luma with neutral chroma: a conversion from gray would compress their range.
    raw_format = "yuv420p" if pixel_format == "gray8" else pixel_format
    source = ("-f", "rawvideo", "-pixel_format", raw_format, "-video_size", f"{size[0]}x{size[1]}")
    rate = f"{fps.numerator}/{fps.denominator}"
    # Without `-r`, ffmpeg takes a rate near 120 for 120.
    return (*source, "-framerate", rate, "-r", rate, "-i", "pipe:0")


def raw_filters(
    pixel_format: PixelFormat,
    color: ColorTags,
    sample_aspect_ratio: Fraction,
    field_order: Literal["tff", "bff"] | None,
    threads: int,
) -> tuple[str, ...]:
    """Return the filter options that convert and tag raw frames for an encoder.

    Args:
        pixel_format: Layout of the frames.
        color: Their color tags.
        sample_aspect_ratio: Width / height of one pixel.
        field_order: Marks each frame as two fields; None marks progressive frames.
        threads: Threads of the filters.
    """
    filters = to_yuv_filters(pixel_format, color)
    filters += tag_filters(color, sample_aspect_ratio)
    filters += [] if field_order is None else [f"setfield={field_order}"]
    return ("-filter_threads", str(threads), "-vf", ",".join(filters), *range_arguments(color))


def check_arguments(*arguments: str) -> None:
    """Raise ConfigError if one of `arguments` cannot be a command-line argument."""
    for argument in arguments:
        if not isinstance(argument, str) or "\0" in argument:
            raise ConfigError(f"{argument!r} is not a valid argument of ffmpeg; use a string without null characters")


def format_notes(
    size: tuple[int, int], encoded_size: tuple[int, int], hdr: HdrMetadata | None, encoder: str
) -> list[Degradation]:
    """Return notes on the size and the HDR metadata that an encoder does not take from its frames."""
    notes = []
    if encoded_size != size:
        message = (
            f"the odd size {size[0]}x{size[1]} was encoded as {encoded_size[0]}x{encoded_size[1]}, because its chroma"
            " requires an even size"
        )
        notes.append(Degradation("size_changed", message))
    if hdr is not None and hdr.parameters(encoder) is None:
        message = f"{encoder} does not write the mastering display and light levels of the source"
        notes.append(Degradation("hdr_metadata_dropped", message))
    return notes
