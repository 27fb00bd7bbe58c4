"""Combine the plan and the events of a job into progress that never decreases.

Pure and synchronous: it neither receives events itself nor sleeps.
"""

from __future__ import annotations

import math
from typing import Final

from reel_modal._progress.events import ProgressEvent
from reel_modal._progress.measured import MeasuredWork, is_sound
from reel_modal._progress.plan import DEFAULT_SPREAD, PlannedPhase, ProgressPlan, expected_remaining
from reel_modal._progress.simulation import DEFAULT_PLAN, failure_message
from reel_modal._progress.updates import ProgressUpdate, Status

__all__ = ["ProgressBlender"]

_STALL_AFTER_SECONDS: Final = 15.0
_LEAST_REMAINING_SECONDS: Final = 0.5
_FRESH_SECONDS: Final = 1.0
_SPEED_WHEN_AHEAD: Final = 0.4
"""Share of the job's speed at which the bar moves while it is ahead: soon correct again, but visibly moving."""

_LEAST_SPEED: Final = 0.2
"""Percent each second: a whole percent should not stand for longer than 5 s."""

_ALMOST: Final = 0.9
"""Largest share of the job's speed for that; otherwise the real progress would never catch up."""


class ProgressBlender:
    """Progress computed from a plan, the time, and the events received so far.

    The progress is the share of time that is done: elapsed / (elapsed + expected rest). The expected rest comes from
    the plan until the first event, then from the function's own counts. If the progress was overestimated, the bar
    does not go back: it moves slowly until the real progress has caught up. Events may arrive late, twice, out of
    order or not at all, and a job may be restarted. Until the first event, a job counts as still starting, however
    long that takes. Once it is known that no events will come, the bar follows the plan alone, as `ProgressSimulator`
    does.

    Args:
        plan: Expected phases; default `ProgressPlan.default()`.
        started_at: The clock's reading when the job was submitted. None if unknown, as after a restart of the host;
            then it is derived from the events.
        stall_after_seconds: Silence after which updates report a stall.

    Example:
        >>> blender = ProgressBlender(started_at=0.0)
        >>> blender.feed(ProgressEvent("render", 450, 900, elapsed_seconds=10.0, sequence=1), now=12.0)
        >>> update = blender.update(now=12.0)
        >>> update.source, update.work.total
        ('measured', 900)
    """

    def __init__(
        self,
        plan: ProgressPlan | None = None,
        *,
        started_at: float | None,
        stall_after_seconds: float = _STALL_AFTER_SECONDS,
    ) -> None:
        self._plan = plan or DEFAULT_PLAN
        self._started_at = started_at
        self._unknown_startup_seconds = self._plan.startup_seconds if started_at is None else 0.0
        self._stall_after_seconds = stall_after_seconds
        self._measured: MeasuredWork | None = None
        self._no_more_events = False
        self._last: ProgressUpdate | None = None
        self._now = -math.inf
        self._shown_at = -math.inf
        self._elapsed = 0.0
        self._progress = 0.0

    def feed(self, event: ProgressEvent, now: float) -> None:
        """Process an event that arrived at `now`; duplicate and outdated events are ignored."""
        if not is_sound(event):
            return
        now = self._advance_clock(now)
        if self._measured is None or event.attempt > self._measured.attempt:
            self._measured = MeasuredWork(event, now, self._plan.work)
        else:
            self._measured.take(event, now)
        # A job cannot have begun after its function did. If past events arrive all at once, each may date it earlier.
        latest = self._measured.began_at - self._unknown_startup_seconds
        self._started_at = latest if self._started_at is None else min(self._started_at, latest)

    def no_more_events(self) -> None:
        """Record that no more events will come: the function sends none, or reading them failed.

        An outage of the backend is not such a failure: `EventFanout` opens the events again.
        """
        self._no_more_events = True

    def update(self, now: float) -> ProgressUpdate:
        """Return the update for `now`; after the job has ended, return the last update again."""
        if self._last is not None and self._last.ended:
            return self._last
        passed = self._move_to(now)
        first = self._plan.phases[0]
        if self._measured is not None:
            remaining = self._measured.remaining(self._now)
            silence, stall_after = self._measured.silence(self._now), self._stall_after_seconds
            name, message = self._measured.phase, self._measured.message
        elif self._last is None and self._elapsed < _FRESH_SECONDS:
            self._progress = first.start
            return self._next("processing", first.name, first.message, eta=self._planned_remaining())
        elif self._no_more_events:
            return self._by_plan()
        else:
            remaining = self._planned_remaining()
            silence, stall_after = self._elapsed, self._stall_after_seconds + self._plan.startup_seconds
            name, message = self._waiting_row.name, self._waiting_row.message
        remaining = max(remaining, _LEAST_REMAINING_SECONDS)
        self._advance(remaining, passed)
        stalled = silence if silence > stall_after else None
        if self._measured is not None and self._measured.attempt > 1:
            message = self._plan.retry_format.format(message=message)
        if stalled is not None:
            message = self._plan.stall_format.format(message=message, seconds=int(stalled))
        return self._next("processing", name, message, eta=remaining if stalled is None else None, stalled=stalled)

    def saving(self, now: float) -> ProgressUpdate:
        """Return the update of the plan's saving row, for a job that succeeded and whose result is being saved."""
        saving = self._plan.saving
        self._move_to(now)
        self._progress = max(self._progress, saving.start)
        return self._next("processing", saving.name, saving.message, eta=saving.seconds or None)

    def finish(self, now: float) -> ProgressUpdate:
        """Return the update of a job whose output is published: the only one at 100 %."""
        if self._last is not None and self._last.ended:
            return self._last
        self._move_to(now)
        self._progress = 100.0
        return self._next("complete", "complete", self._plan.complete_message, eta=0.0)

    def fail(self, error: BaseException, now: float) -> ProgressUpdate:
        """Return the update of a job that ended with `error`."""
        if self._last is not None and self._last.ended:
            return self._last
        self._move_to(now)
        return self._next("error", "error", failure_message(error, self._plan), eta=None)

    @property
    def knows_its_start(self) -> bool:
        """Whether the time of the submission is known; a listener who attached late gets it from the first event."""
        return self._started_at is not None

    def _by_plan(self) -> ProgressUpdate:
        row, percent = self._plan.at(self._elapsed)
        self._progress = max(self._progress, percent)
        left = self._plan.startup_seconds + self._plan.processing_seconds - self._elapsed
        return self._next("processing", row.name, row.message, eta=left if left > 0 else None)

    @property
    def _waiting_row(self) -> PlannedPhase:
        """The plan's row before the first event: its startup, however long that takes."""
        row = self._plan.phases[0]
        phase_start = 0.0
        for phase in self._plan.phases[:-1]:
            if phase_start <= self._elapsed:
                row = phase
            phase_start += phase.seconds
        return row

    def _planned_remaining(self) -> float:
        spread = self._plan.phases[-2].spread if len(self._plan.phases) > 1 else DEFAULT_SPREAD
        startup = expected_remaining(self._elapsed, self._plan.startup_seconds, spread)
        return startup + self._plan.processing_seconds

    def _advance(self, remaining: float, passed: float) -> None:
        """Move the bar to the share of time that is done; if it is ahead, move it slowly until that has caught up."""
        limit, total = self._plan.limit, self._elapsed + remaining
        due = limit * self._elapsed / total
        speed = limit / total
        slowed = self._progress + max(_SPEED_WHEN_AHEAD * speed, min(_LEAST_SPEED, _ALMOST * speed)) * passed
        # If the bar is far ahead, as in a second attempt, even that would reach the end before the job does.
        gliding = limit - (limit - self._progress) * remaining / (remaining + passed)
        self._progress = max(self._progress, min(max(due, min(slowed, gliding)), limit))

    def _move_to(self, now: float) -> float:
        """Set the time and return the seconds since the last update."""
        before, self._shown_at = self._shown_at, self._advance_clock(now)
        if self._started_at is None:
            self._started_at = self._shown_at
        self._elapsed = max(self._elapsed, self._shown_at - self._started_at)
        return 0.0 if self._last is None else self._shown_at - before

    def _advance_clock(self, now: float) -> float:
        """Return `now`, or the latest reading so far if the clock went back."""
        self._now = max(self._now, now)
        return self._now

    def _next(
        self, status: Status, phase: str, message: str, *, eta: float | None, stalled: float | None = None
    ) -> ProgressUpdate:
        measured = self._measured
        self._last = ProgressUpdate(
            progress=self._progress,
            message=message,
            status=status,
            phase=phase,
            source="simulated" if measured is None else "measured",
            elapsed_seconds=self._elapsed,
            eta_seconds=eta,
            sequence=1 if self._last is None else self._last.sequence + 1,
            stalled_seconds=stalled,
            work=None if measured is None else measured.counts,
        )
        return self._last
