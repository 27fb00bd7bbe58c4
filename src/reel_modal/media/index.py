"""Read the times and offsets of all packets from the index in the headers of MP4 and MOV; the data is not read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.timestamps import PacketTimes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["index_times", "leads_beyond"]


def index_times(stream: VideoStream) -> PacketTimes | None:
    """Return the decoding times of a stream's packets; None if the file does not index all of them.

    They have the same intervals as the presentation times: an encoder decodes each frame before its display by the
    constant delay that reordering needs. Packets that an edit list hides are included.
    """
    entries = stream.index_entries
    if not stream.frames or len(entries) < stream.frames:
        return None
    ticks = tuple(sorted(entry.timestamp for entry in entries))
    last_duration = (stream.duration or 0) - (ticks[-1] - ticks[0])
    return PacketTimes(ticks, len(ticks), max(0, last_duration), seconds_per_tick(stream))


def leads_beyond(container: InputContainer) -> bool:
    """Return whether the index of an MP4 or MOV names packets after the end of the file."""
    indexes = [stream.index_entries for stream in container.streams]
    ends = (entries[-1].pos + entries[-1].size for entries in indexes if len(entries))
    return max(ends, default=0) > container.size
