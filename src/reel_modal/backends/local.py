"""Jobs on this machine: one worker process a job, a bounded number at once, the rest queued.

A worker and its ffmpegs end with their job, with its cancellation, and with the host. It must not know what the
functions do.
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
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final, cast
from weakref import WeakSet

from reel_modal.backends.across_loops import end_of
from reel_modal.backends.base import CALL_ID, Finished, failure_of
from reel_modal.backends.events import EventLog
from reel_modal.backends.messages import Failed, Returned, Task
from reel_modal.backends.worker import END_SECONDS
from reel_modal.config import Settings
from reel_modal.errors import (
    ConfigError,
    FunctionError,
    JobCancelledError,
    JobNotFoundError,
    NotDeployedError,
    RemoteError,
    WorkerCrashedError,
)
from reel_modal.functions.specs import SPECS
from reel_modal.progress.clocks import SYSTEM_CLOCK, Clock
from reel_modal.progress.events import ProgressEvent

__all__ = ["LocalBackend"]

_POSIX: Final = sys.platform != "win32"
_TAIL_LINES: Final = 40
_LONGEST_LINE_BYTES: Final = 4096
_MOST_KEPT: Final = 1000
_FORCE_SECONDS: Final = END_SECONDS + 2


class LocalBackend:
    """Runs the function bodies in worker processes of this machine.

    Args:
        settings: For the workers; `store_url` must be set before a job runs.
        max_workers: Jobs at once; default half of the cores, since an encoder fills more than one.

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
        self._calls: dict[str, _LocalCall] = {}
        self._waiting: deque[_LocalCall] = deque()
        self._lock = threading.Lock()
        self._threads = 0
        _backends.add(self)

    def __repr__(self) -> str:
        return f"LocalBackend(max_workers={self._max_workers}, settings={self._settings!r})"

    @property
    def settings(self) -> Settings:
        """The settings of the worker processes."""
        return self._settings

    def start_anew(self) -> None:
        """Forget the jobs of the process that this one was forked from: the threads that run them are not in it."""
        for call in self._calls.values():
            call.let_go()
        self._calls, self._waiting = {}, deque()
        self._lock, self._threads = threading.Lock(), 0

    def is_call_id(self, call_id: str) -> bool:
        """See `Backend.is_call_id`."""
        return CALL_ID.fullmatch(call_id) is not None

    async def hydrate(self, function: str) -> None:
        """See `Backend.hydrate`."""
        if function not in SPECS:
            raise NotDeployedError(
                f"there is no such function here; there are {', '.join(sorted(SPECS))}", function=function
            )

    async def submit(self, function: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """See `Backend.submit`."""
        await self.hydrate(function)
        (payload,) = args
        if kwargs or not isinstance(payload, Mapping):
            raise TypeError(f"{function} takes one request")
        call = _LocalCall(function, cast("Mapping[str, object]", payload), self._settings)
        with self._lock:
            self._forget_old()
            self._calls[call.id] = call
            self._waiting.append(call)
            if self._threads < self._max_workers:
                self._threads += 1
                threading.Thread(target=self._work, name="reel_modal-local", daemon=True).start()
        return call.id

    async def wait(self, call_id: str, timeout_seconds: float) -> Finished | None:
        """See `Backend.wait`."""
        call = self._call(call_id)
        if not call.outcome.done():
            if timeout_seconds <= 0:
                return None
            await call.ended(timeout_seconds)
        return Finished(call.outcome.result(), call.queued_seconds) if call.outcome.done() else None

    async def cancel(self, call_id: str) -> None:
        """See `Backend.cancel`; returns when the worker has ended."""
        call = self._call(call_id)
        call.cancel()
        await call.ended(_FORCE_SECONDS + END_SECONDS)

    async def events_so_far(self, call_id: str) -> int:
        """See `Backend.events_so_far`."""
        return len(self._call(call_id).events)

    async def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        """See `Backend.events`."""
        async for event in self._call(call_id).events.follow():
            yield event

    async def close(self) -> None:
        """End every job that has not ended."""
        left = [call for call in list(self._calls.values()) if not call.outcome.done()]
        # The last first: none of those that wait begins in the place of one that was ended.
        await asyncio.gather(*(self.cancel(call.id) for call in reversed(left)))

    def _call(self, call_id: str) -> _LocalCall:
        call = self._calls.get(call_id)
        if call is None:
            raise JobNotFoundError(
                "this process did not start the job, and a local job ends with the process that did: submit it again",
                function="local",
                call_id=call_id,
            )
        return call

    def _forget_old(self) -> None:
        ended = [call_id for call_id, call in self._calls.items() if call.outcome.done()]
        for call_id in ended[:-_MOST_KEPT]:
            del self._calls[call_id]

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                call = self._waiting.popleft()
            call.run()


_backends: WeakSet[LocalBackend] = WeakSet()


def _start_anew() -> None:
    for backend in list(_backends):
        backend.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class _LocalCall:
    """One job: queued, then a worker process, then an outcome."""

    def __init__(self, function: str, payload: Mapping[str, object], settings: Settings) -> None:
        self.id = uuid.uuid4().hex
        self.events = EventLog()
        self.outcome: Future[dict[str, object]] = Future()
        self.queued_seconds = 0.0
        self._submitted_at = time.monotonic()
        self._submitted_unix = time.time()
        self._function = function
        self._payload = payload
        self._settings = settings
        self._lock = threading.Lock()
        self._begun = False
        self._handed_over = False
        self._cancelled = False
        self._over = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Run the job to its end, in the caller's thread; the outcome says how it went."""
        try:
            value = self._run()
        except RemoteError as error:
            self._end(error=error)
        except BaseException as error:  # noqa: BLE001 - handed to who waits
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
        """Ask the worker to end, and see to it that it does; never blocks."""
        with self._lock:
            if self._cancelled or self._over:
                return
            self._cancelled = True
            if not self._handed_over:
                # The body has not begun. Its stdin may be full, and then closing that would block.
                self._signal()
        if not self._begun:
            self._end(error=self._was_cancelled())
        elif self._handed_over and self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            forced = self._force_later()
            self.outcome.add_done_callback(lambda _: forced.cancel())

    def let_go(self) -> None:
        """Close this process's copies of the pipes: they would keep the worker from hearing that its host is gone."""
        process = self._process
        for stream in () if process is None else (process.stdin, process.stdout, process.stderr):
            if isinstance(stream, io.BufferedWriter | io.BufferedReader):
                stream.raw.close()  # what is in the buffer is the other process's to write

    async def ended(self, timeout_seconds: float) -> None:
        """Return when the job has ended, or after `timeout_seconds`."""
        await asyncio.wait({end_of(self.outcome)}, timeout=timeout_seconds)

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
        """Let the worker end by itself, but not for ever."""
        forced = threading.Timer(_FORCE_SECONDS, self._force)
        forced.daemon = True
        forced.start()
        return forced

    def _force(self) -> None:
        with self._lock:
            self._signal()

    def _signal(self) -> None:
        """Kill the worker and whatever of its group is still there, while its number is its own."""
        if self._process is not None and not self._over:
            _kill_group(self._process)

    def _run(self) -> dict[str, object]:
        with self._lock:
            if self._cancelled:
                raise self._was_cancelled()
            self._begun = True
        self.queued_seconds = time.monotonic() - self._submitted_at
        process = _start_worker()
        with self._lock:
            self._process = process
            if self._cancelled:
                self._signal()
        # The worker makes it: a host that is killed before it has handed the task over leaves nothing.
        folder = Path(tempfile.gettempdir(), f"reel_modal-job-{self.id}")
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        drain = threading.Thread(target=_drain, args=(process, tail), name="reel_modal-worker-stderr", daemon=True)
        drain.start()
        try:
            answer = self._converse(
                process, Task(self._function, self._payload, self._settings, self._submitted_unix, folder)
            )
        finally:
            with self._lock:
                self._signal()
                self._over = True
            process.wait()
            drain.join(timeout=_FORCE_SECONDS)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):  # a task that nobody read
                        stream.close()
            shutil.rmtree(folder, ignore_errors=True)
        return self._value(answer, process.returncode, tail)

    def _converse(self, process: subprocess.Popen[bytes], task: Task) -> Returned | Failed | None:
        """Hand the task over and take its events until its answer; None when the worker ended without one."""
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        try:
            pickle.dump(task, process.stdin)
            process.stdin.flush()
            with self._lock:
                self._handed_over = True
            while isinstance(message := pickle.load(process.stdout), ProgressEvent):  # noqa: S301 - our own worker
                self.events.add(message)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            message = None
        if message is None:
            # It is about to end by itself, and how it does is worth knowing.
            forced = self._force_later()
            _await_end(process)
            forced.cancel()
        return cast("Returned | Failed | None", message)

    def _was_cancelled(self) -> JobCancelledError:
        when = "the job was cancelled" if self._begun else "the job was cancelled before it began"
        return JobCancelledError(when, function=self._function, call_id=self.id)

    def _value(self, answer: Returned | Failed | None, status: int, tail: deque[str]) -> dict[str, object]:
        if isinstance(answer, Returned):
            return answer.value
        if self._cancelled:
            raise self._was_cancelled()
        if isinstance(answer, Failed):
            error = _error_of(answer)
            if error is None:
                unknown = FunctionError(answer.said, function=self._function, call_id=self.id)
                unknown.retryable = answer.retryable
                raise unknown
            raise failure_of(error, function=self._function, call_id=self.id) from error
        raise WorkerCrashedError(_how_it_died(status, tail), function=self._function, call_id=self.id)


