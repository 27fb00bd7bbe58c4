"""Child processes of the deploy command, each in its own process group, which is killed if the command ends early."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from reel_modal._support.interruption import hold_interruptions

__all__ = ["kill_group", "run_to_end", "temporary_files_in"]

_REAP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.01


def run_to_end(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout_seconds: float,
    stdin_text: str = "",
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command`, and return its exit status, stdout and stderr.

    Args:
        command: The binary and its arguments.
        env: The complete environment of the process.
        timeout_seconds: Timeout.
        stdin_text: Text for stdin.
        folder: Working directory; None is the current one.

    Raises:
        OSError: The process could not be started.
        subprocess.TimeoutExpired: The process took too long; its process group was killed.

    Cancellation: KeyboardInterrupt kills the process group.
    """
    process: subprocess.Popen[str] | None = None
    try:
        with hold_interruptions():
            process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        stdout, stderr = process.communicate(stdin_text, timeout_seconds)
    except BaseException:
        if process is not None:
            kill_group(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def kill_group(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Kill `process`, a session leader, with its process group, and reap it; do nothing if it has already ended."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
        process.wait(_REAP_SECONDS)
        return
    with contextlib.suppress(PermissionError):  # macOS raises this if the process has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_REAP_SECONDS)
    # Its child processes are killed too, but may still write for a moment.
    deadline = time.monotonic() + _REAP_SECONDS
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the whole group has ended
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(_LOOK_SECONDS)


def temporary_files_in(folder: Path) -> dict[str, str]:
    """Return environment variables that set a process's temporary directory to `folder`, on any system."""
    return dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
