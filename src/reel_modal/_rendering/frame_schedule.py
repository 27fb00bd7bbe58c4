"""Assignment of source frames to output frames, decided as the source frames arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from reel_modal.schema import SlowMotion, Timeline

__all__ = ["Schedule", "Shown"]


@dataclass(frozen=True, slots=True)
class Shown:
    """Content of one output frame.

    Attributes:
        index: Index of the output frame.
        share: Share of the newer source frame, 0 to 1; 0 is only the older one.
    """

    index: int
    share: float = 0.0


class Schedule:
    """Assignment of source frames to output frames, which are filled in order, each exactly once.

    An output frame shows the nearest source frame, so a source frame is at most half an output frame early or late,
    unless `most_late_frames` allows more. In slowed segments, `blend` mixes the two source frames around it.

    Args:
        timeline: Mapping from source time to output time.
        fps: Frame rate of the output.
        slow_motion: How output frames between two source frames of a slowed segment are made.
        most_late_frames: If two source frames are nearest to one output frame, the second moves to the next output
            frame if that delays it by at most this many output frames. 0 always shows the nearest source frame.
        first_index: Index of the output frame at which to begin. The first source frame is then the one that a
            schedule from the beginning has before this output frame.
    """

    def __init__(
        self,
        timeline: Timeline,
        fps: Fraction,
        slow_motion: SlowMotion,
        *,
        most_late_frames: float = 0,
        first_index: int = 0,
    ) -> None:
        self._timeline = timeline
        self._fps = fps
        self._blend = slow_motion == "blend"
        self._most_late_frames = most_late_frames
        self._older: Fraction | None = None
        self.count: int = timeline.frame_count(fps)
        self.next_index: int = first_index
        self.dropped: int = 0

    @property
    def complete(self) -> bool:
        """Whether every output frame is filled."""
        return self.next_index >= self.count

    def picture(self, source_seconds: Fraction) -> Iterator[Shown]:
        """Take the timestamp of the next source frame; yield the output frames that the previous one, or both, fill.

        The first source frame yields nothing.
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
        """Yield the output frames that the last source frame fills; call it after all source frames."""
        while not self.complete:
            yield Shown(self.next_index)
            self.next_index += 1

    def _share(self, older: Fraction, newer: Fraction) -> float | None:
        """Return the share of `newer` in the next output frame; None if a later source frame is needed for it."""
        moment = self.next_index / self._fps
        if self._blend and self._timeline.piece_at_output(moment).speed < 1:
            before, after = self._timeline.to_output(older), self._timeline.to_output(newer)
            # If source frames are closer together than output frames, there is nothing to blend.
            if (after - before) * self._fps > 1:
                return max(0.0, float((moment - before) / (after - before))) if after > moment else None
        return 0.0 if self.next_index < self._timeline.first_frame(newer, self._fps) else None
