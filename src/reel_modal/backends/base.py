"""What every place that runs jobs can do, and how a failure there becomes one of our errors.

It must know neither Modal nor worker processes.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from reel_modal.errors import (
    BadInputError,
    ConfigError,
    FFmpegNotFoundError,
    FunctionError,
    InvalidKeyError,
    InvalidMediaError,
    InvalidModelError,
    JobCancelledError,
    MisconfiguredError,
    MissingDependencyError,
    ObjectExistsError,
    ObjectNotFoundError,
    OutOfMemoryError,
    ProviderUnavailableError,
    ReelModalError,
    RemoteError,
    RequestError,
    StorageAccessError,
)
from reel_modal.progress.clocks import Clock
from reel_modal.progress.events import ProgressEvent

__all__ = ["CALL_ID", "Backend", "Finished", "JobStatus", "failure_of", "is_retryable"]

JobStatus: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled", "unknown"]
"""`unknown` says that nobody could be asked, and is never an end."""

_REFUSALS: Final = (
    *(RequestError, InvalidMediaError, InvalidModelError, InvalidKeyError),
    *(ObjectNotFoundError, ObjectExistsError),
)
_NOT_SET_UP: Final = (
    *(ConfigError, MissingDependencyError, FFmpegNotFoundError, ProviderUnavailableError, StorageAccessError),
)
CALL_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
"""What the ids of every backend are made of."""

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that ended well.

    Attributes:
        value: What the function returned, as it came over the wire.
        queued_seconds: How long it waited for its turn before it was started; 0 where nobody knows.
    """

    value: object
    queued_seconds: float = 0.0


class Backend(Protocol):
    """A place that runs functions. Every method may be called from any task, thread and event loop.

    All failures are `RemoteError`s; `UnavailableError` means that nothing is known of the job, not that it failed,
    and its `JobNotFoundError` that nothing ever will be.
    """

    @property
    def name(self) -> str:
        """The first part of every job's id, such as `modal`."""
        ...

    @property
    def clock(self) -> Clock:
        """Where the time of its waits comes from: the system's clock, but for a backend of tests."""
        ...

    def is_call_id(self, call_id: str) -> bool:
        """Return whether `call_id` has the form of this backend's ids; nothing is asked."""
        ...

    async def hydrate(self, function: str) -> None:
        """Return when `function` is known to be there.

        Raises:
            RemoteError: It is not, or nobody could be asked.
        """
        ...

    async def submit(self, function: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """Start one call and return its id.

        Raises:
            RemoteError: It was not started, as far as can be known.

        Cancellation: may leave a call behind; `RemoteFunction` shields it for that reason.
        """
        ...

    async def wait(self, call_id: str, timeout_seconds: float) -> Finished | None:
        """Return the outcome, or None when there is none after `timeout_seconds`; 0 only looks.

        Raises:
            RemoteError: How the job ended, or that nobody could be asked.

        Cancellation: ends the wait; the job goes on.
        """
        ...

    async def cancel(self, call_id: str) -> None:
        """End the job and what it started; of one that has ended, nothing changes.

        Raises:
            RemoteError: Nobody could be asked.
        """
        ...

    async def events_so_far(self, call_id: str) -> int:
        """Return how many events the job has reported; above 0, it runs or has run."""
        ...

    def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        """Yield every event from the first on, then new ones; end with the job. Any number may listen.

        Raises:
            RemoteError: Nobody could be asked.

        Cancellation: ends this listener alone.
        """
        ...

    async def close(self) -> None:
        """Give back what the backend holds on this machine; jobs that run here are ended."""
        ...


def failure_of(error: BaseException, *, function: str, call_id: str | None) -> RemoteError:
    """Return what a function raised as the error that the host gets; the caller raises it `from error`.

    An error that names the input is `BadInputError`, one that names the machine's setup `MisconfiguredError`, a
    `MemoryError` is `OutOfMemoryError`; one that the function raised as a `RemoteError` keeps its kind; everything
    else is `FunctionError`. It is `retryable` if the function's own error is, or if that says that a disk is full.
    """
    if isinstance(error, RemoteError):
        made = type(error)(error.message, function=function, call_id=call_id)
        made.retryable = error.retryable
        return made
    if isinstance(error, asyncio.CancelledError):
        return JobCancelledError("the job was cancelled", function=function, call_id=call_id)
    kind: type[RemoteError] = FunctionError
    if isinstance(error, _REFUSALS):
        kind = BadInputError
    elif isinstance(error, _NOT_SET_UP):
        kind = MisconfiguredError
    elif isinstance(error, MemoryError):
        kind = OutOfMemoryError
    ours = isinstance(error, ReelModalError)
    made = kind(str(error) if ours else f"{type(error).__name__}: {error}", function=function, call_id=call_id)
    made.retryable = is_retryable(error)
    return made


def is_retryable(error: BaseException) -> bool:
    """Return whether another try of what raised `error` may succeed."""
    if isinstance(error, ReelModalError):
        return error.retryable
    return isinstance(error, OSError) and error.errno in _DISK_FULL
