"""All errors that reel_modal raises on purpose.

::

    ReelModalError
    ├── ConfigError                      (also a ValueError)   a setting or environment variable is not valid
    ├── RequestError                     (also a ValueError)   a request is not valid; names the field
    ├── MissingDependencyError           (also an ImportError) a library cannot be loaded; names the fix
    ├── MediaError
    │   ├── InvalidMediaError            the file is not an accepted video: unreadable, hostile, too large
    │   ├── OutputMismatchError          the output does not match the request
    │   └── SpliceError                  unchanged parts cannot be copied; functions then render the whole clip
    ├── FrameError                       (also a ValueError)   a frame has the wrong shape or layout
    │   └── FrameTypeError               (also a TypeError)    a frame has the wrong element type
    ├── FFmpegError                      ffmpeg failed: command, exit status, frame, end of stderr
    │   ├── FFmpegNotFoundError          ffmpeg was not found
    │   │   └── FFmpegUnsupportedError   ffmpeg is too old or lacks a required feature
    │   ├── EncoderUnavailableError      the encoder does not start on this machine
    │   └── FFmpegStalledError           (also a TimeoutError) ffmpeg read and wrote no data for too long
    ├── InvalidModelError                not an ONNX model, wrong SHA-256, or not a suitable upscaler
    ├── ProviderUnavailableError         the requested device cannot run the network
    ├── StorageError                     an object could not be read or published
    │   ├── InvalidKeyError              (also a ValueError)   a key could leave its root
    │   ├── ObjectNotFoundError          (also a FileNotFoundError)
    │   ├── ObjectExistsError            (also a FileExistsError) the object exists, and replacing was not allowed
    │   ├── ObjectChangedError           the object was replaced while it was read
    │   ├── StorageAccessError           access denied (credentials, signature, permissions), or no such bucket
    │   ├── StorageFullError             no space left, in the store or on this machine
    │   └── StorageUnavailableError      the store is unreachable or too slow
    ├── DeploymentError                  a deployment failed, or its outcome is unknown; names the next step
    ├── JobConflictError                 the same job_id with another request
    ├── JobRefusedError                  an estimate exceeds a limit; the job was not submitted
    │   ├── JobTooLongError              the limit is the timeout of its function
    │   └── OverBudgetError              the limit is the budget
    ├── BlockingCallError                (also a RuntimeError) a blocking call inside a running event loop
    └── RemoteError                      a job or the connection to it failed; kind, function, call_id, retryable
        ├── NotDeployedError             no such app, function or environment
        ├── DeploymentDriftError         the deployment is not the one that this host would make
        ├── AuthError                    the token is missing or refused
        ├── FunctionTimeoutError         the function exceeded its timeout
        ├── WaitTimeoutError             (also a TimeoutError) the caller's wait timed out; the job continues
        ├── JobStalledError              no events for longer than the stall limit
        ├── JobCancelledError            the job was cancelled
        ├── JobPreemptedError            the machine was preempted
        ├── WorkerCrashedError           the process that ran the job died
        │   └── OutOfMemoryError         the job exceeded its memory limit
        ├── BadInputError                the function refused its input; the cause is one of the errors above
        ├── MisconfiguredError           (also a ConfigError)  the machine that ran the job is not set up for it
        ├── FunctionError                the function failed in another way; `retryable` if a retry may succeed
        └── UnavailableError             the backend is unreachable; the job's state is unknown
            └── JobNotFoundError         the job is unknown, or its result has expired
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "AuthError",
    "BadInputError",
    "BlockingCallError",
    "ConfigError",
    "DeploymentDriftError",
    "DeploymentError",
    "EncoderUnavailableError",
    "FFmpegError",
    "FFmpegNotFoundError",
    "FFmpegStalledError",
    "FFmpegUnsupportedError",
    "FrameError",
    "FrameTypeError",
    "FunctionError",
    "FunctionTimeoutError",
    "InvalidKeyError",
    "InvalidMediaError",
    "InvalidModelError",
    "JobCancelledError",
    "JobConflictError",
    "JobNotFoundError",
    "JobPreemptedError",
    "JobRefusedError",
    "JobStalledError",
    "JobTooLongError",
    "MediaError",
    "MisconfiguredError",
    "MissingDependencyError",
    "NotDeployedError",
    "ObjectChangedError",
    "ObjectExistsError",
    "ObjectNotFoundError",
    "OutOfMemoryError",
    "OutputMismatchError",
    "OverBudgetError",
    "ProviderUnavailableError",
    "ReelModalError",
    "RemoteError",
    "RequestError",
    "SpliceError",
    "StorageAccessError",
    "StorageError",
    "StorageFullError",
    "StorageUnavailableError",
    "UnavailableError",
    "WaitTimeoutError",
    "WorkerCrashedError",
]


class ReelModalError(Exception):
    """Base class of all errors of this library.

    Attributes:
        retryable: Whether a retry may succeed, for example after the store was unreachable.
    """

    retryable: bool = False


class ConfigError(ReelModalError, ValueError):
    """A setting, argument or environment variable is not valid."""


class RequestError(ReelModalError, ValueError):
    """A request is not valid.

    Attributes:
        path: Path of the field, such as ``regions[2].keyframes[0].radius_x``; empty for the whole request.
        problem: The problem and the valid form.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class MissingDependencyError(ReelModalError, ImportError):
    """A library that this call needs cannot be loaded on this machine; the message names the fix."""


