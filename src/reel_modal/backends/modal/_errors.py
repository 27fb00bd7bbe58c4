"""Map modal's exceptions to RemoteError: by type, and by text only if the type is not specific.

This module imports modal, so it is imported only after modal was loaded.
"""

from __future__ import annotations

import re

import modal.exception as modal_errors

from reel_modal._support.modal_outages import OUTAGES
from reel_modal.errors import (
    AuthError,
    FunctionError,
    FunctionTimeoutError,
    JobCancelledError,
    JobNotFoundError,
    JobPreemptedError,
    NotDeployedError,
    OutOfMemoryError,
    RemoteError,
    UnavailableError,
    WorkerCrashedError,
)
from reel_modal.functions.remote_errors import to_remote_error

__all__ = ["remote_error"]

# The order matters: some types are subclasses of others.
_KINDS: tuple[tuple[tuple[type[BaseException], ...], type[RemoteError], str], ...] = (
    ((modal_errors.FunctionTimeoutError,), FunctionTimeoutError, "the function exceeded its timeout"),
    (
        (modal_errors.OutputExpiredError,),
        JobNotFoundError,
        "the result has expired on Modal; check for the output itself",
    ),
    (
        (modal_errors.AuthError, modal_errors.PermissionDeniedError),
        AuthError,
        "Modal refused the token; set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal token new`",
    ),
    (
        (modal_errors.NotFoundError, modal_errors.ConflictError),
        NotDeployedError,
        "function not found on Modal; deploy it with `python -m reel_modal.deploy`",
    ),
    ((modal_errors.InternalFailure,), JobPreemptedError, "the machine was preempted or failed"),
    (OUTAGES, UnavailableError, "Modal is unreachable"),
)
# A result that Modal itself creates, such as that of a crashed container, is a bare RemoteError with a text. The
# text of a cancelled call is empty.
_PATTERNS: tuple[tuple[re.Pattern[str], type[RemoteError]], ...] = (
    (re.compile(r"^$|cancel|terminated by user", re.IGNORECASE), JobCancelledError),
    (re.compile(r"preempt", re.IGNORECASE), JobPreemptedError),
    (re.compile(r"out of memory|\boom\b", re.IGNORECASE), OutOfMemoryError),
    (re.compile(r"sigkill|\bkilled\b|\bcrash|\bexit code\b|\bexited\b", re.IGNORECASE), WorkerCrashedError),
)


def remote_error(error: BaseException, *, function: str, call_id: str | None) -> RemoteError:
    """Return the RemoteError for `error`, which modal or the function raised; the caller raises it `from error`."""
    if isinstance(error, modal_errors.NotFoundError) and call_id is not None:
        return JobNotFoundError(_with_detail("call not found on Modal", error), function=function, call_id=call_id)
    for kinds, error_type, sentence in _KINDS:
        if isinstance(error, kinds):
            return error_type(_with_detail(sentence, error), function=function, call_id=call_id)
    if isinstance(error, modal_errors.RemoteError):
        for pattern, error_type in _PATTERNS:
            if pattern.search(str(error)):
                return error_type(str(error) or "the job was cancelled", function=function, call_id=call_id)
        return FunctionError(str(error), function=function, call_id=call_id)
    if isinstance(error, modal_errors.Error):
        return FunctionError(f"{type(error).__name__}: {error}", function=function, call_id=call_id)
    return to_remote_error(error, function=function, call_id=call_id)


def _with_detail(sentence: str, error: BaseException) -> str:
    return f"{sentence}: {error}" if str(error) else sentence
