"""One job in a worker process: its start, its events, its cancellation and its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final, cast

from reel_modal._progress.event_log import EventLog
from reel_modal._progress.events import ProgressEvent
from reel_modal._segments import Segment
from reel_modal._support.threads import wait_across_loops
from reel_modal._support.tracing import note_submission
from reel_modal.errors import FunctionError, JobCancelledError, RemoteError, WorkerCrashedError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.remote_errors import to_remote_error
from reel_modal.functions.worker_messages import END_SECONDS, Failed, Returned, Task
from reel_modal.settings import Settings

__all__ = ["WorkerCall"]

_POSIX: Final = sys.platform != "win32"
_TAIL_LINES: Final = 100
_LONGEST_LINE_BYTES: Final = 4096
_FORCE_SECONDS: Final = END_SECONDS + 2


class WorkerCall:
    """One job: queued, then run by a worker process, then ended with an outcome.

    Args:
        function: The function.
        payload: The request's `to_dict()`.
        settings: Settings of the worker.
        part: See `Task`.
        processes: See `Task`.

    Attributes:
        id: Id of the call.
        events: Events of the job.
        log: The last lines that the worker has written to stderr.
        outcome: Result of the body, in JSON types, or the error for the host.
        queued_seconds: Seconds from the construction to the start.
    """

    def __init__(
        self,
        function: AnyFunction,
        payload: Mapping[str, object],
        settings: Settings,
        *,
        part: Segment | None = None,
        processes: int = 1,
    ) -> None:
        self.id: str = uuid.uuid4().hex
        self.events: EventLog = EventLog()
        self.log: deque[str] = deque(maxlen=_TAIL_LINES)
        self.outcome: Future[dict[str, object]] = Future()
        self.queued_seconds: float = 0.0
        self._part = part
        self._processes = processes
        self._submitted_at = time.monotonic()
        self._submitted_unix = time.time()
        self._traceparent = note_submission()
        self._function = function.name
        self._module = function.module
        self._payload = payload
        self._settings = settings
        self._lock = threading.Lock()
        self._started = False
        self._task_sent = False
        self._cancelled = False
        self._finished = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Run the job to its end in the calling thread, and set its outcome."""
        try:
            value = self._run()
        except RemoteError as error:
            self._end(error=error)
        except BaseException as error:  # noqa: BLE001 - passed to the caller that waits
            failure = WorkerCrashedError(
                f"the worker process could not be run: {type(error).__name__}: {error}",
                function=self._function,
                call_id=self.id,
            )
            failure.__cause__ = error
            self._end(error=failure)
        else:
            self._end(value=value)

    def cancel(self) -> None:
        """Ask the worker to end, and kill it later if it does not; never blocks."""
        with self._lock:
            if self._cancelled or self._finished:
                return
            self._cancelled = True
            if not self._task_sent:
                # The body has not started. Closing stdin could block here, since its buffer may be full.
                self._signal()
        if not self._started:
            self._end(error=self._was_cancelled())
        elif self._task_sent and self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            forced = self._force_later()
            self.outcome.add_done_callback(lambda _: forced.cancel())

    def close_pipes(self) -> None:
        """Close this process's copies of the pipes: they would hide the exit of the host from the worker."""
        process = self._process
        for stream in () if process is None else (process.stdin, process.stdout, process.stderr):
            if isinstance(stream, io.BufferedWriter | io.BufferedReader):
                stream.raw.close()  # raw: only the parent process may write the buffered data

    async def end(self) -> None:
        """Cancel the job, and return when the worker has ended."""
        self.cancel()
        await self.ended(_FORCE_SECONDS + END_SECONDS)

    async def ended(self, timeout_seconds: float) -> None:
        """Return when the job has ended, or after `timeout_seconds`."""
        await asyncio.wait({wait_across_loops(self.outcome)}, timeout=timeout_seconds)

    def _end(self, *, value: dict[str, object] | None = None, error: BaseException | None = None) -> None:
        with self._lock:
            if self.outcome.done():
                return
            if error is not None:
                self.outcome.set_exception(error)
            else:
                self.outcome.set_result(value or {})
        self.events.close()

    def _force_later(self) -> threading.Timer:
        """Give the worker time to end by itself, then kill it."""
        forced = threading.Timer(_FORCE_SECONDS, self._force)
        forced.daemon = True
        forced.start()
        return forced

    def _force(self) -> None:
        with self._lock:
            self._signal()

    def _signal(self) -> None:
        """Kill the worker and the rest of its process group, as long as its pid cannot have been reused."""
        if self._process is not None and not self._finished:
            _kill_group(self._process)

    def _run(self) -> dict[str, object]:
        with self._lock:
            if self._cancelled:
                raise self._was_cancelled()
            self._started = True
        self.queued_seconds = time.monotonic() - self._submitted_at
        process = _start_worker()
        with self._lock:
            self._process = process
            if self._cancelled:
                self._signal()
        # The worker creates the folder, so that a host that is killed before it sends the task leaves no folder.
        folder = Path(tempfile.gettempdir(), f"reel_modal-job-{self.id}")
        drain = threading.Thread(
            target=_drain, args=(process, self.log), name="reel_modal-worker-stderr", daemon=True
        )
        drain.start()
        try:
            task = Task(
                self._module,
                self._function,
                self._payload,
                self._settings,
                self._submitted_unix,
                folder,
                self._processes,
                self._part,
                self._traceparent,
            )
            answer = self._converse(process, task)
        finally:
            with self._lock:
                self._signal()
                self._finished = True
            process.wait()
            drain.join(timeout=_FORCE_SECONDS)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):  # the worker did not read the task
                        stream.close()
            shutil.rmtree(folder, ignore_errors=True)
        return self._value(answer, process.returncode)

    def _converse(self, process: subprocess.Popen[bytes], task: Task) -> Returned | Failed | None:
        """Send the task and receive its events until the answer; return None if the worker ended without one."""
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        try:
            pickle.dump(task, process.stdin)
            process.stdin.flush()
            with self._lock:
                self._task_sent = True
            while isinstance(message := pickle.load(process.stdout), ProgressEvent):  # noqa: S301 - our own worker
                self.events.add(message)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            message = None
        if message is None:
            # The worker is ending by itself. Let it, since its exit status tells the cause.
            forced = self._force_later()
            _await_end(process)
            forced.cancel()
        return cast("Returned | Failed | None", message)

    def _was_cancelled(self) -> JobCancelledError:
        message = "the job was cancelled" if self._started else "the job was cancelled before it started"
        return JobCancelledError(message, function=self._function, call_id=self.id)

    def _value(self, answer: Returned | Failed | None, status: int) -> dict[str, object]:
        if isinstance(answer, Returned):
            return answer.value
        if self._cancelled:
            raise self._was_cancelled()
        if isinstance(answer, Failed):
            error = _error_of(answer)
            if error is None:
                unknown = FunctionError(answer.message, function=self._function, call_id=self.id)
                unknown.retryable = answer.retryable
                raise unknown
            raise to_remote_error(error, function=self._function, call_id=self.id) from error
        raise WorkerCrashedError(_describe_exit(status), function=self._function, call_id=self.id)


