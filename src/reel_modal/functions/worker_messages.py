"""Messages between the host and a worker process, besides progress events; both sides pickle them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reel_modal._segments import Segment
from reel_modal.functions.context import BETWEEN_FRAMES_SECONDS
from reel_modal.settings import Settings

__all__ = ["CLEANING_SECONDS", "END_SECONDS", "Failed", "Returned", "Task"]

CLEANING_SECONDS: Final = 6.0
"""Longest time in which a worker removes its files and processes after an interrupt."""

END_SECONDS: Final = BETWEEN_FRAMES_SECONDS + CLEANING_SECONDS
"""Longest time in which a worker ends itself after its stdin was closed."""


@dataclass(frozen=True, slots=True)
class Task:
    """The task of a worker.

    Attributes:
        module: Module that declares the function.
        function: Name of the function.
        payload: The request's `to_dict()`.
        settings: Settings of the host.
        submitted_at: Unix time of the submission.
        folder: Temporary folder of this job only. The worker creates it; it is removed with its contents.
        processes: Number of further worker processes that render segments of the output at once; 1 starts none.
        part: Frames of the output whose segments are rendered and stored; None renders all of the output.
        traceparent: The host's W3C traceparent; None if the job is not traced.
    """

    module: str
    function: str
    payload: Mapping[str, object]
    settings: Settings
    submitted_at: float
    folder: Path
    processes: int = 1
    part: Segment | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Returned:
    """Result of the body, in JSON types."""

    value: dict[str, object]


@dataclass(frozen=True, slots=True)
class Failed:
    """Error that the body raised.

    Attributes:
        pickled: The error. Its class may be missing in the host, or the error may fail to unpickle.
        message: Text of the error, for that case.
        retryable: Whether a retry may succeed, also for that case.
    """

    pickled: bytes
    message: str
    retryable: bool
