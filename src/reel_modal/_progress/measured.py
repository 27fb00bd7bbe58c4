"""Estimate the remaining time of a job from the counts of its function.

Pure arithmetic.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from reel_modal._progress.events import ProgressEvent
from reel_modal._progress.plan import DEFAULT_SPREAD, LONGEST_SECONDS, WorkPhase, expected_remaining
from reel_modal._progress.updates import WorkDone

__all__ = ["MeasuredWork", "is_sound"]

_PRIOR_SHARE: Final = 0.02
"""Weight of the planned rate, as a share of the phase: at 2 % done, planned and observed rate count equally."""

_MOST_SCALED: Final = 5.0
"""Largest factor by which the speed of the counted phases may stretch or shrink the planned ones.

The factor is the square root of the observed ratio: more frames also take longer to publish, but a slower kernel
does not.
"""

_RATE_SHARE: Final = 0.5
"""First share of the counted time that the rate ignores."""

_USUAL_GAP_SECONDS: Final = 2.0
_LATE_SHARE: Final = 0.25
"""Expected rest of a counted phase that should already have ended, as a share of the silence."""

_SHORTEST_SECONDS: Final = 0.001
"""A rate measured over less time is noise."""

_LARGEST_COUNT: Final = 2**63 - 1


class MeasuredWork:
    """The events of one attempt, reduced to the data that an estimate needs.

    Times within the function are measured by the function (`elapsed_seconds`), so that slow or bunched delivery does
    not change a rate. Each event gives an upper bound of its start on the listener's clock; the earliest one counts.

    Args:
        event: First event received from the attempt; not always the first that was sent.
        now: When it was received, on the listener's clock.
        work: Phases of the function with their expected seconds, in order.
    """

    def __init__(self, event: ProgressEvent, now: float, work: Sequence[WorkPhase]) -> None:
        self._work = work
        self._places = {phase.name: place for place, phase in enumerate(work)}
        self._place = self._places.get(event.phase, -1)
        self._last = event
        self._received_at = now
        self._began_at = now - event.elapsed_seconds
        self._phase_began = self._likely_phase_start(event)
        self._rate = _ObservedRate(event, self._phase_began)
        self._usual_gap = _USUAL_GAP_SECONDS
        self._scale = 1.0

    @property
    def attempt(self) -> int:
        """Number of this attempt of the job, from 1."""
        return self._last.attempt

    @property
    def began_at(self) -> float:
        """Latest time at which the function can have begun, on the listener's clock."""
        return self._began_at

    @property
    def phase(self) -> str:
        """Name of the current phase, as sent by the function."""
        return self._last.phase

    @property
    def message(self) -> str:
        """The plan's message for the phase, and what it works on."""
        place = self._places.get(self.phase)
        message = WorkPhase(self.phase, 0.0).message if place is None else self._work[place].message
        return f"{message} ({self._last.detail})" if self._last.detail else message

    @property
    def counts(self) -> WorkDone:
        """The counts of the last event."""
        spent = self._last.elapsed_seconds - self._phase_began
        rate = self._last.done / spent if self._last.done and spent >= _SHORTEST_SECONDS else None
        return WorkDone(self._last.done, self._last.total, rate, self._last.attempt)

    def take(self, event: ProgressEvent, now: float) -> None:
        """Process an event that was received at `now`; late and duplicate events are ignored."""
        if event.attempt != self._last.attempt or event.sequence <= self._last.sequence:
            return
        if event.phase != self._last.phase or event.done < self._last.done:
            self._scale = self._observed_scale
            # A new phase, or the same phase for the next clip. If its first event was lost, the phase began some time
            # after the last received event.
            self._phase_began = event.elapsed_seconds if event.done == 0 else self._last.elapsed_seconds
            self._rate = _ObservedRate(event, self._phase_began)
        else:
            gap = event.elapsed_seconds - self._last.elapsed_seconds
            self._usual_gap = max(_USUAL_GAP_SECONDS, (self._usual_gap + gap) / 2)
            self._rate.take(event)
        self._place = self._places.get(event.phase, self._place)
        self._last = event
        self._received_at = now
        self._began_at = min(self._began_at, now - event.elapsed_seconds)

    def silence(self, now: float) -> float:
        """Return the seconds since the last event was received."""
        return max(now - self._received_at, 0.0)

    def remaining(self, now: float) -> float:
        """Return the expected remaining seconds of the function, 0 or more."""
        since = max(now - self._began_at - self._last.elapsed_seconds, 0.0)
        scale = self._observed_scale
        after = scale * sum(phase.seconds for phase in self._work[self._place + 1 :])
        if not self._counted or (not self._rate_known and self._planned_seconds > 0):
            spent = max(self._last.elapsed_seconds - self._phase_began, 0.0) + since
            left = self._units_left / self._last.total if self._last.total else 1.0
            return expected_remaining(spent, scale * left * self._planned_seconds, DEFAULT_SPREAD) + after
        # Between events, the work is assumed to continue at the observed rate. Beyond the usual gap, this is less
        # and less certain: the doubtful part of the time is added to the rest, so that a stuck job hardly advances.
        believed = _damped(since, 2 * self._usual_gap)
        rest = self._units_left * self._seconds_per_unit - believed
        return max(rest, _LATE_SHARE * believed) + (since - believed) + after

    @property
    def _counted(self) -> bool:
        return self._last.total is not None and self._last.total > 0

    @property
    def _rate_known(self) -> bool:
        """Whether the rate is measured; a first count far above the plan was made by an earlier attempt."""
        if not self._rate.known or self._rate.counts > 1 or not self._last.total or self._units_left <= 0:
            return self._rate.known
        planned = self._scale * self._planned_seconds * self._rate.units / self._last.total
        return self._rate.seconds * _MOST_SCALED >= planned

    @property
    def _units_left(self) -> int:
        return (self._last.total or 0) - self._last.done

    @property
    def _planned_seconds(self) -> float:
        place = self._places.get(self._last.phase)
        return 0.0 if place is None else self._work[place].seconds

    @property
    def _seconds_per_unit(self) -> float:
        units, seconds = self._rate.units, self._rate.seconds
        prior_units = _PRIOR_SHARE * (self._last.total or 1)
        return (_PRIOR_SHARE * self._scale * self._planned_seconds + seconds) / (prior_units + units)

    @property
    def _observed_scale(self) -> float:
        """Factor by which the job's phases take longer than planned, from the phases counted so far."""
        if not self._counted or not self._rate_known or self._planned_seconds <= 0:
            return self._scale
        ratio = (self._last.total or 0) * self._seconds_per_unit / self._planned_seconds
        return min(max(math.sqrt(ratio * self._scale), 1 / _MOST_SCALED), _MOST_SCALED)

    def _likely_phase_start(self, event: ProgressEvent) -> float:
        """Return the probable start of the phase on the function's clock, for a listener who attached late."""
        if event.done == 0:
            return event.elapsed_seconds
        before = sum(phase.seconds for phase in self._work[: max(self._place, 0)])
        share = min(event.done / event.total, 1.0) if event.total else 0.5
        in_phase = self._planned_seconds * share
        return event.elapsed_seconds * before / (before + in_phase) if in_phase > 0 else 0.0