class MediaError(ReelModalError):
    """Base class of errors about media files."""


class InvalidMediaError(MediaError):
    """The file is not an accepted video: unreadable, without a video stream, hostile, or above the limits."""


class OutputMismatchError(MediaError):
    """The output does not match the request: another number of frames, another size, another duration."""


class SpliceError(MediaError):
    """Unchanged parts of a video cannot be spliced with rendered ones, or the spliced file is wrong.

    The functions of this library then render the whole clip and give the reason in the result.
    """


class FrameError(ReelModalError, ValueError):
    """A frame is not valid for its receiver: its shape, memory layout, size or time is not the expected one."""


class FrameTypeError(FrameError, TypeError):
    """A frame is not an array of the pixel format's element type."""


class FFmpegError(ReelModalError):
    """ffmpeg failed.

    Attributes:
        command: The command line as a list of arguments; empty if ffmpeg was not started.
        exit_status: ffmpeg's exit status, or the negative number of the signal that ended it; None if it did not run.
        retryable: True if an external signal ended ffmpeg, or if the disk was full.
        frame_index: Number of frames processed before the failure, which is the index of the next one.
        stderr_tail: End of ffmpeg's stderr.
    """

    def __init__(
        self,
        message: str,
        *,
        command: Sequence[str] = (),
        exit_status: int | None = None,
        frame_index: int | None = None,
        stderr_tail: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.command: tuple[str, ...] = tuple(command)
        self.exit_status = exit_status
        self.frame_index = frame_index
        self.stderr_tail = stderr_tail

    def __reduce__(self) -> tuple[object, ...]:
        # The keyword-only attributes are pickled as state, so that another process gets all of them.
        return (type(self), (self.message,), self.__dict__)

    def __str__(self) -> str:
        lines = [self.message]
        if self.frame_index is not None:
            lines.append(f"  at frame: {self.frame_index}")
        if self.exit_status is not None:
            lines.append(f"  exit status: {self.exit_status}")
        if self.command:
            lines.append(f"  command: {' '.join(self.command)}")
        if self.stderr_tail:
            lines.append("  ffmpeg's last stderr lines:")
            lines.extend(f"    {line}" for line in self.stderr_tail.splitlines())
        return "\n".join(lines)


class FFmpegNotFoundError(FFmpegError):
    """ffmpeg was not found, or the configured one does not run."""


class FFmpegUnsupportedError(FFmpegNotFoundError):
    """The ffmpeg that was found is too old or lacks a required feature."""


class EncoderUnavailableError(FFmpegError):
    """The encoder does not start on this machine with these settings."""


class FFmpegStalledError(FFmpegError, TimeoutError):
    """ffmpeg read and wrote no data for longer than the stall limit and was killed."""

    retryable = True


class InvalidModelError(ReelModalError):
    """A network cannot be used: not an ONNX model, wrong SHA-256, or not suitable for the request."""


class ProviderUnavailableError(ReelModalError):
    """The requested device cannot run the network, and a fallback to the CPU was not allowed."""


class StorageError(ReelModalError):
    """An object could not be read or published."""


class InvalidKeyError(StorageError, ValueError):
    """A key is not a plain relative path, so it could leave the root of its store."""


class ObjectNotFoundError(StorageError, FileNotFoundError):
    """No object exists under this key."""


class ObjectExistsError(StorageError, FileExistsError):
    """Another object exists under this key, and replacing it was not allowed."""


class ObjectChangedError(StorageError):
    """An object was replaced while it was read; the two versions were not mixed."""

    retryable = True


class StorageAccessError(StorageError):
    """The store denies access (credentials, signature, permissions), or the bucket does not exist."""


class StorageFullError(StorageError):
    """No space is left in the store or on this machine; the message says which."""

    retryable = True


class StorageUnavailableError(StorageError):
    """The store is unreachable or too slow, after several attempts; a later retry may succeed."""

    retryable = True


class DeploymentError(ReelModalError):
    """A deployment failed, or its outcome is unknown.

    Attributes:
        kind: Short, stable identifier of the reason, for scripts.
        message: Description of the failure.
        cure: The next step for the user.
    """

    def __init__(self, kind: str, message: str, cure: str) -> None:
        super().__init__(kind, message, cure)
        self.kind = kind
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message}\nnext: {self.cure}"


class JobConflictError(ReelModalError):
    """A job id is already in use for another request."""


class JobRefusedError(ReelModalError):
    """A job was not submitted because its estimate exceeds a limit; the message gives the reason and the remedy."""


class JobTooLongError(JobRefusedError):
    """A job is expected to need more than 80 % of its function's timeout, or not to meet its deadline."""


class OverBudgetError(JobRefusedError):
    """A job is expected to cost more than the budget, or than its `Parallel` allows."""


