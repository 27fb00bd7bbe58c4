"""The last lines of a job's log, without known secrets."""

from __future__ import annotations

import os
from typing import Final

from reel_modal._support.redaction import Redactor
from reel_modal.backends.base import Backend
from reel_modal.errors import (
    ConfigError,
    FunctionError,
    FunctionTimeoutError,
    JobPreemptedError,
    JobStalledError,
    MisconfiguredError,
    RemoteError,
    WorkerCrashedError,
)

__all__ = ["EXPLAINED_BY_LOG", "lacks_log", "read_log"]

EXPLAINED_BY_LOG: Final = (
    FunctionError,
    FunctionTimeoutError,
    JobPreemptedError,
    JobStalledError,
    MisconfiguredError,
    WorkerCrashedError,
)
"""Errors that get the last lines of the job's log; the others explain themselves, or say nothing about the job."""

_MOST_LINES: Final = 1000
_LONGEST_LINE: Final = 1000


def lacks_log(error: RemoteError) -> bool:
    """Whether lines of the log are still missing in `error`; a deadline that this host set needs none."""
    deadline_of_host = isinstance(error, FunctionTimeoutError) and error.__cause__ is None
    return not error.log and not deadline_of_host


async def read_log(backend: Backend, call_id: str, lines: int) -> tuple[str, ...]:
    """See `Job.logs`."""
    if not 1 <= lines <= _MOST_LINES:
        raise ConfigError(f"lines={lines} must be 1 to {_MOST_LINES}")
    redact = Redactor(os.environ)
    return tuple(redact(line)[:_LONGEST_LINE] for line in await backend.logs(call_id, lines))
