"""The process that runs one local job, as a container does on Modal: `python -m reel_modal.functions.worker`.

It reads a `Task` from stdin and writes messages to stdout. If stdin closes, the host has cancelled the job or has
exited; in both cases the job and its ffmpeg processes end. They also end on SIGTERM and SIGHUP.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, BinaryIO

from reel_modal._progress.events import ProgressEvent
from reel_modal._support.interruption import TERMINATING
from reel_modal._support.tracing import continued
from reel_modal.errors import JobCancelledError
from reel_modal.functions.context import BETWEEN_FRAMES_SECONDS, CancellationToken
from reel_modal.functions.worker_messages import CLEANING_SECONDS, Failed, Returned, Task

if TYPE_CHECKING:
    from reel_modal.functions.catalog import AnyFunction
    from reel_modal.functions.segment_processes import WorkerProcesses

__all__ = ["main"]


def main() -> None:
    """Run the task from stdin and exit."""
    # Output of libraries must not mix with the messages on stdout.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # A host that was started in the background passes on an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    task = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    cancellation, ended = CancellationToken(), threading.Event()
    # A signal handler may interrupt any code. SimpleQueue.put is reentrant, so a handler can call it safely.
    reasons: queue.SimpleQueue[int] = queue.SimpleQueue()
    received = _handle_termination(reasons)
    task.folder.mkdir(mode=0o700)
    try:
        threading.Thread(target=_watch_host, args=(reasons,), daemon=True).start()
        threading.Thread(target=_end_job, args=(reasons, task.folder, cancellation, ended), daemon=True).start()
        answer = _run(task, cancellation, channel)
        ended.set()
    finally:
        # The host removes it as well, if it still runs.
        shutil.rmtree(task.folder, ignore_errors=True)
    if received and isinstance(answer, Failed):
        _end_by(received[0])
    _send(channel, answer)


def _handle_termination(reasons: queue.SimpleQueue[int]) -> list[int]:
    """Make SIGTERM and SIGHUP end the job; return the list to which received signals are appended."""
    received: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        reasons.put(number)

    for number in TERMINATING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    return received


def _end_by(number: int) -> None:
    """End this process by the signal that it received, so that its host sees the cause."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _run(task: Task, cancellation: CancellationToken, channel: BinaryIO) -> Returned | Failed:
    from reel_modal.functions.catalog import find_function
    from reel_modal.functions.metering import Meter, seconds_since_process_start
    from reel_modal.functions.runner import run_job

    try:
        function = find_function(task.module, task.function)
        meter = Meter(submitted_at=task.submitted_at, startup_seconds=seconds_since_process_start())
        with continued(task.traceparent):
            return Returned(
                run_job(
                    function,
                    task.payload,
                    settings=task.settings,
                    send=lambda event: _send(channel, event),
                    cancellation=cancellation,
                    folder=task.folder,
                    meter=meter,
                    processes=_processes(task, function),
                    part=task.part,
                )
            )
    except KeyboardInterrupt:
        return _failed(JobCancelledError("cancelled in the middle of a step", function=task.function))
    except Exception as error:  # noqa: BLE001 - it is passed to the host, which raises it
        return _failed(error)


def _processes(task: Task, function: AnyFunction) -> WorkerProcesses | None:
    if task.processes == 1:
        return None
    from reel_modal.functions.segment_processes import WorkerProcesses

    return WorkerProcesses(function, task.payload, task.settings, task.processes)


def _send(channel: BinaryIO, message: ProgressEvent | Returned | Failed) -> None:
    try:
        pickle.dump(message, channel)
        channel.flush()
    except BrokenPipeError:
        # The host has exited; `_watch_host` notices that as well and ends the job.
        return


def _failed(error: Exception) -> Failed:
    from reel_modal.functions.remote_errors import is_retryable  # it loads asyncio, which a job does not need

    message, retryable = f"{type(error).__name__}: {error}", is_retryable(error)
    try:
        return Failed(pickle.dumps(error), message, retryable)
    except Exception:  # noqa: BLE001 - pickling an exception may raise anything
        return Failed(b"", message, retryable)


def _watch_host(reasons: queue.SimpleQueue[int]) -> None:
    """End the job when the host closes stdin, since it has cancelled the job or has exited."""
    with contextlib.suppress(OSError):  # an error on stdin also means that the host has exited
        os.read(0, 1)
    reasons.put(0)


def _end_job(
    reasons: queue.SimpleQueue[int], folder: Path, cancellation: CancellationToken, ended: threading.Event
) -> None:
    """Wait for a reason to end the job, then end it: between two frames, else by an interrupt, else by force."""
    reasons.get()
    cancellation.cancel()
    if ended.wait(BETWEEN_FRAMES_SECONDS):
        return
    _interrupt()
    if ended.wait(CLEANING_SECONDS):
        return
    shutil.rmtree(folder, ignore_errors=True)
    if sys.platform != "win32" and os.getsid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _interrupt() -> None:
    """Raise KeyboardInterrupt in the main thread, also during a blocking call."""
    main_thread = threading.main_thread().ident
    if sys.platform == "win32" or main_thread is None:
        signal.raise_signal(signal.SIGINT)
    else:
        signal.pthread_kill(main_thread, signal.SIGINT)


if __name__ == "__main__":
    main()
