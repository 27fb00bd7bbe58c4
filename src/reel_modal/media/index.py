"""The times of all packets by the index that MP4 and MOV keep in their headers: nothing of the data is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.timestamps import PacketTimes

if TYPE_CHECKING:
    from av.video.stream import VideoStream

__all__ = ["index_times"]


def index_times(stream: VideoStream) -> PacketTimes | None:
    """Return when the packets of a picture are decoded; None if its file has no index of all of them.

    That is as even, and has the same intervals, as when they are shown: encoders decode each picture as long before
    it is shown as the reordering needs. Those that an edit list hides count as well.
    """
    entries = stream.index_entries
    if not stream.frames or len(entries) < stream.frames:
        return None
    ticks = tuple(sorted(entry.timestamp for entry in entries))
    return PacketTimes(ticks, len(ticks), 0, seconds_per_tick(stream))
