"""What a running function says of its own work; the only part of progress that a function needs.

It must not know where a job runs; a backend brings the events.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ProgressEvent"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """What a running function says of its own work.

    Attributes:
        phase: `fetch`, `render`, `verify` or `publish`.
        done: Units of the phase that are finished: frames in `render`, bytes in `fetch` and `publish`.
        total: Units in all, or None where nobody can know.
        elapsed_seconds: Since the function's body began.
        sequence: Strictly up within an attempt.
        attempt: 1 for the first try of the job.
    """

    phase: str
    done: int
    total: int | None
    elapsed_seconds: float
    sequence: int
    attempt: int = 1
