"""Progress updates that a host displays: one immutable value per update, with the payload for the browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["ProgressUpdate", "Source", "Status", "WorkDone", "describe", "rounded_down"]

Status: TypeAlias = Literal["processing", "complete", "error"]
Source: TypeAlias = Literal["simulated", "measured"]


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

        `progress_exact` is the progress with two decimals, for a bar that moves smoothly.
        """
        payload: dict[str, object] = {
            "progress": self.percent,
            "message": self.message,
            "status": self.status,
            "progress_exact": rounded_down(self.progress),
            "phase": self.phase,
            "source": self.source,
            "elapsed_seconds": round(self.elapsed_seconds, 2),
            "eta_seconds": None if self.eta_seconds is None else round(self.eta_seconds, 1),
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


def describe(update: ProgressUpdate) -> str:
    """Return `update` as one line for a terminal or a log.

    Example:
        >>> describe(ProgressUpdate(42.7, "Rendering...", "processing", "render", "measured", 9.0, 12.1, 3))
        ' 42 %  Rendering...  12 s left'
    """
    parts = [f"{update.percent:3d} %", update.message]
    if update.work is not None and update.work.units_per_second is not None and update.phase == "render":
        parts.append(f"{update.work.units_per_second:.1f} fps")
    if update.status == "processing" and update.eta_seconds is not None:
        parts.append(f"{update.eta_seconds:.0f} s left")
    if update.source == "simulated" and update.status == "processing":
        parts.append("(estimated)")
    return "  ".join(parts)
