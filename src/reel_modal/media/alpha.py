"""Detect whether any frame of VP8 or VP9 is transparent, from the alpha picture that WebM stores for each frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from reel_modal.errors import InvalidMediaError
from reel_modal.media.frames import U8Array
from reel_modal.media.open import decoder_pixels, opened, packets_of
from reel_modal.media.probing import MediaInfo
from reel_modal.settings import MediaLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["is_opaque"]

_ADDITIONAL_DATA: Final = "matroska_block_additional"
# The id before the additional data; 1 is alpha (VP8 Alpha and VP9 Alpha in WebM).
_ALPHA_ID: Final = (1).to_bytes(8, "big")
# A lossy encoder does not keep every 255; a transparency of less than 1/50 is not visible.
_OPAQUE: Final = 250


def is_opaque(media: MediaInfo, limits: MediaLimits, check: Callable[[], None]) -> bool:
    """Return whether no frame of `media` is transparent; False as well if that is unknown.

    It is only known for VP8 and VP9: their alpha pictures are decoded without the frames, up to the first transparent
    one. Other codecs store alpha in the frames themselves.

    Args:
        media: The video.
        limits: Larger frames are not decoded.
        check: Called for each packet; it may raise an exception to stop.
    """
    from av import CodecContext

    if not media.contents.alpha:
        return True
    if media.contents.alpha_decoder is None:
        return False
    decoder = cast("VideoCodecContext", CodecContext.create(media.codec, "r"))
    decoder.thread_count = 1  # a threaded decoder that is closed early blocks forever
    decoder.options = {"max_pixels": str(decoder_pixels(limits))}
    try:
        with opened(media.path, packets_only=True) as container:
            stream = next(stream for stream in container.streams.video if stream.index == media.stream_index)
            return all(_is_opaque(frame) for frame in _alpha(packets_of(container, stream), decoder, check))
    except InvalidMediaError:  # the file is incomplete, or a packet cannot be decoded
        return False


def _alpha(
    packets: Iterator[Packet[VideoStream]], decoder: VideoCodecContext, check: Callable[[], None]
) -> Iterator[VideoFrame]:
    from av.packet import Packet

    for packet in packets:
        check()
        if not packet.size:
            continue
        data = bytes(packet.get_sidedata(_ADDITIONAL_DATA)) if packet.has_sidedata(_ADDITIONAL_DATA) else b""
        if not data.startswith(_ALPHA_ID):
            raise InvalidMediaError("a frame has no alpha picture")
        yield from decoder.decode(Packet(data[len(_ALPHA_ID) :]))
    yield from decoder.decode(None)


def _is_opaque(frame: VideoFrame) -> bool:
    luma = frame.planes[0]
    rows: U8Array = np.frombuffer(memoryview(luma), np.uint8).reshape(-1, luma.line_size)
    return bool(rows[: frame.height, : frame.width].min() >= _OPAQUE)
