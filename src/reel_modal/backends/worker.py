"""The process that runs one local job: what a container is on Modal. `python -m reel_modal.backends.worker`.

It reads a `Task` from stdin and writes messages to stdout. When stdin closes, the host has cancelled the job or has
died; either way the job ends and takes its ffmpegs along. So it does on SIGTERM and SIGHUP.
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
from typing import BinaryIO, Final

from reel_modal.backends.base import is_retryable
from reel_modal.backends.messages import Failed, Returned, Task
from reel_modal.errors import JobCancelledError
from reel_modal.functions.context import BETWEEN_FRAMES_SECONDS, CancellationToken
from reel_modal.interruption import TERMINATING
from reel_modal.progress.events import ProgressEvent

__all__ = ["END_SECONDS", "main"]

_CLEANING_SECONDS: Final = 6.0
END_SECONDS: Final = BETWEEN_FRAMES_SECONDS + _CLEANING_SECONDS
"""Longest that a worker takes to end itself once its stdin is closed."""


def main() -> None:
    """Run the task on stdin and leave."""
    # Whatever a library prints must not get between the messages.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # A host that was started in the background hands on a SIGINT that is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    task = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    cancellation, ended = CancellationToken(), threading.Event()
    # A signal handler may come in the midst of anything; of all that tells a thread, only this may be used there.
    reasons: queue.SimpleQueue[int] = queue.SimpleQueue()
    received = _heed_termination(reasons)
    task.folder.mkdir(mode=0o700)
    try:
        threading.Thread(target=_watch_host, args=(reasons,), daemon=True).start()
        threading.Thread(target=_end_job, args=(reasons, task.folder, cancellation, ended), daemon=True).start()
        answer = _run(task, cancellation, channel)
        ended.set()
    finally:
        # The host does so as well, if it is still there.
        shutil.rmtree(task.folder, ignore_errors=True)
    if received and isinstance(answer, Failed):
        _end_by(received[0])
    _send(channel, answer)


def _heed_termination(reasons: queue.SimpleQueue[int]) -> list[int]:
    """Let SIGTERM and SIGHUP be reasons to end the job; return the list of those that have come."""
    received: list[int] = []

    def heed(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        reasons.put(number)

    for number in TERMINATING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, heed)
    return received


def _end_by(number: int) -> None:
    """End this process by the signal that it was sent, so that its host sees what has happened."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _run(task: Task, cancellation: CancellationToken, channel: BinaryIO) -> Returned | Failed:
    from reel_modal.functions.bodies import run_body
    from reel_modal.functions.metering import Meter, seconds_since_process_start

    try:
        return Returned(
            run_body(
                task.function,
                task.payload,
                settings=task.settings,
                send=lambda event: _send(channel, event),
                cancellation=cancellation,
                folder=task.folder,
                meter=Meter(submitted_at=task.submitted_at, startup_seconds=seconds_since_process_start()),
            )
        )
    except KeyboardInterrupt:
        return _failed(JobCancelledError("cancelled in the middle of a step", function=task.function))
    except Exception as error:  # noqa: BLE001 - it is handed to the host, which raises it
        return _failed(error)


def _send(channel: BinaryIO, message: ProgressEvent | Returned | Failed) -> None:
    try:
        pickle.dump(message, channel)
        channel.flush()
    except BrokenPipeError:
        # The host is gone, which `_watch_host` sees as well and acts upon.
        return


def _failed(error: Exception) -> Failed:
    said, retryable = f"{type(error).__name__}: {error}", is_retryable(error)
    try:
        return Failed(pickle.dumps(error), said, retryable)
    except Exception:  # noqa: BLE001 - what an error carries may refuse in any way
        return Failed(b"", said, retryable)


def _watch_host(reasons: queue.SimpleQueue[int]) -> None:
    """End the job when the host closes stdin: it has cancelled the job, or is gone."""
    with contextlib.suppress(OSError):  # however stdin ended, the host is gone
        os.read(0, 1)
    reasons.put(0)


def _end_job(
    reasons: queue.SimpleQueue[int], folder: Path, cancellation: CancellationToken, ended: threading.Event
) -> None:
    """Wait for a reason, and end the job: between two frames, else at once, else by force."""
    reasons.get()
    cancellation.cancel()
    if ended.wait(BETWEEN_FRAMES_SECONDS):
        return
    _interrupt()
    if ended.wait(_CLEANING_SECONDS):
        return
    shutil.rmtree(folder, ignore_errors=True)
    if sys.platform != "win32" and os.getsid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _interrupt() -> None:
    """Raise KeyboardInterrupt in the main thread, out of a call that blocks too."""
    main_thread = threading.main_thread().ident
    if sys.platform == "win32" or main_thread is None:
        signal.raise_signal(signal.SIGINT)
    else:
        signal.pthread_kill(main_thread, signal.SIGINT)


if __name__ == "__main__":
    main()
