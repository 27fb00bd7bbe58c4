"""One running ffmpeg: ended wherever it runs, and every way of failing said in words."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.ffmpegs import REAL, executable

from reel_modal.config import Settings
from reel_modal.errors import EncoderUnavailableError, FFmpegError, FFmpegNotFoundError
from reel_modal.media import ffmpeg_process
from reel_modal.media.encoders import encoder_arguments, try_encoder
from reel_modal.media.ffmpeg_process import FFmpegProcess

PATIENT = 60.0


def python(body: str) -> list[str]:
    """A stand-in for ffmpeg that does `body`."""
    return [sys.executable, "-c", body]


KILLS_A_SLEEPER = """
import sys, time
from reel_modal.media.ffmpeg_process import FFmpegProcess
process = FFmpegProcess([sys.executable, "-c", "import time; time.sleep(100)"], stall_seconds=60)
started = time.monotonic()
process.kill()
print(process.error("killed"), time.monotonic() - started < 9)
"""


@pytest.mark.parametrize("leads", [False, True], ids=["in a shell", "as the first process of a session"])
def test_it_can_be_killed_whatever_session_this_process_is_in(leads: bool) -> None:
    """A container's first process, a daemon and a worker lead a session; ffmpeg then runs in theirs."""
    done = subprocess.run(
        python(KILLS_A_SLEEPER), capture_output=True, text=True, check=True, timeout=60, start_new_session=leads
    )
    assert "ended by SIGKILL" in done.stdout
    assert done.stdout.endswith("True\n")


def test_a_child_that_holds_on_to_stderr_does_not_hold_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg_process, "_REAP_SECONDS", 0.5)
    body = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'],"
    process = FFmpegProcess(
        python(body + " start_new_session=True, stdout=subprocess.DEVNULL).pid, flush=True)"),
        yields=True,
        stall_seconds=PATIENT,
    )
    said = bytearray(20)
    left_behind = int(said[: process.read_into(memoryview(said))])
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


def test_a_binary_that_does_not_start_is_named(tmp_path: Path) -> None:
    no_program = tmp_path / "ffmpeg"
    no_program.write_text("no program")
    with pytest.raises(FFmpegNotFoundError, match=r"ffmpeg does not start: .*Permission denied") as caught:
        FFmpegProcess([str(no_program)], stall_seconds=PATIENT)
    assert caught.value.command == (str(no_program),)


def test_data_for_a_closed_input_are_refused_and_an_unread_output_is_empty() -> None:
    process = FFmpegProcess(python("import sys; sys.stdin.read()"), feeds=True, stall_seconds=PATIENT)
    process.write(memoryview(b"all"))
    process.close_stdin()
    with pytest.raises(BrokenPipeError):
        process.write(memoryview(b"more"))
    assert process.read_into(memoryview(bytearray(4))) == 0
    assert process.finish() == 0
    process.kill()


@pytest.mark.parametrize(("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGRTMIN + 3, "signal 37")])
def test_an_end_by_a_signal_names_it(number: int, name: str) -> None:
    # Without a core file, whatever the machine's limits are.
    body = "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {number})"
    process = FFmpegProcess(python(body.format(number=int(number))), stall_seconds=PATIENT)
    assert process.finish() == -number
    assert f"it failed: ended by {name}" in str(process.error("it failed"))


@pytest.mark.parametrize(
    ("number", "retryable"),
    [(signal.SIGKILL, True), (signal.SIGTERM, True), (signal.SIGHUP, True), (signal.SIGSEGV, False)],
)
def test_error_of_an_ffmpeg_killed_from_outside_is_retryable(number: int, retryable: bool) -> None:
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
    process = FFmpegProcess(command, yields=True, stall_seconds=PATIENT)
    try:
        # It heeds signals by then. Frames would fill the pipe, and a write that blocks outlasts a SIGTERM.
        process.read_into(memoryview(bytearray(200)))
        os.kill(process.pid, number)
        while process.read_into(memoryview(bytearray(1 << 20))):  # a full pipe would hold it
            pass
        assert process.finish() in {-number, 255}
        error = process.error("it failed")
        assert error.retryable is retryable
        assert "it failed: ended by" in str(error)
        assert pickle.loads(pickle.dumps(error)).retryable is retryable  # noqa: S301
    finally:
        process.kill()


def test_a_full_disk_is_said_first() -> None:
    body = "import sys; sys.exit('av_interleaved_write_frame(): No space left on device')"
    process = FFmpegProcess(python(body), stall_seconds=PATIENT)
    assert process.finish() == 1
    error = process.error("it failed", frame_index=3)
    assert type(error) is FFmpegError
    assert error.retryable
    assert str(error).startswith("it failed: No space left on device (ENOSPC); free some space")


def test_hevc_is_tagged_for_apples_players_and_own_options_come_last() -> None:
    arguments = encoder_arguments("libx265", quality=20, preset="slow", threads=3, options={"crf": "18"})
    x265 = ("-c:v", "libx265", "-threads:v", "3", "-preset", "slow", "-crf", "20", "-tag:v", "hvc1")
    assert arguments == (*x265, "-crf", "18", "-x265-params", "pools=3")
    assert encoder_arguments("hevc_nvenc", quality=20, preset="slow", threads=3)[-2:] == ("-tag:v", "hvc1")
    assert "p6" in encoder_arguments("h264_nvenc", quality=20, preset="slow", threads=3)
    assert "p1" in encoder_arguments("h264_nvenc", quality=20, preset="p1", threads=3)
    assert encoder_arguments("ffv1", quality=20, preset="slow", threads=3) == ("-c:v", "ffv1", "-threads:v", "3")


def test_an_encoder_that_gives_nothing_is_given_up_within_the_bound(tmp_path: Path) -> None:
    faithful = f"import os, sys, time\nif 'libx264' not in sys.argv: os.execv({REAL!r}, [{REAL!r}, *sys.argv[1:]])\n"
    stuck = executable(tmp_path / "ffmpeg", f"{faithful}time.sleep(100)")
    with pytest.raises(EncoderUnavailableError, match=r"'libx264' gave nothing for 0\.5 s"):
        try_encoder(Settings(ffmpeg=stuck, stall_seconds=0.5), "libx264")
    with pytest.raises(FFmpegNotFoundError, match="no ffmpeg at"):
        try_encoder(Settings(ffmpeg=str(tmp_path / "nowhere")), "libx264")
