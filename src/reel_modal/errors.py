"""Every error that reel_modal raises on purpose; it must not know any other module of the package.

::

    ReelModalError
    ├── ConfigError                      (also a ValueError)   a setting or environment variable is wrong
    ├── RequestError                     (also a ValueError)   a request is wrong; names the path in it
    ├── MissingDependencyError           (also an ImportError) a library does not load here; names the cure
    ├── MediaError
    │   ├── InvalidMediaError            the file is no video that we accept: unreadable, hostile, too large
    │   ├── OutputMismatchError          what was encoded is not what was asked for
    │   └── SpliceError                  its unchanged parts cannot be copied; functions then render all of it
    ├── FrameError                       (also a ValueError)   a frame of another shape or layout
    │   └── FrameTypeError               (also a TypeError)    a frame that is not a uint8 array
    ├── FFmpegError                      ffmpeg failed: command, exit status, frame and the tail of its words
    │   ├── FFmpegNotFoundError          no ffmpeg at all
    │   │   └── FFmpegUnsupportedError   the ffmpeg that was found is too old, or built without what is needed
    │   ├── EncoderUnavailableError      this encoder does not start on this machine
    │   └── FFmpegStalledError           (also a TimeoutError) ffmpeg took or gave nothing for too long
    ├── InvalidModelError                a network's file is none, not the one that was meant, or of no use here
    ├── ProviderUnavailableError         the device that was asked for cannot run the network
    ├── StorageError                     an object could not be read or put in place
    │   ├── InvalidKeyError              (also a ValueError)   a key that could leave its root
    │   ├── ObjectNotFoundError          (also a FileNotFoundError)
    │   ├── ObjectExistsError            (also a FileExistsError) there is another one, which was not to be replaced
    │   ├── ObjectChangedError           another one was put in its place while it was read
    │   ├── StorageAccessError           the store refuses: credentials, signature, rights, no such bucket
    │   ├── StorageFullError             no room, in the store or on this machine
    │   └── StorageUnavailableError      the store does not answer, or too slowly
    ├── DeploymentError                  a deployment was not made; says what to do next
    ├── JobConflictError                 the same job_id with another request
    ├── JobRefusedError                  an estimate says that a job is too much; it was not submitted
    │   ├── JobTooLongError              for the time-out of its function
    │   └── OverBudgetError              for the budget
    ├── BlockingCallError                (also a RuntimeError) a blocking call inside a running event loop
    └── RemoteError                      a job failed where it ran; kind, function, call_id, retryable
        ├── NotDeployedError             no such app, function or environment
        ├── DeploymentDriftError         what is deployed is not what this host knows
        ├── AuthError                    no token, or one that is refused
        ├── FunctionTimeoutError         the function used up its own time-out
        ├── WaitTimeoutError             (also a TimeoutError) the caller's wait ended; the job goes on
        ├── JobStalledError              no news for longer than the stall limit
        ├── JobCancelledError            somebody cancelled the job
        ├── JobPreemptedError            the machine was taken away
        ├── WorkerCrashedError           the process that ran the job died
        │   └── OutOfMemoryError         it needed more memory than it may have
        ├── BadInputError                the function refused its input; the cause is one of the errors above
        ├── MisconfiguredError           (also a ConfigError)  the machine that ran the job is not set up for it
        ├── FunctionError                the function failed in another way; `retryable` if that may pass
        └── UnavailableError             the service does not answer; nothing is known of the job
            └── JobNotFoundError         nobody knows this job, or its result any more
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
    """Base of every error of this library: catch this one to catch them all.

    Attributes:
        retryable: Whether another try of the same may succeed, as after a store that was unreachable.
    """

    retryable: bool = False


class ConfigError(ReelModalError, ValueError):
    """A setting, argument or environment variable has a value that cannot work."""


class RequestError(ReelModalError, ValueError):
    """A request is wrong.

    Attributes:
        path: Where in the request, such as ``regions[2].keyframes[0].radius_x``; empty for the whole.
        problem: What is wrong there, and what would be right.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class MissingDependencyError(ReelModalError, ImportError):
    """A library that this call needs does not load on this machine; the message names the cure."""


class MediaError(ReelModalError):
    """Something is wrong with a media file."""


class InvalidMediaError(MediaError):
    """The file is no video that we accept: unreadable, without a picture, hostile, or beyond the limits."""


