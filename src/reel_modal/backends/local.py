"""Backend for this machine: one worker process per job, a bounded number at once, the rest queued.

A worker and its ffmpeg processes end with their job, when the job is cancelled, and when the host exits.
"""

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
from collections.abc import AsyncGenerator, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final, cast
from weakref import WeakSet

from reel_modal._progress.events import ProgressEvent
from reel_modal._segments import Segment
from reel_modal._support.clock import SYSTEM_CLOCK, Clock
from reel_modal._support.threads import ThreadPool, wait_across_loops
from reel_modal.backends.base import (
    CALL_ID,
    BackendTraits,
    CallResult,
    Check,
    to_remote_error,
    verify_by_hydration,
)
from reel_modal.backends.events import EventLog
from reel_modal.backends.messages import END_SECONDS, Failed, Returned, Task
from reel_modal.errors import (
    ConfigError,
    FunctionError,
    JobCancelledError,
    JobNotFoundError,
    NotDeployedError,
    RemoteError,
    WorkerCrashedError,
)
from reel_modal.functions.catalog import AnyFunction, all_functions
from reel_modal.schema.options import ENCODER_THREADS
from reel_modal.settings import Settings

__all__ = ["LocalBackend"]

_POSIX: Final = sys.platform != "win32"
_TAIL_LINES: Final = 40
_LONGEST_LINE_BYTES: Final = 4096
_MOST_KEPT: Final = 1000
_FORCE_SECONDS: Final = END_SECONDS + 2


