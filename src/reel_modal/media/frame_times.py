"""The exact times of frames, taken out of what ffmpeg writes beside them.

It must not know the frames themselves.
"""

from __future__ import annotations

import queue
import re
from fractions import Fraction

__all__ = ["FrameTimes"]


class FrameTimes:
    """Takes the times of frames out of ffmpeg's stderr, where its `framecrc` output writes a line a frame.

    Args:
        origin_seconds: What ffmpeg's time 0 means on the source's own clock.
    """

    _TIME_BASE = re.compile(r"#tb 0: (\d+)/(\d+)$")
    _LINE = re.compile(r"(?P<words>.*?)0, +-?\d+, +(?P<pts>-?\d+), +\d+, +\d+, 0x[0-9a-f]{8}$")
    _BROKEN = re.compile(r"Error (while decoding stream|submitting (a )?packet to decoder)")

    def __init__(self, origin_seconds: Fraction) -> None:
        self._origin_seconds = origin_seconds
        self.broken_packets: int = 0
        self._time_base = Fraction(1)
        self._queue: queue.SimpleQueue[Fraction | None] = queue.SimpleQueue()

    def take(self, line: str) -> str:
        """Take one line of stderr and return what of it is a message of ffmpeg's."""
        if match := self._LINE.match(line):
            self._queue.put(self._origin_seconds + int(match["pts"]) * self._time_base)
            return match["words"]
        if line.startswith("#"):
            if match := self._TIME_BASE.match(line):
                self._time_base = Fraction(int(match[1]), int(match[2]))
            return ""
        if self._BROKEN.search(line):
            self.broken_packets += 1
        return line

    def end(self) -> None:
        """Note that no more lines come."""
        self._queue.put(None)

    def next(self, timeout_seconds: float) -> Fraction | None:
        """Return the time of the next frame, None when there is none."""
        try:
            return self._queue.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
