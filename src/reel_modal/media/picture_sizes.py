"""Pictures whose size changes on the way, as in recorded calls: find them, and fit them into the first size."""

from __future__ import annotations

from typing import Final

from reel_modal.config import Settings
from reel_modal.media.parameter_sets import opened_picture
from reel_modal.media.probing import MediaInfo
from reel_modal.media.untrusted import packets_of

__all__ = ["changes_size", "fitting_filters", "has_even_size"]

# These describe a size once for all of a stream's pictures.
_ONE_SIZE: Final = frozenset({"mov"})


def fitting_filters(size: tuple[int, int]) -> tuple[str, ...]:
    """Return the filters that fit a picture into `size` (width, height), with black borders if its shape is another.

    A picture of that size passes through as it is, if the size is even.
    """
    width, height = size
    # Borders in a format with less chroma than luma have even sizes.
    full = [] if has_even_size(size) else ["format=yuv444p"]
    scaled = f"scale={width}:{height}:force_original_aspect_ratio=decrease:flags=bicubic"
    return (scaled, *full, f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2")


def has_even_size(size: tuple[int, int]) -> bool:
    """Return whether width and height are even."""
    return size[0] % 2 == size[1] % 2 == 0


def changes_size(media: MediaInfo, settings: Settings) -> bool:
    """Return whether a picture has another size than the first. Keyframes alone are decoded.

    Args:
        media: The file. Nothing is read of MP4 and MOV.
        settings: Limits of what a decoder may allocate.

    Raises:
        InvalidMediaError: The file cannot be read, or its pictures grow beyond the limits.
    """
    from av.error import FFmpegError

    if _ONE_SIZE & set(media.format.split(",")):
        return False
    with opened_picture(media.path, media.stream_index, settings.limits) as (container, stream, guard):
        stream.codec_context.skip_frame = "NONKEY"
        stream.codec_context.thread_count = 1
        for packet in packets_of(container, stream):
            guard.check(packet)
            if packet.size and not packet.is_keyframe:
                continue
            try:
                frames = packet.decode()
            except FFmpegError:
                continue  # the decoder that renders counts it
            if any((frame.width, frame.height) != media.coded_size for frame in frames):
                return True
    return False
