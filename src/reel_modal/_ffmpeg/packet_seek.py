"""Read the packets of a video from a keyframe in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from reel_modal.media.open import packets_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["packets_from"]


def packets_from(container: InputContainer, stream: VideoStream, pts: int) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of `stream` from the keyframe with this timestamp on.

    Args:
        container: The file; it must have an index.
        stream: The video stream.
        pts: Timestamp of the keyframe in ticks of the stream.
    """
    container.seek(pts, stream=stream)
    packets = packets_of(container, stream)
    first = next(packets)
    early = [first]
    if first.pts is None or first.pts > pts:  # some indexes seek past the target
        container.seek(0)
        early = []
        packets = packets_of(container, stream)
    reached = False
    for packet in chain(early, packets):
        reached = reached or packet.pts == pts
        if reached and packet.size:
            yield packet
