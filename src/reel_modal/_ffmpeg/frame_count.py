"""Count the frames that an encoder has finished, by ffmpeg's own report, not those that wait inside it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

__all__ = ["PROGRESS", "EncodedFrames", "FrameCount"]

PROGRESS: Final = ("-progress", "pipe:2")
"""Options with which ffmpeg reports twice a second; `EncodedFrames` reads it."""

_KEY: Final = re.compile(r"(?P<key>[a-z][a-z0-9_]*)=\s*(?P<value>\S*)$")

_PRIOR_SECONDS: Final = 1.0
"""For the first moments, a pipe counts as full: an encoder takes its first frames at once, and returns none."""


class EncodedFrames:
    """Number of packets that ffmpeg has received from its encoder; a `LineSink`."""

    def __init__(self) -> None:
        self.encoded: int = 0

    def take(self, line: str) -> str:
        """Process one line and return it if it is a message, else an empty string."""
        match = _KEY.match(line)
        if match is None:
            return line
        if match["key"] == "frame" and match["value"].isdecimal():
            self.encoded = int(match["value"])
        return ""

    def end(self) -> None:
        """Called after the last line; nothing to do."""


class FrameCount(EncodedFrames):
    """Number of frames of a pipe whose work is done.

    x264 holds forty frames and more. If the encoder is the slow part, their work is still to do, and only encoded
    frames are done. If the frames arrive slowly, the encoder is waiting, and those that it holds take almost no time.
    The time during which the pipe was full says which of both is true, and to which part.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.advance: Callable[[int], None] | None = None
        self._clock = clock
        self._started_at: float | None = None
        self._done = 0

    def wrote(self, written: int, blocked_seconds: float) -> None:
        """Report the count after a frame was written.

        Args:
            written: Number of frames written so far.
            blocked_seconds: Time that all writes have waited for ffmpeg.
        """
        if self.advance is not None:
            now = self._clock()
            self._started_at = now if self._started_at is None else self._started_at
            seconds = now - self._started_at
            full = min((blocked_seconds + _PRIOR_SECONDS) / (seconds + _PRIOR_SECONDS), 1.0)
            self._report(self.advance, written - round(full * (written - self.encoded)))

    def drained(self, output_bytes: int) -> int:
        """Report the count while ffmpeg encodes the frames that it holds; return a number that grows meanwhile."""
        if self.advance is not None:
            self._report(self.advance, self.encoded)
        return output_bytes + self.encoded

    def _report(self, advance: Callable[[int], None], done: int) -> None:
        self._done = max(self._done, done)
        advance(self._done)