def _start_worker() -> subprocess.Popen[bytes]:
    # The worker finds what this process finds, however its path was set; "" is the current folder.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "reel_modal.backends.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        # A session of its own: a Ctrl-C in the terminal is the host's to handle, and one signal ends the whole group.
        start_new_session=_POSIX,
        creationflags=0 if _POSIX else subprocess.CREATE_NEW_PROCESS_GROUP,  # type: ignore[attr-defined,unused-ignore]
    )


def _drain(process: subprocess.Popen[bytes], tail: deque[str]) -> None:
    if process.stderr is not None:
        while line := process.stderr.readline(_LONGEST_LINE_BYTES):
            tail.append(line.decode("utf-8", "replace").rstrip())


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """Return when the worker has ended; where that can be, it keeps its number until its group has been killed."""
    if hasattr(os, "waitid"):  # not on Windows, nor on macOS before Python 3.13
        with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored, nobody is told
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if _POSIX:
        # All of it has ended; macOS says PermissionError where the rest is not reaped yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _error_of(failed: Failed) -> Exception | None:
    """Return what the body raised; None where that cannot be rebuilt in this process."""
    try:
        error = pickle.loads(failed.pickled)  # noqa: S301 - our own worker
    except Exception:  # noqa: BLE001 - an exception class of anyone's may fail in any way
        return None
    return error if isinstance(error, Exception) else None


def _how_it_died(status: int, tail: deque[str]) -> str:
    if status < 0:
        name = _signal_name(-status)
        how = f"the worker process was ended by {name}"
        if name == "SIGKILL":
            how += ", which is what a system does that runs out of memory"
    else:
        how = f"the worker process ended with status {status} and no answer"
    said = "\n".join(tail)
    return f"{how}; its last words:\n{said}" if said else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"
