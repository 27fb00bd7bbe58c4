"""Exact timestamps of frames, which a filter prints to ffmpeg's stderr before each frame."""

from __future__ import annotations

import queue
import re
from fractions import Fraction
from typing import Final

__all__ = ["FrameTimes", "reports_broken_packet"]

_KEY: Final = "reel_modal=frame"
_BROKEN: Final = re.compile(r"Error (while decoding stream|submitting (a )?packet to decoder)|Decoding error: ")


def reports_broken_packet(message: str) -> bool:
    """Return whether `message` from ffmpeg reports that a packet could not be decoded."""
    return _BROKEN.search(message) is not None


class FrameTimes:
    """Frame timestamps, parsed from ffmpeg's stderr.

    The last filter of a graph prints a line for each frame before it passes the frame on, so the timestamp arrives
    before the frame. A second output could be late by any number of frames, and would block ffmpeg.

    Args:
        origin_seconds: Source timestamp that is 0 in the graph.
        tick_seconds: Time base of the graph's output; timestamps are printed as integers in this unit.
    """

    _LINE = re.compile(r"frame:\d+ +pts:(?P<pts>-?\d+) +pts_time:\S+$")

    def __init__(self, origin_seconds: Fraction, tick_seconds: Fraction) -> None:
        self._origin_seconds = origin_seconds
        self._tick_seconds = tick_seconds
        self.broken_packets: int = 0
        self._partial = ""
        self._queue: queue.SimpleQueue[Fraction | None] = queue.SimpleQueue()

    @property
    def filters(self) -> tuple[str, ...]:
        """The last filters of the graph."""
        key, value = _KEY.split("=")
        tick = self._tick_seconds
        return (
            # The graph already has this time base, except in ffmpeg versions that would guess another one.
            f"settb={tick.numerator}/{tick.denominator}",
            f"metadata=mode=add:key={key}:value={value}",
            rf"metadata=mode=print:key={key}:file=pipe\\:2:direct=1",
        )

    def take(self, line: str) -> str:
        """Process one line of stderr and return its message part, or an empty string."""
        if match := self._LINE.search(line):
            self._queue.put(self._origin_seconds + int(match["pts"]) * self._tick_seconds)
            # Another ffmpeg thread writes a message in two parts; this line may come between them.
            self._partial += line[: match.start()]
            return ""
        if line.endswith(_KEY):
            self._partial += line.removesuffix(_KEY)
            return ""
        message, self._partial = self._partial + line, ""
        self.broken_packets += reports_broken_packet(message)
        return message

    def end(self) -> None:
        """Called after the last line."""
        self._queue.put(None)

    def next(self, timeout_seconds: float) -> Fraction | None:
        """Return the timestamp of the next frame, or None if ffmpeg has ended without one.

        Raises:
            TimeoutError: No timestamp arrived within `timeout_seconds`.
        """
        try:
            return self._queue.get(timeout=timeout_seconds)
        except queue.Empty:
            raise TimeoutError(f"no frame timestamp within {timeout_seconds:g} s") from None
