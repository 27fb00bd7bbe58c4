"""The exact times of frames, which a filter prints to ffmpeg's stderr before each frame."""

from __future__ import annotations

import queue
import re
from fractions import Fraction
from typing import Final

__all__ = ["FrameTimes", "reports_broken_packet"]

_KEY: Final = "reel_modal=frame"
_BROKEN: Final = re.compile(r"Error (while decoding stream|submitting (a )?packet to decoder)|Decoding error: ")


def reports_broken_packet(message: str) -> bool:
    """Return whether ffmpeg says by `message` that it could not decode a packet."""
    return _BROKEN.search(message) is not None


class FrameTimes:
    """Take the times of frames out of ffmpeg's stderr.

    The last filter of a graph prints a line for each frame before it passes the frame on, so that a time is there
    when its frame is. A second output could be later than its frame by any number of frames, and would block ffmpeg.

    Args:
        origin_seconds: Time on the source's clock that is 0 in the graph.
        tick_seconds: Time base of the graph's output; times are printed as integers in it.
    """

    _LINE = re.compile(r"frame:\d+ +pts:(?P<pts>-?\d+) +pts_time:\S+$")

    def __init__(self, origin_seconds: Fraction, tick_seconds: Fraction) -> None:
        self._origin_seconds = origin_seconds
        self._tick_seconds = tick_seconds
        self.broken_packets: int = 0
        self._words = ""
        self._queue: queue.SimpleQueue[Fraction | None] = queue.SimpleQueue()

    @property
    def filters(self) -> tuple[str, ...]:
        """The last filters of the graph."""
        key, value = _KEY.split("=")
        tick = self._tick_seconds
        return (
            # The graph has this time base already, in every version but those that would guess another one.
            f"settb={tick.numerator}/{tick.denominator}",
            f"metadata=mode=add:key={key}:value={value}",
            rf"metadata=mode=print:key={key}:file=pipe\\:2:direct=1",
        )

    def take(self, line: str) -> str:
        """Take one line of stderr and return the part of it that is a message, empty for none."""
        if match := self._LINE.search(line):
            self._queue.put(self._origin_seconds + int(match["pts"]) * self._tick_seconds)
            # Another thread of ffmpeg writes a message in two parts; this line may come between them.
            self._words += line[: match.start()]
            return ""
        if line.endswith(_KEY):
            self._words += line.removesuffix(_KEY)
            return ""
        message, self._words = self._words + line, ""
        self.broken_packets += reports_broken_packet(message)
        return message

    def end(self) -> None:
        """Note that no more lines come."""
        self._queue.put(None)

    def next(self, timeout_seconds: float) -> Fraction | None:
        """Return the time of the next frame, None if ffmpeg has ended without one.

        Raises:
            TimeoutError: There is no line for so long.
        """
        try:
            return self._queue.get(timeout=timeout_seconds)
        except queue.Empty:
            raise TimeoutError(f"no time of a frame within {timeout_seconds:g} s") from None
