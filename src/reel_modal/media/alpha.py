"""Whether pictures of VP8 and VP9 are transparent anywhere, by the second picture that WebM keeps beside each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from reel_modal.config import MediaLimits
from reel_modal.errors import InvalidMediaError
from reel_modal.frames import U8Array
from reel_modal.media.probing import MediaInfo
from reel_modal.media.untrusted import decoder_pixels, opened, packets_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["is_opaque"]

_BESIDE: Final = "matroska_block_additional"
# The number of what follows; 1 is alpha (VP8 Alpha and VP9 Alpha in WebM).
_ALPHA_ID: Final = (1).to_bytes(8, "big")
# A lossy encoder does not keep each 255; less than a fiftieth is not seen.
_OPAQUE: Final = 250


def is_opaque(media: MediaInfo, limits: MediaLimits, check: Callable[[], None]) -> bool:
    """Return whether no picture of `media` is transparent; False as well if that is not known.

    It is known of VP8 and VP9, whose alpha is decoded without the pictures, up to the first that is transparent. That
    of other codecs is part of their pictures.

    Args:
        media: The video.
        limits: Larger pictures are not decoded.
        check: Called at each packet; may raise to stop.
    """
    from av import CodecContext

    if not media.contents.alpha:
        return True
    if media.contents.alpha_decoder is None:
        return False
    decoder = cast("VideoCodecContext", CodecContext.create(media.codec, "r"))
    decoder.thread_count = 1  # a threaded decoder that is left early waits without end
    decoder.options = {"max_pixels": str(decoder_pixels(limits))}
    try:
        with opened(media.path, packets_only=True) as container:
            stream = next(stream for stream in container.streams.video if stream.index == media.stream_index)
            return all(_is_opaque(frame) for frame in _alpha(packets_of(container, stream), decoder, check))
    except InvalidMediaError:  # of a part of a file, or a packet that does not decode
        return False


def _alpha(
    packets: Iterator[Packet[VideoStream]], decoder: VideoCodecContext, check: Callable[[], None]
) -> Iterator[VideoFrame]:
    from av.packet import Packet

    for packet in packets:
        check()
        if not packet.size:
            continue
        data = bytes(packet.get_sidedata(_BESIDE)) if packet.has_sidedata(_BESIDE) else b""
        if not data.startswith(_ALPHA_ID):
            raise InvalidMediaError("a picture has no alpha beside it")
        yield from decoder.decode(Packet(data[len(_ALPHA_ID) :]))
    yield from decoder.decode(None)


def _is_opaque(frame: VideoFrame) -> bool:
    luma = frame.planes[0]
    rows: U8Array = np.frombuffer(memoryview(luma), np.uint8).reshape(-1, luma.line_size)
    return bool(rows[: frame.height, : frame.width].min() >= _OPAQUE)
