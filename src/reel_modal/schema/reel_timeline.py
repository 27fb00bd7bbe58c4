"""Exact mapping from the time of a reel to its clips and their source times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, Self, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.schema._fields import join
from reel_modal.schema._numbers import shown
from reel_modal.schema.timeline import Timeline

__all__ = ["PlacedClip", "ReelTimeline", "TransitionKind", "check_transitions"]

TransitionKind: TypeAlias = Literal["cut", "crossfade", "fade_black"]
"""Change from a clip to the next: `cut` at once, `crossfade` mixes both, `fade_black` fades out, then in."""

Change: TypeAlias = tuple[TransitionKind, Fraction]
"""Kind and duration in seconds of a transition."""

_WHOLE: Final = Fraction(1)


@dataclass(frozen=True, slots=True)
class PlacedClip:
    """One clip of a reel, at its place in the output. Frames are those of the output.

    Attributes:
        index: Position of the clip in the request, from 0.
        line: Maps the source time of the clip to the time since the clip begins.
        fps: Frame rate of the output.
        first: First frame that shows the clip.
        frames: Number of frames that show it, alone or mixed.
        entry: Kind of the transition before the clip; `cut` for the first clip.
        entry_frames: Number of its first frames that this transition changes.
        exit: Kind of the transition after the clip; `cut` for the last clip.
        exit_frames: Number of its last frames that this transition changes.
    """

    index: int
    line: Timeline
    fps: Fraction
    first: int
    frames: int
    entry: TransitionKind
    entry_frames: int
    exit: TransitionKind
    exit_frames: int

    @property
    def end(self) -> int:
        """Frame after the last one that shows the clip."""
        return self.first + self.frames

    @property
    def shared_frames(self) -> int:
        """Number of its last frames that also show the next clip."""
        return self.exit_frames if self.exit == "crossfade" else 0

    @property
    def start_seconds(self) -> Fraction:
        """Output time at which the clip begins."""
        return self.first / self.fps

    @property
    def end_seconds(self) -> Fraction:
        """Output time at which the clip ends, exclusive."""
        return self.end / self.fps

    def to_output(self, source_seconds: Fraction) -> Fraction:
        """Return the output time of a source time; outside the clip, extrapolate."""
        return self.start_seconds + self.line.to_output(source_seconds)

    def to_source(self, output_seconds: Fraction) -> Fraction:
        """Return the source time that the clip shows at an output time; outside the clip, extrapolate."""
        return self.line.to_source(output_seconds - self.start_seconds)

    def share(self, frame: int) -> Fraction:
        """Return the weight of the clip in a frame of the output, 0 to 1; the rest is the other clip, or black.

        The weights of the two clips of a `crossfade` add up to 1. No frame is completely black.
        """
        return faded_share(frame, (self.first, self.end), self.entry_frames, self.exit_frames)


@dataclass(frozen=True, slots=True)
class ReelTimeline:
    """Exact mapping from the time of a reel to its clips.

    Each clip is shown for a whole number of frames, the nearest to its length, as if it were rendered alone. So
    frames and audio change at the same time, and errors do not add up.

    Attributes:
        fps: Frame rate of the output.
        clips: The clips in order. Each begins at the end of the one before, or overlaps it during a `crossfade`.

    Example:
        >>> lines = [Timeline.of(end=Fraction(2)), Timeline.of(Fraction(5), Fraction(8))]
        >>> reel = ReelTimeline.of(lines, [("crossfade", Fraction(1))], Fraction(25))
        >>> reel.duration_seconds, reel.to_source(Fraction(3))
        (Fraction(4, 1), (1, Fraction(7, 1)))
    """

    fps: Fraction
    clips: tuple[PlacedClip, ...]

    @classmethod
    def of(cls, lines: Sequence[Timeline], changes: Sequence[Change], fps: Fraction) -> Self:
        """Return the timeline of clips at a frame rate.

        Args:
            lines: The mapping of each clip; its end must be known.
            changes: Kind and duration of each transition, one fewer than clips.
            fps: Frame rate of the output.

        Raises:
            RequestError: There is no clip, the numbers differ, or the transitions of a clip are longer than it is.
        """
        if not lines or len(changes) != len(lines) - 1:
            raise RequestError("transitions", f"has {len(changes)} items for {len(lines)} clips; use one fewer")
        check_transitions([line.duration_seconds for line in lines], changes)
        counts = [line.frame_count(fps) for line in lines]
        placed: list[PlacedClip] = []
        entry: TransitionKind = "cut"
        entry_frames = first = 0
        for index, (line, frames) in enumerate(zip(lines, counts, strict=True)):
            exit_kind: TransitionKind = "cut"
            exit_frames = 0
            if index < len(changes):
                exit_kind = changes[index][0]
                # Rounding may make the transitions of a clip one frame longer than the clip.
                exit_frames = min(_frames_changed(changes[index], fps), frames - entry_frames, counts[index + 1])
            clip = PlacedClip(index, line, fps, first, frames, entry, entry_frames, exit_kind, exit_frames)
            placed.append(clip)
            entry, entry_frames, first = exit_kind, exit_frames, clip.end - clip.shared_frames
        return cls(fps, tuple(placed))

    @property
    def frame_count(self) -> int:
        """Number of frames of the output."""
        return self.clips[-1].end

    @property
    def duration_seconds(self) -> Fraction:
        """Duration of the output in seconds."""
        return self.frame_count / self.fps

    def clip_at(self, output_seconds: Fraction) -> PlacedClip:
        """Return the clip that is shown at an output time; during a `crossfade` the one that enters."""
        index = bisect_right(self.clips, output_seconds, key=lambda clip: clip.start_seconds) - 1
        return self.clips[max(0, index)]

    def to_source(self, output_seconds: Fraction) -> tuple[int, Fraction]:
        """Return the index of the clip that is shown at an output time, and its source time."""
        clip = self.clip_at(output_seconds)
        return clip.index, clip.to_source(output_seconds)

    def to_output(self, index: int, source_seconds: Fraction) -> Fraction:
        """Return the output time of a source time of the clip `index`."""
        return self.clips[index].to_output(source_seconds)


def faded_share(frame: int, span: tuple[int, int], entry_frames: int, exit_frames: int) -> Fraction:
    """Return the weight in a frame of what is shown from `span[0]` to `span[1]`, exclusive, 0 to 1.

    It is above 0 in each of these frames, rises during the first `entry_frames`, and falls during the last
    `exit_frames`.
    """
    first, end = span
    if not first <= frame < end:
        return Fraction(0)
    entered, left = Fraction(frame - first + 1, entry_frames + 1), Fraction(end - frame, exit_frames + 1)
    return min(_WHOLE, entered, left)


def check_transitions(lengths: Sequence[Fraction | None], changes: Sequence[Change]) -> None:
    """Check that no clip is shorter than its transitions.

    Args:
        lengths: Length of each clip in the output in seconds; None is not checked.
        changes: Kind and duration of each transition.

    Raises:
        RequestError: The transitions of a clip overlap; `path` names the later one.
    """
    used = [_seconds_used(change) for change in changes]
    for index, length in enumerate(lengths):
        before = used[index - 1] if index else Fraction(0)
        after = used[index] if index < len(used) else Fraction(0)
        if length is not None and before + after > length:
            path = join(join("transitions", index if after else index - 1), "duration_seconds")
            raise RequestError(
                path,
                f"is too long: clips[{index}] lasts {shown(length)} s, and its transitions take"
                f" {shown(before + after)} s of it",
            )


def _seconds_used(change: Change) -> Fraction:
    """Return the seconds of each of its two clips that a transition changes."""
    kind, seconds = change
    return seconds / 2 if kind == "fade_black" else seconds


def _frames_changed(change: Change, fps: Fraction) -> int:
    """Return the number of frames of each of its two clips that a transition changes."""
    seconds = _seconds_used(change)
    return max(1, round(seconds * fps)) if seconds else 0
