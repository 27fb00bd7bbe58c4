"""What modal raises, as one of our errors: by type, and by its text only where modal gives nothing else.

Imported where modal has been loaded already.
"""

from __future__ import annotations

import re

import modal.exception as theirs
from grpclib.exceptions import StreamTerminatedError

from reel_modal.backends.base import failure_of
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

__all__ = ["remote_error"]

# In this order: some are subclasses of others.
_KINDS: tuple[tuple[tuple[type[BaseException], ...], type[RemoteError], str], ...] = (
    ((theirs.FunctionTimeoutError,), FunctionTimeoutError, "the function used up its time-out"),
    ((theirs.OutputExpiredError,), JobNotFoundError, "the result has expired on Modal; look for the output itself"),
    (
        (theirs.AuthError, theirs.PermissionDeniedError),
        AuthError,
        "Modal refused the token; set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or run `modal token new`",
    ),
    (
        (theirs.NotFoundError, theirs.ConflictError),
        NotDeployedError,
        "Modal has no such function; deploy it with `python -m reel_modal.deploy`",
    ),
    ((theirs.InternalFailure,), JobPreemptedError, "the machine was taken away or failed"),
    (
        (
            theirs.ServiceError,
            theirs.InternalError,
            theirs.ConnectionError,
            theirs.ResourceExhaustedError,
            theirs.ClientClosed,
            StreamTerminatedError,
        ),
        UnavailableError,
        "Modal does not answer",
    ),
)
# A result that Modal itself made, such as of a container that died, comes as a bare RemoteError with a text; that of
# a call that was cancelled has none.
_WORDS: tuple[tuple[re.Pattern[str], type[RemoteError]], ...] = (
    (re.compile(r"^$|cancel|terminated by user", re.IGNORECASE), JobCancelledError),
    (re.compile(r"preempt", re.IGNORECASE), JobPreemptedError),
    (re.compile(r"out of memory|\boom\b", re.IGNORECASE), OutOfMemoryError),
    (re.compile(r"sigkill|\bkilled\b|\bcrash|\bexit code\b|\bexited\b", re.IGNORECASE), WorkerCrashedError),
)


def remote_error(error: BaseException, *, function: str, call_id: str | None) -> RemoteError:
    """Return `error`, which modal or the function raised, as ours; the caller raises it `from error`."""
    if isinstance(error, theirs.NotFoundError) and call_id is not None:
        return JobNotFoundError(_said("Modal has no such call", error), function=function, call_id=call_id)
    for kinds, ours, sentence in _KINDS:
        if isinstance(error, kinds):
            return ours(_said(sentence, error), function=function, call_id=call_id)
    if isinstance(error, theirs.RemoteError):
        for words, ours in _WORDS:
            if words.search(str(error)):
                return ours(str(error) or "the job was cancelled", function=function, call_id=call_id)
        return FunctionError(str(error), function=function, call_id=call_id)
    if isinstance(error, theirs.Error):
        return FunctionError(f"{type(error).__name__}: {error}", function=function, call_id=call_id)
    return failure_of(error, function=function, call_id=call_id)


def _said(sentence: str, error: BaseException) -> str:
    return f"{sentence}: {error}" if str(error) else sentence
