"""Run ffmpeg as a subprocess: in its own session, with stderr drained, a stall timeout, and a guaranteed end."""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from reel_modal._support.interruption import hold_interruptions
from reel_modal.errors import FFmpegError, FFmpegNotFoundError, FFmpegStalledError
from reel_modal.media.frame_buffers import PIPE_BYTES, SharedBuffer

__all__ = ["QUIET", "FFmpegProcess", "LineSink", "output_size"]

_log = logging.getLogger(__name__)

_running: weakref.WeakSet[FFmpegProcess] = weakref.WeakSet()

QUIET: Final = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+warning")
"""Options of every command: no console input, no statistics, only warnings and errors, each on a separate line."""

_TAIL_LINES: Final = 30
_READ_BYTES: Final = 65536
_LONGEST_LINE_BYTES: Final = 4096
_REAP_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.25
_SIGNALLED_STATUS: Final = 255
"""ffmpeg's exit status after it handled SIGTERM, SIGINT or SIGQUIT."""

_KILLED: Final = frozenset(
    {
        _SIGNALLED_STATUS,
        *(-getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGHUP") if hasattr(signal, name)),
    }
)
"""Exit statuses of an ffmpeg that was killed from outside. After a crash, the signal is a different one."""

# A statically linked ffmpeg loads the machine's iconv modules for names in MPEG-TS, and crashes in them.
_ENVIRONMENT: Final = {"GCONV_PATH": os.devnull}
# By default glibc returns the memory of each frame to the system and requests it again, page by page, which takes as
# long as reading the frame. With these settings it keeps the memory.
_KEEP_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}


class LineSink(Protocol):
    """Receiver of stderr lines, some of which are data instead of messages."""

    def take(self, line: str) -> str:
        """Process one line and return its message part, or an empty string."""
        ...

    def end(self) -> None:
        """Called after the last line."""
        ...