def _start_worker() -> subprocess.Popen[bytes]:
    # Pass on sys.path, so that the worker imports the same modules as this process; "" is the current folder.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "reel_modal.functions.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        # A new session: Ctrl-C in the terminal reaches only the host, and one signal ends the whole process group.
        start_new_session=_POSIX,
        creationflags=0 if _POSIX else subprocess.CREATE_NEW_PROCESS_GROUP,  # type: ignore[attr-defined,unused-ignore]
    )


def _drain(process: subprocess.Popen[bytes], tail: deque[str]) -> None:
    if process.stderr is not None:
        while line := process.stderr.readline(_LONGEST_LINE_BYTES):
            tail.append(line.decode("utf-8", "replace").rstrip())


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """Return when the worker has ended; if possible, reserve its pid until its process group is killed."""
    if hasattr(os, "waitid"):  # not on Windows, nor on macOS before Python 3.13
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored, so the child was already reaped
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if _POSIX:
        # The whole group has ended; macOS raises PermissionError if a member is not reaped yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _error_of(failed: Failed) -> Exception | None:
    """Return the error that the body raised; None if it cannot be unpickled in this process."""
    try:
        error = pickle.loads(failed.pickled)  # noqa: S301 - our own worker
    except Exception:  # noqa: BLE001 - unpickling an exception may raise anything
        return None
    return error if isinstance(error, Exception) else None


def _describe_exit(status: int) -> str:
    if status >= 0:
        return f"the worker process ended with status {status} and no result"
    name = _signal_name(-status)
    cause = ", possibly because the system was out of memory" if name == "SIGKILL" else ""
    return f"the worker process was ended by {name}{cause}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"
