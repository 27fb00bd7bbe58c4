"""Updates that follow a plan by the clock, without measurements."""

from __future__ import annotations

import asyncio
import math
from typing import Final

from reel_modal._progress.plan import Curve, ProgressPlan
from reel_modal._progress.updates import ProgressUpdate, Status
from reel_modal.errors import ConfigError, JobCancelledError, RemoteError

__all__ = [
    "DEFAULT_INTERVAL_SECONDS",
    "DEFAULT_PLAN",
    "SimulatedProgress",
    "check_interval",
    "failure_message",
]

DEFAULT_INTERVAL_SECONDS: Final = 0.5
DEFAULT_PLAN: Final = ProgressPlan.default()


class SimulatedProgress:
    """A plan as a sequence of updates that never decreases, even if the clock goes back; pure and synchronous.

    Args:
        plan: Expected phases.
        curve: Curve of the last phase; None is the plan's own.
        started_at: The clock's reading when the job began.
    """

    __slots__ = ("_curve", "_elapsed", "_expected_seconds", "_highest", "_plan", "_sequence", "_started_at")

    def __init__(self, plan: ProgressPlan, curve: Curve | None, *, started_at: float) -> None:
        self._plan = plan
        self._curve = curve or plan.curve
        self._started_at = started_at
        self._expected_seconds = plan.startup_seconds + plan.processing_seconds
        self._elapsed = 0.0
        self._highest = 0.0
        self._sequence = 0

    def next(self, now: float) -> ProgressUpdate:
        """Return the update for `now`; the first update is always the plan's first row."""
        self._move_to(now)
        if self._sequence == 1:
            phase, percent = self._plan.phases[0], self._plan.phases[0].start
        else:
            phase, percent = self._plan.at(self._elapsed, self._curve)
        self._highest = max(self._highest, percent)
        left = self._expected_seconds - self._elapsed
        # Positional arguments are faster: this line runs twice a second for every job of a host.
        return ProgressUpdate(
            self._highest,
            phase.message,
            "processing",
            phase.name,
            "simulated",
            self._elapsed,
            left if left > 0 else None,  # later than planned: unknown
            self._sequence,
        )

    def saving(self, now: float) -> ProgressUpdate:
        """Return the update of the plan's saving row, which follows the work."""
        saving = self._plan.saving
        self._highest = saving.start  # never a decrease, since the plan checks the order of its rows
        return self._closing(now, saving.message, "processing", saving.name, saving.seconds or None)

    def finish(self, now: float) -> ProgressUpdate:
        """Return the last update of a job that succeeded."""
        self._highest = 100.0
        return self._closing(now, self._plan.complete_message, "complete", "complete", 0.0)

    def fail(self, error: BaseException, now: float) -> ProgressUpdate:
        """Return the last update of a job that failed."""
        return self._closing(now, failure_message(error, self._plan), "error", "error", None)

    def _move_to(self, now: float) -> None:
        elapsed = now - self._started_at
        self._elapsed = max(self._elapsed, elapsed)
        self._sequence += 1

    def _closing(self, now: float, message: str, status: Status, phase: str, eta: float | None) -> ProgressUpdate:
        self._move_to(now)
        return ProgressUpdate(self._highest, message, status, phase, "simulated", self._elapsed, eta, self._sequence)


def check_interval(seconds: float) -> float:
    """Return `seconds` if it is a valid interval; otherwise raise ConfigError."""
    if not 0 < seconds < math.inf:
        raise ConfigError(f"interval_seconds is {seconds!r}; it must be a finite number above 0")
    return seconds


def failure_message(error: BaseException, plan: ProgressPlan) -> str:
    """Return the message for the person who waits; never the error's own text, which is for logs."""
    if isinstance(error, RemoteError):
        return error.user_message
    if isinstance(error, asyncio.CancelledError):
        return JobCancelledError.user_message
    return plan.failed_message
