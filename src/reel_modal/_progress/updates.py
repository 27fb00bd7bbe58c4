"""Progress updates that a host displays: one immutable value per update, with the payload for the browser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["ProgressUpdate", "Source", "Status", "WorkDone", "describe", "rounded_down", "time_left"]

Status: TypeAlias = Literal["processing", "complete", "error"]
Source: TypeAlias = Literal["simulated", "measured"]

_ALMOST_SECONDS: Final = 3.0
_STEPS: Final = ((10.0, 1), (60.0, 5), (300.0, 30), (3600.0, 60), (math.inf, 300))
"""(shorter than so many seconds, is shown in steps of so many): an estimate is not more exact than that."""


@dataclass(frozen=True, slots=True)
class WorkDone:
    """Counts of the function itself, in the units of its phase (frames in `render`).

    Attributes:
        done: Finished units, by its last event.
        total: Total units, or None if unknown.
        units_per_second: Observed in this phase; None before the first units are finished.
        attempt: 1 for the first attempt; above 1, the job was restarted.
    """

    done: int
    total: int | None
    units_per_second: float | None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """One update of a progress bar.

    Attributes:
        progress: 0 to 100; never less than in the update before, and 100 only in `complete`.
        message: Message for the person who waits.
        status: `processing`; in the last update, `complete` or `error`.
        phase: Name of the current phase, from the plan or the function.
        source: `simulated` (by the plan) or `measured` (by the function's own counts).
        elapsed_seconds: Time since the submission.
        eta_seconds: Remaining seconds, 0 or more; None if no reliable estimate is possible.
        sequence: Strictly increasing within one stream of updates.
        stalled_seconds: Seconds without events, once that is longer than usual; otherwise None.
        work: Counts of the function; None while the progress is simulated.

    Example:
        >>> update = ProgressUpdate(42.7, "Rendering...", "processing", "render", "measured", 9.0, 12.1, 3)
        >>> update.percent, update.to_dict()["status"]
        (42, 'processing')
    """

    progress: float
    message: str
    status: Status
    phase: str
    source: Source
    elapsed_seconds: float
    eta_seconds: float | None
    sequence: int
    stalled_seconds: float | None = None
    work: WorkDone | None = None

    @property
    def percent(self) -> int:
        """`progress` in whole percent, rounded down, so that 100 means complete."""
        return int(self.progress)

    @property
    def ended(self) -> bool:
        """Whether this is the last update."""
        return self.status != "processing"

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready payload: `progress` (whole percent), `message`, `status`, and the other fields by name.

        `progress_exact` is the progress with two decimals, for a bar that moves smoothly; `time_left` is the text of
        the function `time_left`.
        """
        payload: dict[str, object] = {
            "progress": self.percent,
            "message": self.message,
            "status": self.status,
            "progress_exact": rounded_down(self.progress),
            "phase": self.phase,
            "source": self.source,
            "elapsed_seconds": round(self.elapsed_seconds, 2),
            "eta_seconds": None if self.eta_seconds is None else math.ceil(10 * self.eta_seconds) / 10,
            "time_left": time_left(self),
            "sequence": self.sequence,
            "stalled_seconds": None if self.stalled_seconds is None else round(self.stalled_seconds),
        }
        if self.work is not None:
            payload |= {"done": self.work.done, "total": self.work.total, "attempt": self.work.attempt}
        return payload


def rounded_down(progress: float) -> float:
    """Return `progress` with two decimals, never more than it: 99.999 must not read as 100, and 63.82 stays 63.82.

    `int(63.82 * 100) / 100` is 63.81, because the product is slightly below 6382.
    """
    nearest = round(float(progress), 2)
    return nearest if nearest <= progress else round(nearest - 0.01, 2)


def time_left(update: ProgressUpdate) -> str:
    """Return the remaining time as text: `about 40 s left`, or `almost done`; empty if it is unknown, or at the end.

    The steps are 1 s up to 10 s, 5 s up to one minute, 30 s up to five minutes, one minute up to one hour, then five
    minutes.

    Example:
        >>> update = ProgressUpdate(42.7, "Rendering...", "processing", "render", "measured", 9.0, 97.0, 3)
        >>> time_left(update)
        'about 1 min 30 s left'
    """
    seconds = update.eta_seconds
    if seconds is None or update.ended or not math.isfinite(seconds):
        return ""
    if seconds < _ALMOST_SECONDS:
        return "almost done"
    step = next(step for below, step in _STEPS if seconds < below)
    minutes, rest = divmod(step * round(seconds / step), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{count} {unit}" for count, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if count]
    return f"about {' '.join(parts)} left"


def describe(update: ProgressUpdate) -> str:
    """Return `update` as one line for a terminal or a log.

    Example:
        >>> describe(ProgressUpdate(42.7, "Rendering...", "processing", "render", "measured", 9.0, 12.1, 3))
        ' 42 %  Rendering...  about 10 s left'
    """
    parts = [f"{update.percent:3d} %", update.message]
    if update.work is not None and update.work.units_per_second is not None and update.phase == "render":
        parts.append(f"{update.work.units_per_second:.1f} fps")
    if left := time_left(update):
        parts.append(left)
    if update.source == "simulated" and update.status == "processing":
        parts.append("(estimated)")
    return "  ".join(parts)
