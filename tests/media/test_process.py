"""One ffmpeg process: termination, and error messages for every failure."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.ffmpegs import REAL, executable

from reel_modal._ffmpeg import process as ffmpeg_process
from reel_modal._ffmpeg.encoders import encoder_arguments, try_encoder
from reel_modal._ffmpeg.process import FFmpegProcess
from reel_modal.errors import EncoderUnavailableError, FFmpegError, FFmpegNotFoundError, FFmpegStalledError
from reel_modal.settings import Settings

PATIENT = 60.0


def python(body: str) -> list[str]:
    """Return the command of a Python stand-in for ffmpeg that runs `body`."""
    return [sys.executable, "-c", body]


KILLS_A_SLEEPER = """
import sys, time
from reel_modal._ffmpeg.process import FFmpegProcess
process = FFmpegProcess([sys.executable, "-c", "import time; time.sleep(100)"], stall_seconds=60)
started = time.monotonic()
process.kill()
print(process.error("killed"), time.monotonic() - started < 9)
"""


@pytest.mark.parametrize("leads", [False, True], ids=["in a shell", "as the first process of a session"])
def test_process_kill_works_in_any_session(leads: bool) -> None:
    """ffmpeg runs in the session of its parent, which may lead it: in a container, a daemon or a worker."""
    done = subprocess.run(
        python(KILLS_A_SLEEPER), capture_output=True, text=True, check=True, timeout=60, start_new_session=leads
    )
    assert "ended by SIGKILL" in done.stdout
    assert done.stdout.endswith("True\n")


def test_process_grandchild_keeping_stderr_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg_process, "_REAP_SECONDS", 0.5)
    body = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'],"
    process = FFmpegProcess(
        python(body + " start_new_session=True, stdout=subprocess.DEVNULL).pid, flush=True)"),
        stdout=True,
        stall_seconds=PATIENT,
    )
    buffer = bytearray(20)
    left_behind = int(buffer[: process.read_into(memoryview(buffer))])
    try:
        started = time.monotonic()
        assert process.finish() == 0
        assert time.monotonic() - started < PATIENT
    finally:
        os.kill(left_behind, signal.SIGKILL)
        for thread in process._threads:
            thread.join()
        assert process._process.stderr is not None
        process._process.stderr.close()


def test_process_binary_that_does_not_start_is_named(tmp_path: Path) -> None:
    no_program = tmp_path / "ffmpeg"
    no_program.write_text("no program")
    with pytest.raises(FFmpegNotFoundError, match=r"ffmpeg does not start: .*Permission denied") as caught:
        FFmpegProcess([str(no_program)], stall_seconds=PATIENT)
    assert caught.value.command == (str(no_program),)


def test_process_closed_stdin_refuses_and_unread_stdout_is_empty() -> None:
    process = FFmpegProcess(python("import sys; sys.stdin.read()"), stdin=True, stall_seconds=PATIENT)
    process.write(memoryview(b"all"))
    process.close_stdin()
    with pytest.raises(BrokenPipeError):
        process.write(memoryview(b"more"))
    assert process.read_into(memoryview(bytearray(4))) == 0
    assert process.finish() == 0
    process.kill()


@pytest.mark.parametrize(("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGRTMIN + 3, "signal 37")])
def test_process_ended_by_signal_names_signal(number: int, name: str) -> None:
    # Disable core files, independent of the machine's limits.
    body = "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {number})"
    process = FFmpegProcess(python(body.format(number=int(number))), stall_seconds=PATIENT)
    assert process.finish() == -number
    assert f"it failed: ended by {name}" in str(process.error("it failed"))


@pytest.mark.parametrize(
    ("number", "retryable"),
    [(signal.SIGKILL, True), (signal.SIGTERM, True), (signal.SIGHUP, True), (signal.SIGSEGV, False)],
)
def test_process_killed_from_outside_is_retryable(number: int, retryable: bool) -> None:
    command = [
        REAL,
        *ffmpeg_process.QUIET,
        "-re",
        "-f",
        "lavfi",
        "-i",
        "testsrc2",
        *("-f", "framecrc", "-flush_packets", "1"),
        "-",
    ]
    process = FFmpegProcess(command, stdout=True, stall_seconds=PATIENT)
    try:
        # It handles signals by then. Frames would fill the pipe, and a blocked write survives SIGTERM.
        process.read_into(memoryview(bytearray(200)))
        os.kill(process.pid, number)
        while process.read_into(memoryview(bytearray(1 << 20))):  # a full pipe would block it
            pass
        assert process.finish() in {-number, 255}
        error = process.error("it failed")
        assert error.retryable is retryable
        assert "it failed: ended by" in str(error)
        assert pickle.loads(pickle.dumps(error)).retryable is retryable  # noqa: S301
    finally:
        process.kill()


def test_process_disk_full_is_named_first() -> None:
    body = "import sys; sys.exit('av_interleaved_write_frame(): No space left on device')"
    process = FFmpegProcess(python(body), stall_seconds=PATIENT)
    assert process.finish() == 1
    error = process.error("it failed", frame_index=3)
    assert type(error) is FFmpegError
    assert error.retryable
    assert str(error).startswith("it failed: No space left on device (ENOSPC); free some space")


def test_hevc_tagged_hvc1_and_user_options_come_last() -> None:
    arguments = encoder_arguments("libx265", quality=20, preset="slow", threads=3, options={"crf": "18"})
    x265 = ("-c:v", "libx265", "-threads:v", "3", "-preset", "slow", "-crf", "20", "-tag:v", "hvc1")
    assert arguments == (*x265, "-crf", "18", "-x265-params", "pools=3")
    assert encoder_arguments("hevc_nvenc", quality=20, preset="slow", threads=3)[-2:] == ("-tag:v", "hvc1")
    assert "p6" in encoder_arguments("h264_nvenc", quality=20, preset="slow", threads=3)
    assert "p1" in encoder_arguments("h264_nvenc", quality=20, preset="p1", threads=3)
    assert encoder_arguments("ffv1", quality=20, preset="slow", threads=3) == ("-c:v", "ffv1", "-threads:v", "3")


def test_encoder_check_without_answer_ends_at_timeout(tmp_path: Path) -> None:
    faithful = f"import os, sys, time\nif 'libx264' not in sys.argv: os.execv({REAL!r}, [{REAL!r}, *sys.argv[1:]])\n"
    stuck = executable(tmp_path / "ffmpeg", f"{faithful}time.sleep(100)")
    with pytest.raises(EncoderUnavailableError, match=r"'libx264' did not encode .* within 0\.5 s"):
        try_encoder(Settings(ffmpeg=stuck, stall_seconds=0.5), "libx264")
    with pytest.raises(FFmpegNotFoundError, match="ffmpeg not found at"):
        try_encoder(Settings(ffmpeg=str(tmp_path / "nowhere")), "libx264")


def test_process_that_does_not_end_is_stalled() -> None:
    process = FFmpegProcess(python("import time; time.sleep(100)"), stall_seconds=0.3)
    started = time.monotonic()
    with pytest.raises(FFmpegStalledError):
        process.finish()
    assert time.monotonic() - started < PATIENT


def test_process_that_works_slowly_is_not_stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = tmp_path / "end"
    looks: list[int] = []

    def activity() -> int:
        """Take one second of the process's clock, and change at every second call."""
        looks.append(len(looks))
        if len(looks) == 8:
            end.touch()
        return len(looks) // 2

    monkeypatch.setattr(ffmpeg_process, "time", SimpleNamespace(monotonic=lambda: float(len(looks))))
    body = f"import pathlib, time\nwhile not pathlib.Path({str(end)!r}).exists(): time.sleep(0.01)"
    process = FFmpegProcess(python(body), stall_seconds=1.5)
    assert process.finish(activity) == 0
    assert len(looks) >= 8
