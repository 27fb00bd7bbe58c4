"""Detect frames that change their size, as in recorded calls, and fit them into the first size."""

from __future__ import annotations

from typing import Final

from reel_modal.media.coded_size import opened_picture
from reel_modal.media.open import packets_of
from reel_modal.media.probing import MediaInfo
from reel_modal.settings import Settings

__all__ = ["changes_size", "fitting_filters", "has_even_size"]

# Containers that describe the frame size once for the whole stream.
_ONE_SIZE: Final = frozenset({"mov"})


def fitting_filters(size: tuple[int, int]) -> tuple[str, ...]:
    """Return the filters that fit a frame into `size` (width, height), with black borders if its shape differs.

    A frame of that size is not changed, if the size is even.
    """
    width, height = size
    # In a format with subsampled chroma, borders have even sizes.
    full = [] if has_even_size(size) else ["format=yuv444p"]
    scaled = f"scale={width}:{height}:force_original_aspect_ratio=decrease:flags=bicubic"
    return (scaled, *full, f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2")


def has_even_size(size: tuple[int, int]) -> bool:
    """Return whether width and height are even."""
    return size[0] % 2 == size[1] % 2 == 0


def changes_size(media: MediaInfo, settings: Settings) -> bool:
    """Return whether any frame has another size than the first. Only keyframes are decoded.

    Args:
        media: The file. MP4 and MOV are not read.
        settings: Memory limits of the decoder.

    Raises:
        InvalidMediaError: The file cannot be read, or its frames grow beyond the limits.
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
                continue  # counted by the decoder that renders
            if any((frame.width, frame.height) != media.coded_size for frame in frames):
                return True
    return False