class _ObservedRate:
    """Units and seconds by which the rate of a counted phase is measured: the second half of its counts.

    An encoder takes its first frames without returning any, so the time before the first count says little about the
    rate, and so does a slow beginning.

    Args:
        event: First event of the phase that was received.
        began_at: Start of the phase on the function's clock.
    """

    def __init__(self, event: ProgressEvent, began_at: float) -> None:
        self._phase_began = self._last_at = began_at
        self._first_at: float | None = None
        self._counts: deque[tuple[float, int]] = deque()
        self._few_units = _PRIOR_SHARE * (event.total or 0)
        if event.done:  # a listener who attached late: the beginning of the phase is all that is known
            self._first_at = began_at
            self._counts.append((began_at, 0))
        self.take(event)

    @property
    def known(self) -> bool:
        """Whether there are two counts, or the first one is that of more than a few units."""
        return len(self._counts) > 1 or (bool(self._counts) and self._counts[0][1] >= self._few_units)

    @property
    def counts(self) -> int:
        """Number of counts by which the rate is measured."""
        return len(self._counts)

    @property
    def units(self) -> int:
        """Units that were finished in these seconds."""
        return self._counts[-1][1] - self._start[1] if self._counts else 0

    @property
    def seconds(self) -> float:
        """Seconds in which these units were finished."""
        return max(self._last_at - self._start[0], 0.0)

    @property
    def _start(self) -> tuple[float, int]:
        """Time and count of the first of at least two counts; the beginning of the phase if there is one count."""
        return self._counts[0] if len(self._counts) > 1 else (self._phase_began, 0)

    def take(self, event: ProgressEvent) -> None:
        """Process an event of the phase."""
        now = self._last_at = max(event.elapsed_seconds, self._last_at)
        if event.done:
            self._first_at = now if self._first_at is None else self._first_at
            self._counts.append((now, event.done))
            half = self._first_at + _RATE_SHARE * (now - self._first_at)
            while len(self._counts) > 2 and self._counts[1][0] <= half:
                self._counts.popleft()


def is_sound(event: ProgressEvent) -> bool:
    """Return whether the numbers of `event` are usable for arithmetic."""
    counts = event.done, event.total or 0
    return all(0 <= count <= _LARGEST_COUNT for count in counts) and 0 <= event.elapsed_seconds <= LONGEST_SECONDS


def _damped(seconds: float, usual: float) -> float:
    return seconds if seconds <= usual else usual * (1 + math.log(seconds / usual))
