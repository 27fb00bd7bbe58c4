"""Find the time at which a video stream ends, from its last packets."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

from reel_modal.media.open import opened
from reel_modal.media.probing import MediaInfo
from reel_modal.media.scanning import readable_packets
from reel_modal.media.timestamps import PacketTimes
from reel_modal.settings import MediaLimits

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["picture_end"]

_MICROSECONDS: Final = 1_000_000
# A header may claim a later end than that of the packets; libav then seeks to the last keyframe.
_BEFORE_END_SECONDS: Final = 1


def picture_end(media: MediaInfo, limits: MediaLimits) -> Fraction:
    """Return the timestamp at which the last frame of `media` ends, in seconds.

    Only the packets shortly before the end are read, or all of them if a seek fails.

    Args:
        media: The video.
        limits: Larger frames are not decoded.

    Raises:
        InvalidMediaError: The file cannot be read.
    """
    if media.scan is not None:
        return media.start_seconds + media.scan.duration_seconds
    for seeks in (True, False):
        with opened(media.path, packets_only=media.keeps_decoding_times, limits=limits) as container:
            stream = next(stream for stream in container.streams.video if stream.index == media.stream_index)
            if seeks and not _seek_to_end(container, media):
                continue
            times = PacketTimes.of(readable_packets(container, stream), stream)
        if times.ticks:
            return times.end_seconds(media.stored_fps)
    return media.start_seconds + times.span_seconds(media.stored_fps)


def _seek_to_end(container: InputContainer, media: MediaInfo) -> bool:
    """Seek to a keyframe shortly before the end of `container`; return whether that succeeded."""
    from av.error import FFmpegError

    if media.duration_seconds is None:
        return False
    target = media.start_seconds + media.duration_seconds - _BEFORE_END_SECONDS
    try:
        container.seek(max(0, int(target * _MICROSECONDS)))
    except FFmpegError:
        return False
    return True
