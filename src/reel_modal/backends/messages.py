"""What the host and a worker process say to each other: events, and these.

It must hold no behaviour: both sides pickle it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reel_modal.config import Settings

__all__ = ["Failed", "Returned", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is told.

    Attributes:
        function: The body's name.
        payload: The request's `to_dict()`.
        settings: Of the host.
        submitted_at: Unix time of the submission.
        folder: The job's own; the worker makes it, and it is removed with all that is in it.
    """

    function: str
    payload: Mapping[str, object]
    settings: Settings
    submitted_at: float
    folder: Path


@dataclass(frozen=True, slots=True)
class Returned:
    """The body's result, as JSON holds it."""

    value: dict[str, object]


@dataclass(frozen=True, slots=True)
class Failed:
    """What the body raised.

    Attributes:
        pickled: The error; its class may not be there in the host, or may not come back from a pickle.
        said: The error in words, for that case.
        retryable: Whether another try may succeed, for that case as well.
    """

    pickled: bytes
    said: str
    retryable: bool