class OutputMismatchError(MediaError):
    """What came out is not what was asked for: another number of frames, another size, another length."""


class SpliceError(MediaError):
    """Parts of a video cannot be copied beside new ones, or what came of it is not right.

    The functions of this library render the whole clip then, and say why in the result.
    """


class FrameError(ReelModalError, ValueError):
    """A frame does not fit the pipe: its shape, memory layout or number is not the announced one."""


class FrameTypeError(FrameError, TypeError):
    """A frame is not an array of the pixel format's element type."""


class FFmpegError(ReelModalError):
    """ffmpeg failed.

    Attributes:
        command: The command line, argument by argument; empty when ffmpeg was never started.
        exit_status: ffmpeg's exit status, negative for the signal that ended it; None when it never ran.
        retryable: True if a signal from outside ended it, or if there was no room on the disk.
        frame_index: Frames that had passed when it failed, which is the index of the next one.
        stderr_tail: The last words that ffmpeg wrote.
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
        # The keyword-only attributes are state, so that the error crosses a process border whole.
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
            lines.append("  ffmpeg's last words:")
            lines.extend(f"    {line}" for line in self.stderr_tail.splitlines())
        return "\n".join(lines)


class FFmpegNotFoundError(FFmpegError):
    """No ffmpeg was found, or the one that was named does not run."""


class FFmpegUnsupportedError(FFmpegNotFoundError):
    """The ffmpeg that was found is too old, or was built without something that is needed."""


class EncoderUnavailableError(FFmpegError):
    """The encoder does not start on this machine with these settings."""


class FFmpegStalledError(FFmpegError, TimeoutError):
    """ffmpeg neither took nor gave data for longer than the stall limit, and was ended."""

    retryable = True


class InvalidModelError(ReelModalError):
    """A network cannot be used: its file is none, not the one that was meant, or it does not fit what is asked."""


class ProviderUnavailableError(ReelModalError):
    """The device that was asked for cannot run the network, and nobody allowed another one."""


class StorageError(ReelModalError):
    """An object could not be read, or could not be put in place."""


class InvalidKeyError(StorageError, ValueError):
    """A key is not a plain relative path, so it could leave the root of its store."""


class ObjectNotFoundError(StorageError, FileNotFoundError):
    """There is no object under this key."""


class ObjectExistsError(StorageError, FileExistsError):
    """There is another object under this key, and it was not to be replaced."""


class ObjectChangedError(StorageError):
    """Another object was put in the place of one while it was read; no two versions were mixed."""

    retryable = True


class StorageAccessError(StorageError):
    """The store refuses: the credentials, their signature or rights, or there is no such bucket."""


class StorageFullError(StorageError):
    """There is no room for the bytes, in the store or on this machine; the message says where."""

    retryable = True


class StorageUnavailableError(StorageError):
    """The store does not answer, or too slowly; it was asked several times. Another try may do."""

    retryable = True


class DeploymentError(ReelModalError):
    """A deployment was not made, or nobody knows whether it was.

    Attributes:
        kind: A short, stable word for the reason, for scripts.
        message: What went wrong.
        cure: What to do next.
    """

    def __init__(self, kind: str, message: str, cure: str) -> None:
        super().__init__(kind, message, cure)
        self.kind = kind
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message}\nnext: {self.cure}"


class JobConflictError(ReelModalError):
    """A job id is in use for another request."""


class JobRefusedError(ReelModalError):
    """A job was not submitted, since it is expected to be too much; the message says why, and what would fit."""


class JobTooLongError(JobRefusedError):
    """A job is expected to need more than 80 % of its function's time-out."""


class OverBudgetError(JobRefusedError):
    """A job is expected to cost more than the budget."""


class BlockingCallError(ReelModalError, RuntimeError):
    """A blocking call was made in a thread whose event loop runs."""


