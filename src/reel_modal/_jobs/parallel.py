"""Choose the number of machines of a job from its expected time and cost on each number. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from reel_modal._jobs.worker_rows import WorkerRow
from reel_modal.errors import ConfigError, JobTooLongError, OverBudgetError
from reel_modal.functions.specs import SEGMENTS_SUFFIX

__all__ = ["MOST_OF_TIMEOUT", "Parallel", "WorkerChoice", "fits_timeout"]

MOST_OF_TIMEOUT: Final = 0.8
"""A call that is expected to need a larger share of its timeout is refused: estimates are uncertain."""

_MOST_WORKERS: Final = 1000
"""Most containers of one function: the upper bound of `max_containers`."""

_SHORT_JOB_SECONDS: Final = 60.0
"""Shorter work stays on one machine: two more containers, started one after the other, take about as long."""

_NEAR_FASTEST: Final = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Limits within which a job may use several machines; at least one is set. The planner chooses the number.

    With a deadline, it is the smallest number that meets it. Otherwise it is one for less than a minute of work, else
    the smallest number that takes at most a quarter longer than the fastest one. The limits are compared with
    estimates; they do not end a job that has started.

    Attributes:
        max_workers: Largest number of machines that render at once, 1 to 1,000.
        deadline_seconds: Longest expected time from the submission to the end, above 0. `JobOptions` has the
            deadline at which a running job is cancelled.
        max_usd: Largest expected cost in US dollars, above 0.

    Raises:
        ConfigError: A value is not of its type or out of range, or none is set; the message names the field.

    Example:
        >>> Parallel(max_workers=16, max_usd=0.5)
        Parallel(max_workers=16, deadline_seconds=None, max_usd=0.5)
    """

    max_workers: int | None = None
    deadline_seconds: float | None = None
    max_usd: float | None = None

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]
        if all(getattr(self, name) is None for name in names):
            raise ConfigError(f"Parallel needs at least one of {', '.join(names)}")
        workers = self.max_workers
        is_whole = isinstance(workers, int) and not isinstance(workers, bool)
        if workers is not None and not (is_whole and 1 <= workers <= _MOST_WORKERS):
            raise ConfigError(f"max_workers={workers!r} must be a whole number, 1 to {_MOST_WORKERS}")
        for name, unit in (("deadline_seconds", "seconds"), ("max_usd", "US dollars")):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 < value < math.inf):
                raise ConfigError(f"{name}={value!r} must be a number of {unit} above 0; None sets no limit")


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """The choice of one row from the table of a job.

    Attributes:
        function: Name of the function.
        rows: The rows of the job, for one machine first.
        parallel: The limits.
        budget_usd: Largest cost in US dollars of any job; None sets no limit.
    """

    function: str
    rows: Sequence[WorkerRow]
    parallel: Parallel
    budget_usd: float | None = None

    def row(self) -> WorkerRow:
        """Return the row of the number of machines to use.

        Raises:
            JobTooLongError: No number of machines meets the deadline, or keeps each call within the timeout.
            OverBudgetError: The numbers that do cost too much.
        """
        rows = self._affordable(self._in_time(self._within_timeout()))
        first = rows[0]
        if self.parallel.deadline_seconds is not None:
            return first
        if first.workers == 1 and first.call_seconds < _SHORT_JOB_SECONDS:
            return first
        fastest = min(row.seconds for row in rows)
        return next(row for row in rows if row.seconds <= _NEAR_FASTEST * fastest)

    def _within_timeout(self) -> list[WorkerRow]:
        most = self.parallel.max_workers or _MOST_WORKERS
        fitting = [row for row in self.rows if fits_timeout(row)]
        if rows := [row for row in fitting if row.workers <= most]:
            return rows
        best = min((row for row in self.rows if row.workers <= most), key=lambda row: row.call_seconds)
        name = self.function if best.workers == 1 else self.function + SEGMENTS_SUFFIX
        needed = math.ceil(best.call_seconds / MOST_OF_TIMEOUT)
        cure = f"set REEL_MODAL_{name.upper()}_TIMEOUT_SECONDS={needed} and deploy again"
        raise JobTooLongError(
            f"on {_machines(best)}, a call of {name} would need about {best.call_seconds:.0f} s of its timeout of"
            f" {best.timeout_seconds:.0f} s, and 80 % are allowed:"
            f" {f'use max_workers={fitting[0].workers} or more' if fitting else cure}"
        )

    def _in_time(self, rows: list[WorkerRow]) -> list[WorkerRow]:
        deadline = self.parallel.deadline_seconds
        if deadline is None or (in_time := [row for row in rows if row.seconds <= deadline]):
            return rows if deadline is None else in_time
        earliest = min(rows, key=lambda row: row.seconds)
        others = [row for row in self.rows if row.seconds <= deadline and fits_timeout(row)]
        one_piece = "; its output is one segment, or is rendered in one piece" if len(self.rows) == 1 else ""
        cure = f"; max_workers={others[0].workers} would meet it" if others else one_piece
        raise JobTooLongError(
            f"{self.function} would take at least {earliest.seconds:.0f} s, on {_machines(earliest)} for about"
            f" ${earliest.dollars:.4f}, and deadline_seconds is {deadline:g}{cure}"
        )

    def _affordable(self, rows: list[WorkerRow]) -> list[WorkerRow]:
        limits = [(self.parallel.max_usd, "max_usd"), (self.budget_usd, "the budget (REEL_MODAL_BUDGET_USD)")]
        most, name = min(((math.inf if usd is None else usd), name) for usd, name in limits)
        if affordable := [row for row in rows if row.dollars <= most]:
            return affordable
        cheapest, deadline = min(rows, key=lambda row: row.dollars), self.parallel.deadline_seconds
        in_time = "" if deadline is None else f" to end within {deadline:g} s"
        others = [row for row in self._within_timeout() if row.dollars <= most]
        earliest = min(others, key=lambda row: row.seconds, default=None)
        cure = "" if earliest is None else f"; for that, the earliest time is {_described(earliest)}"
        raise OverBudgetError(
            f"{self.function} would cost at least ${cheapest.dollars:.4f}{in_time}, on {_described(cheapest)}, and"
            f" {name} is ${most:.4f}{cure}"
        )


def fits_timeout(row: WorkerRow) -> bool:
    """Return whether the longest call of `row` needs at most 80 % of its timeout."""
    return row.timeout_seconds is None or row.call_seconds <= MOST_OF_TIMEOUT * row.timeout_seconds


def _machines(row: WorkerRow) -> str:
    return "1 machine" if row.workers == 1 else f"{row.workers} machines"


def _described(row: WorkerRow) -> str:
    return f"{_machines(row)} in {row.seconds:.0f} s"
