"""One running ffmpeg: started in its own session, its stderr drained, its silences bounded, always reaped.

It must not know what flows through the pipes; `ffmpeg_pipe` does.
"""

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

from reel_modal.errors import FFmpegError, FFmpegNotFoundError, FFmpegStalledError
from reel_modal.frame_memory import PIPE_BYTES, SharedBuffer
from reel_modal.interruption import hold_interruptions

__all__ = ["QUIET", "FFmpegProcess", "LineSink", "output_size"]

_log = logging.getLogger(__name__)

_running: weakref.WeakSet[FFmpegProcess] = weakref.WeakSet()

QUIET: Final = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+warning")
"""Options of every command: no console input, no statistics, warnings only, and each in a line of its own."""

_TAIL_LINES: Final = 30
_READ_BYTES: Final = 65536
_LONGEST_LINE_BYTES: Final = 4096
_REAP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.25
_SIGNALLED_STATUS: Final = 255
"""How ffmpeg ends by itself after SIGTERM, SIGINT or SIGQUIT."""

_KILLED: Final = frozenset(
    {
        _SIGNALLED_STATUS,
        *(-getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGHUP") if hasattr(signal, name)),
    }
)
"""The exit statuses of an ffmpeg that was ended from outside; one that crashes ends by other signals."""

# A statically linked ffmpeg loads the machine's iconv modules for names in MPEG-TS, and crashes in them.
_ENVIRONMENT: Final = {"GCONV_PATH": os.devnull}
# glibc gives the memory of each frame back to the system and asks for it again, page by page, which costs as much as
# reading the frame; with these it keeps it.
_KEEP_MEMORY: Final = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}


class LineSink(Protocol):
    """Takes lines of stderr that are data and no message."""

    def take(self, line: str) -> str:
        """Take one line and return what of it is a message; an empty text for none."""
        ...

    def end(self) -> None:
        """Note that no more lines come."""
        ...


class FFmpegProcess:
    """A started ffmpeg that can neither block on its own words, nor wait for ever, nor be left behind.

    Args:
        command: The whole command line; its first item is the binary.
        feeds: Whether the caller writes to its stdin.
        yields: Whether the caller reads its stdout.
        stall_seconds: Longest that it may neither take nor give data before it is killed.
        sink: Takes each line of stderr first, in the draining thread; None treats every line as a message.

    Raises:
        FFmpegNotFoundError: The binary does not start.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        feeds: bool = False,
        yields: bool = False,
        stall_seconds: float,
        sink: LineSink | None = None,
    ) -> None:
        self.command: tuple[str, ...] = tuple(command)
        self.stalled: bool = False
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
            # A signal in the middle of the start would lose the process, and with it who ends it.
            with hold_interruptions():
                # A buffered stream has a lock. A thread that holds it when the interpreter exits makes that abort.
                process = self._process = subprocess.Popen(
                    self.command,
                    bufsize=0,
                    stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if yields else subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=self._has_session,
                    env={**_ENVIRONMENT, **(_KEEP_MEMORY if feeds else {}), **os.environ},
                )
            _running.add(self)
            self._attend()
        except BaseException as error:
            if process is not None:  # no thread can be started, or an early Ctrl-C
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
        """Write all of `data` (bytes) to its stdin, without a buffer between.

        Args:
            data: Bytes; a shared buffer is not even copied into the pipe, and must not be changed any more.

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
        """Fill `buffer` (bytes) from its stdout; return the bytes read, fewer only at the end."""
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
        """Tell it that no more data comes."""
        stdin, self._process.stdin = self._process.stdin, None
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()

    def finish(self, grows: Callable[[], int] = int) -> int:
        """Wait for its end and return the exit status.

        Args:
            grows: A number that changes while it works, such as the size of its output; when it stands
                still for `stall_seconds`, the process is killed.

        Raises:
            FFmpegStalledError: It had to be killed.
        """
        self.close_stdin()
        seen, since = grows(), time.monotonic()
        while (status := self._ended_within(_LOOK_SECONDS)) is None:
            if (now := grows()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > self._stall_seconds:
                self.give_up("end")
                raise self.error("ffmpeg did not end")
        self._release()
        return status

    def _ended_within(self, seconds: float) -> int | None:
        """Return the exit status, None while it runs after `seconds`."""
        drain = self._threads[0]
        # stderr ends with the process, and its thread at once; `Popen.wait` looks at growing intervals instead.
        drain.join(timeout=seconds)
        try:
            return self._process.wait(timeout=0 if drain.is_alive() else seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End it and reap it, and where it has its own session, whatever it started; safe to call twice."""
        if self._process.poll() is None:
            # It has ended meanwhile, which macOS says by PermissionError.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if sys.platform != "win32" and self._has_session:
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:  # its group is our own
                    self._process.kill()
            try:
                self._process.wait(timeout=_REAP_SECONDS)
            except subprocess.TimeoutExpired:
                _log.error("ffmpeg (process %d) does not end on SIGKILL", self._process.pid)
        self._release()

    def give_up(self, awaited: str) -> None:
        """Kill a stalled process, so that `error` says what it was to do.

        Args:
            awaited: What ffmpeg did not do within `stall_seconds`, such as `read its stdin`.
        """
        self.stalled, self._awaited = True, awaited
        self.kill()

    def error(self, message: str, *, frame_index: int | None = None) -> FFmpegError:
        """Return the error that says `message`, how the process ended and its last words."""
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

    def _attend(self) -> None:
        """Start what drains its words and bounds its silences."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                _widen_pipe(stream.fileno())
        for name, work in (("stderr", self._drain), ("watch", self._watch)):
            thread = threading.Thread(target=work, name=f"reel_modal-ffmpeg-{name}", daemon=True)
            thread.start()
            self._threads += (thread,)

    @contextlib.contextmanager
    def _blocking(self, awaited: str) -> Iterator[None]:
        """Mark the time from which the watcher counts, and what ffmpeg is to do until it may go on."""
        self._awaited, self._blocked_since = awaited, time.monotonic()
        try:
            yield
        finally:
            self._blocked_since = None

    def _release(self) -> None:
        """Join the threads and close the pipes of a process that has ended."""
        self._ended.set()
        _running.discard(self)
        for thread in self._threads:
            if thread is not threading.current_thread():  # the garbage collector runs in any thread
                thread.join(timeout=_REAP_SECONDS)
        streams = [self._process.stdin, self._process.stdout]
        if not any(thread.is_alive() for thread in self._threads):
            # While one drains it, a process that was left behind holds stderr, and a close would wait.
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
            if len(partial) > _LONGEST_LINE_BYTES:  # bound the memory, whatever ffmpeg writes
                lines, partial = [*lines, partial], b""
            self._take(lines)
        self._take([partial])
        if self._sink is not None:
            self._sink.end()

    def _take(self, lines: list[bytes]) -> None:
        """Give each line to the sink and keep the messages."""
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
    """Kill what still runs at exit; later, the threads that `kill` joins are stopped for good."""
    for process in list(_running):
        process.kill()


def _wants_session() -> bool:
    """Return whether ffmpeg gets a session of its own, out of reach of a terminal's Ctrl-C, which is ours to handle.

    Not under a worker that leads one: there ffmpeg stays in the worker's group, so that one signal ends both.
    """
    return sys.platform != "win32" and os.getsid(0) != os.getpid()


def output_size(path: Path) -> int:
    """Return the bytes of `path`, 0 while it is not there: life shows as growth."""
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
    """Ask for 1 MiB: a frame then takes fewer turns between the two processes."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # the user's limit of pipe pages may forbid it; 64 KiB works too
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
