"""Child processes of a deploy, each in a process group that ends with it, however the deploy ends."""

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

from reel_modal.interruption import hold_interruptions

__all__ = ["kill_group", "run_to_end", "temporary_files_in"]

_REAP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.01


def run_to_end(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout_seconds: float,
    given: str = "",
    folder: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command`, and return its exit status and what it wrote.

    Args:
        command: The binary and its arguments.
        env: Its environment, whole.
        timeout_seconds: Longest that it may take.
        given: What it reads from stdin.
        folder: Where it runs; None is the current folder.

    Raises:
        OSError: It does not start.
        subprocess.TimeoutExpired: It took too long, and was ended with all that it had started.

    Cancellation: KeyboardInterrupt ends it with all that it has started.
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
        out, err = process.communicate(given, timeout_seconds)
    except BaseException:
        if process is not None:
            kill_group(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def kill_group(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End `process`, which was started in a session of its own, with all that it has started, and reap it."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
        process.wait(_REAP_SECONDS)
        return
    with contextlib.suppress(PermissionError):  # it has ended meanwhile, as macOS says
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_REAP_SECONDS)
    # What it had started ends by itself now, but may still write for a moment.
    deadline = time.monotonic() + _REAP_SECONDS
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of it has ended
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(_LOOK_SECONDS)


def temporary_files_in(folder: Path) -> dict[str, str]:
    """Return the variables that make a process put its temporary files into `folder`, whichever system this is."""
    return dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
