"""Which picture of the source each frame of the output shows, decided while pictures come in.

Pure; it must not know what a picture is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from reel_modal.schema import SlowMotion, Timeline

__all__ = ["Schedule", "Shown"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What one frame of the output shows.

    Attributes:
        index: Of the frame.
        share: 0..1, how much of the newer picture is in it; 0 is the older one alone.
    """

    index: int
    share: float = 0.0


class Schedule:
    """Fills the frames of the output, in order, each exactly once.

    A frame shows the picture whose moment is nearest, so that none is more than half a frame early or late, unless
    pictures may wait. In slowed stretches `blend` mixes the two pictures around it.

    Args:
        timeline: Source time to output time.
        fps: Of the output.
        slow_motion: What fills the time between two pictures of a slowed stretch.
        most_late_frames: How late a picture may be shown so that the one before it, whose frame it would take, is not
            dropped. 0 shows the nearest picture at each frame.
    """

    def __init__(
        self, timeline: Timeline, fps: Fraction, slow_motion: SlowMotion, *, most_late_frames: float = 0
    ) -> None:
        self._timeline = timeline
        self._fps = fps
        self._blend = slow_motion == "blend"
        self._most_late_frames = most_late_frames
        self._older: Fraction | None = None
        self.count: int = timeline.frame_count(fps)
        self.next_index: int = 0
        self.dropped: int = 0

    @property
    def complete(self) -> bool:
        """Whether every frame of the output is filled."""
        return self.next_index >= self.count

    def picture(self, source_seconds: Fraction) -> Iterator[Shown]:
        """Take the time of the next picture; yield the frames that the one before it, or both, fill.

        Nothing is yielded for the first picture.
        """
        older, self._older = self._older, source_seconds
        if older is None:
            return
        first = self.next_index
        while not self.complete:
            share = self._share(older, source_seconds)
            if share is None:
                break
            yield Shown(self.next_index, share)
            self.next_index += 1
        if self.next_index > first or self.complete or self._timeline.first_frame(older, self._fps) < 0:
            return
        due = self._timeline.to_output(source_seconds) * self._fps
        if self.next_index + 1 - due <= self._most_late_frames:
            yield Shown(self.next_index)
            self.next_index += 1
        else:
            self.dropped += 1

    def rest(self) -> Iterator[Shown]:
        """Yield the frames that the last picture fills, after all have been taken."""
        while not self.complete:
            yield Shown(self.next_index)
            self.next_index += 1

    def _share(self, older: Fraction, newer: Fraction) -> float | None:
        """Return how much of the newer picture the next frame shows, None where that picture is not new enough."""
        moment = self.next_index / self._fps
        if self._blend and self._timeline.piece_at_output(moment).speed < 1:
            before, after = self._timeline.to_output(older), self._timeline.to_output(newer)
            # Pictures that come faster than frames need no mixing.
            if (after - before) * self._fps > 1:
                return max(0.0, float((moment - before) / (after - before))) if after > moment else None
        return 0.0 if self.next_index < self._timeline.first_frame(newer, self._fps) else None
