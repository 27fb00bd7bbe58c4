"""Convert an exception of a function to the error for its host."""

from __future__ import annotations

import asyncio
import errno
from typing import Final

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

__all__ = ["is_retryable", "to_remote_error"]

_REFUSALS: Final = (
    *(RequestError, InvalidMediaError, InvalidModelError, InvalidKeyError),
    *(ObjectNotFoundError, ObjectExistsError),
)
_NOT_SET_UP: Final = (
    *(ConfigError, MissingDependencyError, FFmpegNotFoundError, ProviderUnavailableError, StorageAccessError),
)
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def to_remote_error(error: BaseException, *, function: str, call_id: str | None) -> RemoteError:
    """Convert an exception of a function to the error for the host; the caller raises it `from error`.

    An error of the input becomes `BadInputError`, an error of the machine's configuration `MisconfiguredError`, and a
    `MemoryError` `OutOfMemoryError`. A cancellation becomes `JobCancelledError`. A `RemoteError` keeps its type. Any
    other error becomes `FunctionError`. The result is `retryable` if the function's error is, or if that error
    reports a full disk.
    """
    if isinstance(error, RemoteError):
        converted = type(error)(error.message, function=function, call_id=call_id)
        converted.retryable = error.retryable
        return converted
    if isinstance(error, asyncio.CancelledError):
        return JobCancelledError("the job was cancelled", function=function, call_id=call_id)
    kind: type[RemoteError] = FunctionError
    if isinstance(error, _REFUSALS):
        kind = BadInputError
    elif isinstance(error, _NOT_SET_UP):
        kind = MisconfiguredError
    elif isinstance(error, MemoryError):
        kind = OutOfMemoryError
    is_own = isinstance(error, ReelModalError)
    converted = kind(str(error) if is_own else f"{type(error).__name__}: {error}", function=function, call_id=call_id)
    converted.retryable = is_retryable(error)
    return converted


def is_retryable(error: BaseException) -> bool:
    """Return whether a retry may succeed after `error`."""
    if isinstance(error, ReelModalError):
        return error.retryable
    return isinstance(error, OSError) and error.errno in _DISK_FULL
