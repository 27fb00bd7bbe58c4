"""How long a job still takes, from what its function counted and when that was heard.

Pure arithmetic; it must not know what is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from reel_modal.progress.events import ProgressEvent
from reel_modal.progress.plan import DEFAULT_SPREAD, LONGEST_SECONDS, WorkPhase, expected_remaining
from reel_modal.progress.updates import WorkDone

__all__ = ["MeasuredWork", "is_sound"]

_PRIOR_SHARE: Final = 0.02
"""How much of a phase the plan's figure counts for beside the observed rate: at 2 % done, half each."""

_MOST_SCALED: Final = 5.0
"""How far the pace of the phases that were counted may stretch or shrink those that are planned.

By its square root: more frames take longer to publish too, a slower kernel does not change that.
"""

_USUAL_GAP_SECONDS: Final = 2.0
_LATE_SHARE: Final = 0.25
"""Expected rest of a counted phase that should be over, as a share of the silence."""

_SHORTEST_SECONDS: Final = 0.001
"""A rate over less is noise."""

_LARGEST_COUNT: Final = 2**63 - 1


class MeasuredWork:
    """The events of one attempt, reduced to what an estimate needs.

    Times within the function are the function's own (`elapsed_seconds`), so that a slow or bunched delivery changes
    no rate. Its start on the listener's clock is the earliest that any event allows.

    Args:
        event: The first event that was heard of the attempt; not always the first that was sent.
        now: When it was heard, on the listener's clock.
        work: The function's phases with their expected seconds, in order.
    """

    def __init__(self, event: ProgressEvent, now: float, work: Sequence[WorkPhase]) -> None:
        self._work = work
        self._places = {phase.name: place for place, phase in enumerate(work)}
        self._place = self._places.get(event.phase, -1)
        self._last = event
        self._heard_at = now
        self._began_at = now - event.elapsed_seconds
        self._phase_began = self._likely_phase_start(event)
        self._usual_gap = _USUAL_GAP_SECONDS
        self._scale = 1.0

    @property
    def attempt(self) -> int:
        """Which try of the job this is."""
        return self._last.attempt

    @property
    def began_at(self) -> float:
        """When the function began at the latest, on the listener's clock."""
        return self._began_at

    @property
    def phase(self) -> str:
        """The function's name of what it does."""
        return self._last.phase

    @property
    def message(self) -> str:
        """The plan's sentence for the phase."""
        place = self._places.get(self.phase)
        return WorkPhase(self.phase, 0.0).message if place is None else self._work[place].message

    @property
    def counts(self) -> WorkDone:
        """The counts of the last event."""
        spent = self._last.elapsed_seconds - self._phase_began
        rate = self._last.done / spent if self._last.done and spent >= _SHORTEST_SECONDS else None
        return WorkDone(self._last.done, self._last.total, rate, self._last.attempt)

    def take(self, event: ProgressEvent, now: float) -> None:
        """Take an event that was heard at `now`; a late or doubled one says nothing that is not known."""
        if event.attempt != self._last.attempt or event.sequence <= self._last.sequence:
            return
        if event.phase != self._last.phase or event.done < self._last.done:
            self._scale = self._observed_scale
            # A new phase, or the same one for the next clip. Where its first event was lost, it began somewhere
            # after the last one that was heard.
            self._phase_began = event.elapsed_seconds if event.done == 0 else self._last.elapsed_seconds
        else:
            gap = event.elapsed_seconds - self._last.elapsed_seconds
            self._usual_gap = max(_USUAL_GAP_SECONDS, (self._usual_gap + gap) / 2)
        self._place = self._places.get(event.phase, self._place)
        self._last = event
        self._heard_at = now
        self._began_at = min(self._began_at, now - event.elapsed_seconds)

    def silence(self, now: float) -> float:
        """Return the seconds since news were heard."""
        return max(now - self._heard_at, 0.0)

    def remaining(self, now: float) -> float:
        """Return the seconds that the function is expected to go on, 0 or more."""
        since = max(now - self._began_at - self._last.elapsed_seconds, 0.0)
        scale = self._observed_scale
        after = scale * sum(phase.seconds for phase in self._work[self._place + 1 :])
        if not self._counted:
            spent = max(self._last.elapsed_seconds - self._phase_began, 0.0) + since
            return expected_remaining(spent, scale * self._planned_here, DEFAULT_SPREAD) + after
        # Between events the work goes on at the observed rate. Beyond the usual gap that is less and less
        # certain: what is not believed to be done is added to the rest, so that a stuck job stays where it is.
        believed = _damped(since, 2 * self._usual_gap)
        rest = self._units_left * self._seconds_per_unit - believed
        return max(rest, _LATE_SHARE * believed) + (since - believed) + after

    @property
    def _counted(self) -> bool:
        return self._last.total is not None and self._last.total > 0

    @property
    def _units_left(self) -> int:
        return (self._last.total or 0) - self._last.done

    @property
    def _planned_here(self) -> float:
        place = self._places.get(self._last.phase)
        return 0.0 if place is None else self._work[place].seconds

    @property
    def _seconds_per_unit(self) -> float:
        spent = max(self._last.elapsed_seconds - self._phase_began, 0.0)
        prior_units = _PRIOR_SHARE * (self._last.total or 1)
        return (_PRIOR_SHARE * self._scale * self._planned_here + spent) / (prior_units + self._last.done)

    @property
    def _observed_scale(self) -> float:
        """How much longer than planned the job's phases take, by the ones that were counted so far."""
        if not self._counted or self._planned_here <= 0:
            return self._scale
        ratio = (self._last.total or 0) * self._seconds_per_unit / self._planned_here
        return min(max(math.sqrt(ratio * self._scale), 1 / _MOST_SCALED), _MOST_SCALED)

    def _likely_phase_start(self, event: ProgressEvent) -> float:
        """Return when the phase began, on the function's clock, for a listener who came late."""
        if event.done == 0:
            return event.elapsed_seconds
        before = sum(phase.seconds for phase in self._work[: max(self._place, 0)])
        share = min(event.done / event.total, 1.0) if event.total else 0.5
        here = self._planned_here * share
        return event.elapsed_seconds * before / (before + here) if here > 0 else 0.0


def is_sound(event: ProgressEvent) -> bool:
    """Return whether the numbers of `event` can be counted with."""
    counts = event.done, event.total or 0
    return all(0 <= count <= _LARGEST_COUNT for count in counts) and 0 <= event.elapsed_seconds <= LONGEST_SECONDS


def _damped(seconds: float, usual: float) -> float:
    return seconds if seconds <= usual else usual * (1 + math.log(seconds / usual))
