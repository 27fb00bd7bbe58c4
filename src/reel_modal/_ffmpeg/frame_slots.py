"""Which source frame each frame of a constant rate shows, computed before anything is decoded."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from reel_modal.media import MediaInfo
from reel_modal.media.constant_rate import MOST_LATE_FRAMES, NEAREST, TIE_FRAMES, slots_of
from reel_modal.media.picture_end import picture_end
from reel_modal.settings import MediaLimits

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["HALF_A_SLOT", "FrameSpan", "SpanError", "allows_late_frames", "count_slots", "shown_ticks"]

HALF_A_SLOT: Final = Fraction(1, 2) + Fraction(TIE_FRAMES)
"""A frame that is due halfway between two slots goes to the later one."""

# ffmpeg computes slots in floating point, from times in units of 1e-8 s: less than this, in slots, at 240 per second.
_UNCERTAIN: Final = 2e-5


class SpanError(Exception):
    """Frames cannot be read from a keyframe in the middle as they are when the whole file is read."""


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """A run of output frames, and the source frames that they show.

    Attributes:
        keyframe_ticks: Timestamp of the packet at which decoding begins. No packet after it refers to one before it.
        shown: Timestamp of the source frame that each output frame shows, in ticks; a repeated one repeats the frame.
        first_seconds: Time of the first output frame.
        interval_seconds: From each output frame to the next; None keeps the times of the source.
    """

    keyframe_ticks: int
    shown: Sequence[int]
    first_seconds: Fraction = Fraction(0)
    interval_seconds: Fraction | None = None

    def placed(
        self, decoded: Iterator[tuple[VideoFrame, Fraction]], tick_seconds: Fraction
    ) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Yield the frame of each output frame, and its time, from all `decoded` frames and their times.

        Raises:
            SpanError: A source frame is missing.
        """
        number = 0
        for picture, seconds in decoded:
            ticks = seconds / tick_seconds
            while self.shown[number] == ticks:
                own = self.interval_seconds is None
                yield picture, seconds if own else self.first_seconds + number * (self.interval_seconds or 0)
                number += 1
                if number == len(self.shown):
                    return
            if self.shown[number] < ticks:
                break
        raise SpanError(f"its frame at {float(self.shown[number] * tick_seconds):g} s does not decode")


def count_slots(media: MediaInfo, fps: Fraction, origin_seconds: Fraction, limits: MediaLimits) -> int:
    """Return the number of frames at the constant rate `fps`, from `origin_seconds` to the end of the last frame."""
    end = picture_end(media, limits)
    return max(math.floor((end - origin_seconds) * fps + Fraction(1, 2)), int(end > origin_seconds))


def allows_late_frames(media: MediaInfo, fps: Fraction) -> bool:
    """Return whether frames may be late so that fewer are dropped: at the rate that was chosen for a variable one."""
    return not media.constant_rate and fps == media.fps


def shown_ticks(ticks: Sequence[int], media: MediaInfo, fps: Fraction, count: int) -> Sequence[int]:
    """Return which source frame each of `count` slots shows, as the filters of `FrameReader` decide it.

    Args:
        ticks: Timestamps of all source frames in ticks, increasing.
        media: The source.
        fps: Frames per second of the slots.
        count: Number of slots.

    Raises:
        SpanError: Rounding might decide otherwise.
    """
    shown = array("q")
    latest = ticks[0]
    for tick, slot in zip(ticks, _slots(ticks, media, fps), strict=True):
        shown.extend([latest] * (min(slot, count) - len(shown)))
        latest = tick
    shown.extend([latest] * (count - len(shown)))
    return shown


def _slots(ticks: Sequence[int], media: MediaInfo, fps: Fraction) -> Iterator[int]:
    """Yield the slot of each source frame."""
    last, late = -1, allows_late_frames(media, fps)
    slots_per_tick = float(media.time_base * fps)
    origin = media.start_seconds / media.time_base
    dues = [float(tick - origin) * slots_per_tick for tick in ticks]
    slots = slots_of(dues, MOST_LATE_FRAMES if late else NEAREST)
    for tick, due, slot in zip(ticks, dues, slots, strict=True):
        nearest = due + float(HALF_A_SLOT)
        certain = _is_certain(nearest)
        if late and math.floor(nearest) <= last:
            certain = certain and abs(last + 1 - due - MOST_LATE_FRAMES) > _UNCERTAIN
        if not certain:
            raise SpanError(f"its frame at {float(tick * media.time_base):g} s is between two output frames")
        yield slot
        last = slot


def _is_certain(slot: float) -> bool:
    return abs(slot - round(slot)) > _UNCERTAIN
