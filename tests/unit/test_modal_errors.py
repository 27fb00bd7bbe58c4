"""Mapping Modal's errors to the library's: by type, or by text if Modal gives no specific type."""

from __future__ import annotations

import asyncio
import errno
import pickle

import modal.exception as theirs
import pytest
from grpclib.exceptions import StreamTerminatedError

from reel_modal.backends.modal._errors import remote_error
from reel_modal.errors import (
    AuthError,
    BadInputError,
    ConfigError,
    FFmpegError,
    FFmpegNotFoundError,
    FFmpegStalledError,
    FunctionError,
    FunctionTimeoutError,
    InvalidKeyError,
    InvalidMediaError,
    JobCancelledError,
    JobNotFoundError,
    JobPreemptedError,
    MisconfiguredError,
    MissingDependencyError,
    NotDeployedError,
    ObjectChangedError,
    ObjectNotFoundError,
    OutOfMemoryError,
    OutputMismatchError,
    ProviderUnavailableError,
    RemoteError,
    RequestError,
    StorageAccessError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
    UnavailableError,
    WorkerCrashedError,
)
from reel_modal.functions.remote_errors import to_remote_error


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (theirs.FunctionTimeoutError("Task hit its timeout of 600s"), FunctionTimeoutError),
        (theirs.OutputExpiredError(), JobNotFoundError),
        (theirs.AuthError("Token validation failed"), AuthError),
        (theirs.PermissionDeniedError("not yours"), AuthError),
        (theirs.NotFoundError("No function"), NotDeployedError),
        (theirs.ConflictError("The app is stopped"), NotDeployedError),
        (theirs.InternalFailure("worker lost"), JobPreemptedError),
        (theirs.ServiceError("unavailable"), UnavailableError),
        (theirs.InternalError("oops"), UnavailableError),
        (theirs.ConnectionError("refused"), UnavailableError),
        (theirs.ResourceExhaustedError("slow down"), UnavailableError),
        (theirs.ClientClosed("closed"), UnavailableError),
        (StreamTerminatedError("connection lost"), UnavailableError),
        (theirs.InvalidError("spawn on a generator"), FunctionError),
        (theirs.ExecutionError("Could not deserialize remote exception"), FunctionError),
        (theirs.RemoteError(""), JobCancelledError),
        (theirs.RemoteError("Input was cancelled by user"), JobCancelledError),
        (theirs.RemoteError("Function call terminated by user"), JobCancelledError),
        (theirs.RemoteError("The worker was preempted"), JobPreemptedError),
        (theirs.RemoteError("Container ran out of memory."), OutOfMemoryError),
        (theirs.RemoteError("Container killed: OOM"), OutOfMemoryError),
        (theirs.RemoteError("Container terminated with SIGKILL."), WorkerCrashedError),
        (theirs.RemoteError("Runner failed with exit code: 137"), WorkerCrashedError),
        (theirs.RemoteError("the container crashed"), WorkerCrashedError),
        (theirs.RemoteError("no zoom in this room"), FunctionError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{type(value).__name__} {value}",
)
def test_remote_error_maps_each_error_of_modal(error: Exception, ours: type[RemoteError]) -> None:
    mapped = remote_error(error, function="reels", call_id=None)
    assert type(mapped) is ours
    assert str(error) in mapped.message
    assert mapped.message
    assert (mapped.function, mapped.call_id) == ("reels", None)


def test_remote_error_missing_call_is_job_not_found() -> None:
    mapped = remote_error(theirs.NotFoundError("No FunctionCall with ID 'fc-1'"), function="reels", call_id="fc-1")
    assert type(mapped) is JobNotFoundError
    assert mapped.call_id == "fc-1"


def test_remote_error_auth_and_missing_app_name_their_cure() -> None:
    refused = remote_error(theirs.AuthError("no"), function="reels", call_id=None)
    missing = remote_error(theirs.NotFoundError("no"), function="reels", call_id=None)
    assert "MODAL_TOKEN_ID" in refused.message
    assert "reel_modal.deploy" in missing.message


@pytest.mark.parametrize(
    ("raised", "ours"),
    [
        (RequestError("regions", "are too many"), BadInputError),
        (InvalidMediaError("it is no video"), BadInputError),
        (ObjectNotFoundError("object 'in.mp4' not found"), BadInputError),
        (InvalidKeyError("'../x' leads out"), BadInputError),
        (ConfigError("no store is set"), MisconfiguredError),
        (MissingDependencyError("obstore cannot be imported"), MisconfiguredError),
        (FFmpegNotFoundError("there is no ffmpeg"), MisconfiguredError),
        (ProviderUnavailableError("there is no GPU"), MisconfiguredError),
        (StorageAccessError("the secret key is wrong"), MisconfiguredError),
        (StorageError("the object cannot be read"), FunctionError),
        (FFmpegError("ffmpeg failed", exit_status=1), FunctionError),
        (ZeroDivisionError("division by zero"), FunctionError),
        (MemoryError("unable to allocate 40 GiB"), OutOfMemoryError),
        # These types could also mean a network error, but Modal wraps network errors.
        (TimeoutError("the store is slow"), FunctionError),
        (ConnectionResetError("the store is gone"), FunctionError),
        (asyncio.CancelledError(), JobCancelledError),
        (JobPreemptedError("inner", function="other"), JobPreemptedError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_function_error_is_mapped_equally_for_each_backend(raised: BaseException, ours: type[RemoteError]) -> None:
    for mapped in (
        to_remote_error(raised, function="render_overlay", call_id="c"),
        remote_error(raised, function="render_overlay", call_id="c"),
    ):
        assert type(mapped) is ours
        assert (mapped.function, mapped.call_id) == ("render_overlay", "c")
    message = raised.message if isinstance(raised, RemoteError) else str(raised)
    assert message in mapped.message


@pytest.mark.parametrize(
    ("raised", "retryable"),
    [
        (StorageUnavailableError("the store does not answer"), True),
        (StorageFullError("the bucket is full"), True),
        (ObjectChangedError("another object is there"), True),
        (FFmpegStalledError("no data moved for 60 s"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (JobPreemptedError("inner", function="other"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (StorageAccessError("the secret key is wrong"), False),
        (ConfigError("no store is set"), False),
        (InvalidMediaError("it is no video"), False),
        (OutputMismatchError("another number of frames"), False),
        (FFmpegError("ffmpeg failed", exit_status=1), False),
        (MemoryError("unable to allocate 40 GiB"), False),
        (ZeroDivisionError("division by zero"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_mapped_error_is_retryable_if_its_cause_is(raised: BaseException, retryable: bool) -> None:
    for mapped in (
        to_remote_error(raised, function="f", call_id=None),
        remote_error(pickle.loads(pickle.dumps(raised)), function="f", call_id=None),  # noqa: S301
    ):
        assert mapped.retryable is retryable
        assert pickle.loads(pickle.dumps(mapped)).retryable is retryable  # noqa: S301


def test_mapped_config_error_is_a_config_error() -> None:
    mapped = to_remote_error(ConfigError("no store is set"), function="f", call_id=None)
    assert isinstance(mapped, ConfigError)
    assert "video" not in mapped.user_message.lower().replace("video rendering", "")


def test_mapped_unknown_error_names_its_type() -> None:
    assert to_remote_error(KeyError("a"), function="f", call_id=None).message == "KeyError: 'a'"
    assert to_remote_error(InvalidMediaError("no video"), function="f", call_id=None).message == "no video"