class RemoteError(ReelModalError):
    """A job failed where it ran, or the way there failed.

    Attributes:
        function: The function's name, such as ``render_overlay``.
        call_id: The call on the backend; None when there was none yet.
        kind: A short, stable word for the kind of failure, for logs and metrics.
        retryable: Whether the same request may succeed when it is submitted again. If the function raised an error of
            this library, it is that error's.
        user_message: A sentence that a host can show to its own user.
    """

    kind: ClassVar[str] = "remote"
    user_message: ClassVar[str] = "The video could not be rendered."

    def __init__(self, message: str, *, function: str, call_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.function = function
        self.call_id = call_id

    def __reduce__(self) -> tuple[object, ...]:
        # The state carries what was added later: notes, and attributes of a subclass.
        return (_rebuild_remote_error, (type(self), self.message, self.function, self.call_id), self.__dict__)

    def __str__(self) -> str:
        call = f" (call {self.call_id})" if self.call_id else ""
        return f"{self.function}{call}: {self.message}"


def _rebuild_remote_error(kind: type[RemoteError], message: str, function: str, call_id: str | None) -> RemoteError:
    return kind(message, function=function, call_id=call_id)


class NotDeployedError(RemoteError):
    """No such app, function or environment is deployed."""

    kind = "not_deployed"
    user_message = "Video rendering is not set up on the server yet."


class DeploymentDriftError(RemoteError):
    """What is deployed was made from another version or other resources than this host knows.

    Attributes:
        differences: What is not the same, a line each.
    """

    kind = "drift"
    user_message = "The server and its video renderer are not of the same version."

    def __init__(
        self, message: str, *, function: str, call_id: str | None = None, differences: Sequence[str] = ()
    ) -> None:
        super().__init__(message, function=function, call_id=call_id)
        self.differences: tuple[str, ...] = tuple(differences)

    def __str__(self) -> str:
        return "\n  ".join([super().__str__(), *self.differences])


class AuthError(RemoteError):
    """There is no token for the service, or it is refused."""

    kind = "auth"
    user_message = "The server may not use its video renderer at the moment."


class FunctionTimeoutError(RemoteError):
    """The function used up its own time-out."""

    kind = "function_timeout"
    user_message = "The video took too long to render. A shorter clip will work."


class WaitTimeoutError(RemoteError, TimeoutError):
    """The caller's wait ended before the job did; the job goes on and can be waited for again."""

    kind = "wait_timeout"
    retryable = True
    user_message = "The video is still being rendered."


class JobStalledError(RemoteError):
    """The job gave no news for longer than the stall limit."""

    kind = "stalled"
    retryable = True
    user_message = "The renderer stopped answering. Please try again."


class JobCancelledError(RemoteError):
    """The job was cancelled."""

    kind = "cancelled"
    user_message = "The rendering was cancelled."


class JobPreemptedError(RemoteError):
    """The machine was taken away while the job ran."""

    kind = "preempted"
    retryable = True
    user_message = "The renderer was interrupted. Please try again."


class WorkerCrashedError(RemoteError):
    """The process that ran the job died, such as by a signal."""

    kind = "crashed"
    retryable = True
    user_message = "The renderer crashed. Please try again."


class OutOfMemoryError(WorkerCrashedError):
    """The job needed more memory than it may have; trying again with the same memory changes nothing.

    On this machine a process that the system kills for want of memory shows as `WorkerCrashedError` with SIGKILL: the
    system does not say why.
    """

    kind = "out_of_memory"
    retryable = False
    user_message = "The video needs more memory than the renderer has. A shorter or smaller one will work."


class BadInputError(RemoteError):
    """The function refused its input; trying again changes nothing."""

    kind = "bad_input"
    user_message = "This video or these settings cannot be rendered."


class MisconfiguredError(RemoteError, ConfigError):
    """The machine that ran the job is not set up for it: a setting, a secret or a library; the request may be fine.

    Trying again changes nothing until that is corrected. `__cause__` is the error that the function raised.
    """

    kind = "misconfigured"
    user_message = "Video rendering is not set up correctly on the server."


class FunctionError(RemoteError):
    """The function failed, which is not the fault of its input; `retryable` says whether another try may succeed."""

    kind = "function_error"


class UnavailableError(RemoteError):
    """The service does not answer: nothing is known of the job, which may well go on."""

    kind = "unavailable"
    retryable = True
    user_message = "The renderer cannot be reached at the moment. Please try again later."


class JobNotFoundError(UnavailableError):
    """Nobody knows this job: its id is wrong, the process that ran it is gone, or its result has expired.

    Waiting does not help; the output, if there is one, lies where it was to be published.
    """

    kind = "job_not_found"
    user_message = "This rendering is not known any more. Please try again."