class FFmpegProcess:
    """A running ffmpeg that cannot block on its stderr, wait forever, or outlive its owner.

    Attributes:
        blocked_seconds: Time that reads and writes have waited for it.

    Args:
        command: The whole command line; its first item is the binary.
        stdin: Whether the caller writes to its stdin.
        stdout: Whether the caller reads its stdout.
        stall_seconds: Longest time without any data transfer before it is killed.
        sink: Receives each line of stderr first, in the draining thread; None treats every line as a message.

    Raises:
        FFmpegNotFoundError: The binary does not start.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: bool = False,
        stdout: bool = False,
        stall_seconds: float,
        sink: LineSink | None = None,
    ) -> None:
        self.command: tuple[str, ...] = tuple(command)
        self.stalled: bool = False
        self.blocked_seconds: float = 0.0
        self._stall_seconds = stall_seconds
        self._sink = sink
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._awaited: str = ""
        self._blocked_since: float | None = None
        self._ended = threading.Event()
        self._has_session = _wants_session()
        self._threads: tuple[threading.Thread, ...] = ()
        process: subprocess.Popen[bytes] | None = None
        try:
            # A signal during the start would lose the process, and with it the only owner that can end it.
            with hold_interruptions():
                # A buffered stream has a lock. If a thread holds it at interpreter exit, the interpreter aborts.
                process = self._process = subprocess.Popen(
                    self.command,
                    bufsize=0,
                    stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=self._has_session,
                    env={**_ENVIRONMENT, **(_KEEP_MEMORY if stdin else {}), **os.environ},
                )
            _running.add(self)
            self._start_threads()
        except BaseException as error:
            if process is not None:  # a thread could not be started, or an early Ctrl-C
                self.kill()
            elif isinstance(error, OSError):
                raise FFmpegNotFoundError(f"ffmpeg does not start: {error}", command=command) from error
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def tail(self) -> str:
        """The last lines that it wrote to stderr."""
        return "\n".join(self._tail)

    def write(self, data: memoryview | SharedBuffer) -> None:
        """Write all of `data` to its stdin, unbuffered.

        Args:
            data: Bytes. A shared buffer is moved into the pipe without a copy and must not be modified afterwards.

        Raises:
            BrokenPipeError: It no longer reads, or was killed because it stalled.
        """
        if self._process.stdin is None:
            raise BrokenPipeError("stdin is closed")
        descriptor = self._process.stdin.fileno()
        with self._blocking("read its stdin"):
            if isinstance(data, SharedBuffer):
                data.send(descriptor)
                return
            while data:
                data = data[os.write(descriptor, data) :]

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` (bytes) from its stdout; return the number of bytes read, fewer only at the end."""
        stdout = self._process.stdout
        if not isinstance(stdout, io.FileIO):
            return 0
        filled = 0
        with self._blocking("write to its stdout"):
            while filled < len(buffer):
                count = stdout.readinto(buffer[filled:])
                if not count:
                    break
                filled += count
        return filled

    def close_stdin(self) -> None:
        """Close its stdin, which is the end of its input."""
        stdin, self._process.stdin = self._process.stdin, None
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()

    def finish(self, activity: Callable[[], int] = int) -> int:
        """Wait until it ends and return the exit status.

        Args:
            activity: Returns a number that changes while it works, such as the size of its output. If the number does
                not change for `stall_seconds`, the process is killed.

        Raises:
            FFmpegStalledError: The process stalled and was killed.
        """
        self.close_stdin()
        seen, since = activity(), time.monotonic()
        while (status := self._ended_within(_POLL_SECONDS)) is None:
            if (now := activity()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > self._stall_seconds:
                self.give_up("end")
                raise self.error("ffmpeg did not end")
        self._release()
        return status

    def _ended_within(self, seconds: float) -> int | None:
        """Return the exit status, or None if it still runs after `seconds`."""
        drain = self._threads[0]
        # stderr closes when the process ends, which ends its thread at once; `Popen.wait` polls at growing intervals.
        drain.join(timeout=seconds)
        try:
            return self._process.wait(timeout=0 if drain.is_alive() else seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Kill and reap the process; if it has its own session, also its child processes. Safe to call twice."""
        if self._process.poll() is None:
            # The process may have ended meanwhile; macOS reports that as PermissionError.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if sys.platform != "win32" and self._has_session:
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:  # its process group is ours
                    self._process.kill()
            try:
                self._process.wait(timeout=_REAP_SECONDS)
            except subprocess.TimeoutExpired:
                _log.error("ffmpeg (process %d) did not end after SIGKILL", self._process.pid)
        self._release()

    def give_up(self, awaited: str) -> None:
        """Kill a stalled process; `error` then reports the action that it did not complete.

        Args:
            awaited: The action that ffmpeg did not complete within `stall_seconds`, such as `read its stdin`.
        """
        self.stalled, self._awaited = True, awaited
        self.kill()

    def error(self, message: str, *, frame_index: int | None = None) -> FFmpegError:
        """Return an error with `message`, how the process ended, and its last stderr lines."""
        status = self._process.poll()
        kind: type[FFmpegError] = FFmpegError
        was_killed, disk_full = status in _KILLED, "No space left on device" in self.tail
        if self.stalled:
            waited = (
                f"no data moved for {self._stall_seconds:g} s while reel_modal waited for ffmpeg to {self._awaited}"
            )
            kind, message = FFmpegStalledError, f"{message}: {waited}"
        elif status is not None and status < 0:
            message = f"{message}: ended by {_signal_name(-status)}"
        elif was_killed:
            message = f"{message}: ended by a signal"
        elif disk_full:
            message = f"{message}: No space left on device (ENOSPC); free some space and try again"
        error = kind(
            message,
            command=self.command,
            exit_status=status,
            frame_index=frame_index,
            stderr_tail=self.tail,
        )
        error.retryable = error.retryable or was_killed or disk_full
        return error

    def _start_threads(self) -> None:
        """Start the threads that drain stderr and detect stalls."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                _widen_pipe(stream.fileno())
        for name, work in (("stderr", self._drain), ("watch", self._watch)):
            thread = threading.Thread(target=work, name=f"reel_modal-ffmpeg-{name}", daemon=True)
            thread.start()
            self._threads += (thread,)

    @contextlib.contextmanager
    def _blocking(self, awaited: str) -> Iterator[None]:
        """Record since when the caller is blocked, and which action of ffmpeg it waits for."""
        self._awaited, self._blocked_since = awaited, (since := time.monotonic())
        try:
            yield
        finally:
            self._blocked_since = None
            self.blocked_seconds += time.monotonic() - since

    def _release(self) -> None:
        """Join the threads and close the pipes of a process that has ended."""
        self._ended.set()
        _running.discard(self)
        for thread in self._threads:
            if thread is not threading.current_thread():  # the garbage collector may call this in any thread
                thread.join(timeout=_REAP_SECONDS)
        streams = [self._process.stdin, self._process.stdout]
        if not any(thread.is_alive() for thread in self._threads):
            # If the drain thread is still alive, an orphaned child holds stderr open, and a close would block.
            streams.append(self._process.stderr)
        for stream in streams:
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _drain(self) -> None:
        stderr = self._process.stderr
        if stderr is None:
            return
        partial = b""
        while data := os.read(stderr.fileno(), _READ_BYTES):
            *lines, partial = (partial + data).split(b"\n")
            if len(partial) > _LONGEST_LINE_BYTES:  # bounds the memory
                lines, partial = [*lines, partial], b""
            self._take(lines)
        self._take([partial])
        if self._sink is not None:
            self._sink.end()

    def _take(self, lines: list[bytes]) -> None:
        """Pass each line to the sink and keep the messages."""
        for raw in lines:
            line = raw.decode("utf-8", "replace").rstrip()
            if message := line if self._sink is None else self._sink.take(line):
                self._tail.append(message[:_LONGEST_LINE_BYTES])

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._stall_seconds / 4)):
            since = self._blocked_since
            if since is not None and time.monotonic() - since > self._stall_seconds:
                self.stalled = True
                self._process.kill()
                return


@atexit.register
def _end_all() -> None:
    """Kill the remaining processes at exit, before the interpreter stops the threads that `kill` joins."""
    for process in list(_running):
        process.kill()


def _wants_session() -> bool:
    """Return whether ffmpeg gets its own session, so that a terminal's Ctrl-C reaches only us.

    False in a worker that leads a session: ffmpeg then stays in the worker's group, and one signal ends both.
    """
    return sys.platform != "win32" and os.getsid(0) != os.getpid()


def output_size(path: Path) -> int:
    """Return the size of `path` in bytes, or 0 if it does not exist yet; growth shows that ffmpeg is working."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _widen_pipe(descriptor: int) -> None:
    """Enlarge the pipe to 1 MiB: a frame then needs fewer context switches."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # the user's pipe quota may forbid it; 64 KiB works too
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