class LocalBackend:
    """Backend that runs the function bodies in worker processes on this machine.

    Args:
        settings: Settings of the workers; `store_url` must be set before a job runs.
        max_workers: Most jobs at once; default half of the CPU cores, since an encoder uses more than one core.

    Raises:
        ConfigError: `max_workers` is less than 1.
    """

    name: str = "local"
    clock: Clock = SYSTEM_CLOCK

    def __init__(self, settings: Settings | None = None, *, max_workers: int | None = None) -> None:
        self._settings = settings or Settings.from_env()
        self._max_workers = max(1, self._settings.cores // 2) if max_workers is None else max_workers
        if self._max_workers < 1:
            raise ConfigError(f"max_workers is {max_workers}; it must be 1 or more")
        self._functions: dict[str, AnyFunction] = {}
        self._calls: dict[str, _LocalCall] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPool(self._max_workers, "reel_modal-local")
        _backends.add(self)

    def __repr__(self) -> str:
        return f"LocalBackend(max_workers={self._max_workers}, settings={self._settings!r})"

    @property
    def settings(self) -> Settings:
        """The settings of the worker processes."""
        return self._settings

    @property
    def traits(self) -> BackendTraits:
        """See `Backend.traits`."""
        return BackendTraits(
            settings=self._settings, records_timings=True, needs_store=True, uses_host_credentials=True
        )

    def register(self, functions: Mapping[str, AnyFunction]) -> None:
        """See `Backend.register`."""
        self._functions |= functions

    async def verify(self, functions: Iterable[str]) -> list[Check]:
        """See `Backend.verify`."""
        return await verify_by_hydration(self.hydrate, functions)

    def start_anew(self) -> None:
        """Forget the parent's jobs in a forked child: the threads that run them exist only in the parent."""
        for call in self._calls.values():
            call.close_pipes()
        self._calls, self._lock = {}, threading.Lock()

    def is_call_id(self, call_id: str) -> bool:
        """See `Backend.is_call_id`."""
        return CALL_ID.fullmatch(call_id) is not None

    async def hydrate(self, function: str) -> None:
        """See `Backend.hydrate`."""
        if not self._functions:
            self.register(all_functions())
        if function not in self._functions:
            known = ", ".join(sorted(self._functions))
            raise NotDeployedError(f"function not found; available are {known}", function=function)

    async def submit(
        self, function: str, args: tuple[object, ...], kwargs: Mapping[str, object], *, workers: int = 1
    ) -> str:
        """See `Backend.submit`; there are at most as many workers as the cores can serve with encoder threads."""
        await self.hydrate(function)
        (payload,) = args
        if kwargs or not isinstance(payload, Mapping):
            raise TypeError(f"{function} takes one request")
        payload = cast("Mapping[str, object]", payload)
        call = _LocalCall(self._functions[function], payload, self._settings)
        if self._functions[function].segments is not None:
            call.workers = min(workers, max(1, self._settings.cores // _encoder_threads(payload)))
        return self._start(call)

    def start_part(self, function: AnyFunction, payload: Mapping[str, object], part: Segment) -> str:
        """Start a call that renders and stores the segments within the frames `part`, and return its id."""
        return self._start(_LocalCall(function, payload, self._settings, part=part))

    def _start(self, call: _LocalCall) -> str:
        with self._lock:
            self._forget_old()
            self._calls[call.id] = call
            self._pool.start(call.run)
        return call.id

    async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:
        """See `Backend.wait`."""
        call = self._call(call_id)
        if not call.outcome.done():
            if timeout_seconds <= 0:
                return None
            await call.ended(timeout_seconds)
        return CallResult(call.outcome.result(), call.queued_seconds) if call.outcome.done() else None

    async def cancel(self, call_id: str) -> None:
        """See `Backend.cancel`; returns when the worker has ended."""
        call = self._call(call_id)
        call.cancel()
        await call.ended(_FORCE_SECONDS + END_SECONDS)

    async def event_count(self, call_id: str) -> int:
        """See `Backend.event_count`."""
        return len(self._call(call_id).events)

    async def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        """See `Backend.events`."""
        async for event in self._call(call_id).events.follow():
            yield event

    async def close(self) -> None:
        """Cancel every job that has not ended."""
        left = [call for call in list(self._calls.values()) if not call.outcome.done()]
        # Newest first, so that no queued job starts in the slot of a job that was just cancelled.
        await asyncio.gather(*(self.cancel(call.id) for call in reversed(left)))

    def _call(self, call_id: str) -> _LocalCall:
        call = self._calls.get(call_id)
        if call is None:
            raise JobNotFoundError(
                "job not found in this process, and a local job ends with its parent process: submit it again",
                function="local",
                call_id=call_id,
            )
        return call

    def _forget_old(self) -> None:
        ended = [call_id for call_id, call in self._calls.items() if call.outcome.done()]
        for call_id in ended[:-_MOST_KEPT]:
            del self._calls[call_id]


_backends: WeakSet[LocalBackend] = WeakSet()


def _reset_after_fork() -> None:
    for backend in list(_backends):
        backend.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


class _LocalCall:
    """One job: queued, then run by a worker process, then ended with an outcome."""

    def __init__(
        self, function: AnyFunction, payload: Mapping[str, object], settings: Settings, *, part: Segment | None = None
    ) -> None:
        self.workers = 1
        self._part = part
        self.id = uuid.uuid4().hex
        self.events = EventLog()
        self.outcome: Future[dict[str, object]] = Future()
        self.queued_seconds = 0.0
        self._submitted_at = time.monotonic()
        self._submitted_unix = time.time()
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
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        drain = threading.Thread(target=_drain, args=(process, tail), name="reel_modal-worker-stderr", daemon=True)
        drain.start()
        try:
            task = Task(
                self._module,
                self._function,
                self._payload,
                self._settings,
                self._submitted_unix,
                folder,
                self.workers,
                self._part,
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
        return self._value(answer, process.returncode, tail)

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

    def _value(self, answer: Returned | Failed | None, status: int, tail: deque[str]) -> dict[str, object]:
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
        raise WorkerCrashedError(_describe_exit(status, tail), function=self._function, call_id=self.id)


def _encoder_threads(payload: Mapping[str, object]) -> int:
    match payload.get("encode"):
        case {"threads": int(threads)}:
            return threads
    return ENCODER_THREADS


def _start_worker() -> subprocess.Popen[bytes]:
    # Pass on sys.path, so that the worker imports the same modules as this process; "" is the current folder.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "reel_modal.backends.worker"],
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


def _describe_exit(status: int, tail: deque[str]) -> str:
    if status < 0:
        name = _signal_name(-status)
        description = f"the worker process was ended by {name}"
        if name == "SIGKILL":
            description += ", possibly because the system was out of memory"
    else:
        description = f"the worker process ended with status {status} and no result"
    stderr = "\n".join(tail)
    return f"{description}; its last stderr lines:\n{stderr}" if stderr else description


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"