class BlockingCallError(ReelModalError, RuntimeError):
    """A blocking call was made in a thread with a running event loop."""


class RemoteError(ReelModalError):
    """A job failed, or the connection to its backend did.

    Attributes:
        function: The function's name.
        call_id: Id of the call on the backend; None if the call was not made yet.
        kind: Short, stable identifier of the failure, for logs and metrics.
        retryable: Whether the same request may succeed when it is submitted again. If the function raised an error of
            this library, the value is taken from that error.
        user_message: A sentence that a host can show to its own user.
        log: Last lines that the machine wrote during the job, at most 20, without known secrets. If they could not be
            read, one line in square brackets says why. Empty if the job wrote none, or if the error explains itself.
    """

    kind: ClassVar[str] = "remote"
    user_message: ClassVar[str] = "The video could not be rendered."

    def __init__(self, message: str, *, function: str, call_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.function = function
        self.call_id = call_id
        self.log: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        # The state holds attributes that were added later: notes, and those of a subclass.
        return (_rebuild_remote_error, (type(self), self.message, self.function, self.call_id), self.__dict__)

    def __str__(self) -> str:
        call = f" (call {self.call_id})" if self.call_id else ""
        log = ["  last lines of its log:", *(f"    {line}" for line in self.log)] if self.log else []
        return "\n".join([f"{self.function}{call}: {self.message}", *log])


def _rebuild_remote_error(kind: type[RemoteError], message: str, function: str, call_id: str | None) -> RemoteError:
    return kind(message, function=function, call_id=call_id)


class NotDeployedError(RemoteError):
    """The app, function or environment is not deployed."""

    kind = "not_deployed"
    user_message = "Video rendering is not set up on the server yet."


class DeploymentDriftError(RemoteError):
    """The deployment has another version or other resources than this host would deploy.

    Attributes:
        differences: The differences, one line each.
    """

    kind = "drift"
    user_message = "The server and its video renderer have different versions."

    def __init__(
        self, message: str, *, function: str, call_id: str | None = None, differences: Sequence[str] = ()
    ) -> None:
        super().__init__(message, function=function, call_id=call_id)
        self.differences: tuple[str, ...] = tuple(differences)

    def __str__(self) -> str:
        return "\n  ".join([super().__str__(), *self.differences])


class AuthError(RemoteError):
    """The token for the service is missing or refused."""

    kind = "auth"
    user_message = "The server has no access to its video renderer at the moment."


class FunctionTimeoutError(RemoteError):
    """The function exceeded its timeout."""

    kind = "function_timeout"
    user_message = "The video took too long to render. A shorter clip will work."


class WaitTimeoutError(RemoteError, TimeoutError):
    """The caller's wait timed out; the job continues and can be awaited again."""

    kind = "wait_timeout"
    retryable = True
    user_message = "The video is still being rendered."


class JobStalledError(RemoteError):
    """The job sent no events for longer than the stall limit."""

    kind = "stalled"
    retryable = True
    user_message = "The renderer stopped responding. Please try again."


class JobCancelledError(RemoteError):
    """The job was cancelled."""

    kind = "cancelled"
    user_message = "The rendering was cancelled."


class JobPreemptedError(RemoteError):
    """The machine was preempted while the job ran."""

    kind = "preempted"
    retryable = True
    user_message = "The renderer was interrupted. Please try again."


class WorkerCrashedError(RemoteError):
    """The process that ran the job died, for example by a signal."""

    kind = "crashed"
    retryable = True
    user_message = "The renderer crashed. Please try again."


class OutOfMemoryError(WorkerCrashedError):
    """The job exceeded its memory limit; a retry with the same memory fails too.

    On this machine, a process that the system kills for lack of memory appears as `WorkerCrashedError` with SIGKILL,
    because the system does not report the reason.
    """

    kind = "out_of_memory"
    retryable = False
    user_message = "The video needs more memory than the renderer has. A shorter or smaller one will work."


class BadInputError(RemoteError):
    """The function refused its input; a retry fails too."""

    kind = "bad_input"
    user_message = "This video or these settings cannot be rendered."


class MisconfiguredError(RemoteError, ConfigError):
    """The machine that ran the job is not set up for it: a setting, a secret or a library; the request may be fine.

    A retry fails until that is corrected. `__cause__` is the error that the function raised.
    """

    kind = "misconfigured"
    user_message = "Video rendering is not set up correctly on the server."


class FunctionError(RemoteError):
    """The function failed for a reason other than its input; `retryable` says whether a retry may succeed."""

    kind = "function_error"


class UnavailableError(RemoteError):
    """The backend is unreachable; the job's state is unknown, and it may still be running."""

    kind = "unavailable"
    retryable = True
    user_message = "The renderer is unreachable at the moment. Please try again later."


class JobNotFoundError(UnavailableError):
    """The job is unknown: its id is wrong, the process that ran it is gone, or its result has expired.

    Waiting does not help. If the job published its output, the output is still in the store.
    """

    kind = "job_not_found"
    user_message = "This rendering was not found. Please try again."
