"""FramePipe whose ffmpeg, disk, threads or block fail: the error is named and nothing remains."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.ffmpegs import faulty
from tests.media.pipes import BLACK, SIZE, check_leftovers, shades
from tests.processes import ffmpegs

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.process import FFmpegProcess
from reel_modal.errors import ConfigError, FFmpegError, FFmpegNotFoundError, FFmpegStalledError, StorageError
from reel_modal.ffmpeg_pipe import FramePipe
from reel_modal.settings import Settings

__all__ = ["check_leftovers"]


def test_pipe_ffmpeg_killed_names_signal_and_leaves_no_file(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(FFmpegError, match="SIGKILL") as caught,
        FramePipe(tmp_path / "out.mp4", size=(640, 480), fps=25, encoder="libx264") as pipe,
    ):
        for index in range(10_000):
            if index == 5:
                os.kill(next(iter(ffmpegs())), signal.SIGKILL)
            pipe.write(np.zeros((480, 640, 3), np.uint8))
    assert caught.value.exit_status == -signal.SIGKILL
    assert caught.value.frame_index is not None
    assert caught.value.frame_index < 100
    assert list(tmp_path.iterdir()) == []


def test_pipe_error_swallowed_in_block_raised_at_exit(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(FFmpegError, match="SIGKILL"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe,
    ):
        os.kill(next(iter(ffmpegs())), signal.SIGKILL)
        with contextlib.suppress(FFmpegError):
            for _ in range(10_000):
                pipe.write(BLACK)
    assert list(tmp_path.iterdir()) == []


def test_pipe_disk_full_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False).returncode == 0
    )
    # Without the right to mount, a limit on the file size causes the same failing write.
    try:
        settings = (
            Settings.from_env()
            if mounted
            else faulty(tmp_path, _LIMITED.format(real=find_ffmpeg(Settings.from_env()).path))
        )
        noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
        with (  # noqa: PT012
            pytest.raises(FFmpegError, match=r"No space left on device|File too large") as caught,
            FramePipe(
                disk / "out.mp4", size=(640, 480), fps=25, encoder="libx264", preset="ultrafast", settings=settings
            ) as pipe,
        ):
            for _ in range(50):
                pipe.write(noise)
        if mounted:
            assert "ENOSPC" in str(caught.value)
        assert [path.name for path in disk.iterdir()] == []
    finally:
        if mounted:
            subprocess.run(["/bin/umount", disk], check=True)


_LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (262144, 262144))
os.execv({real!r}, [{real!r}, *sys.argv[1:]])
"""


def test_pipe_megabytes_of_stderr_do_not_block(tmp_path: Path) -> None:
    settings = faulty(
        tmp_path,
        """
for number in range(40_000):
    print(f"complaint {number}: " + "x" * 80, file=sys.stderr)
sys.stderr.flush()
os.execv(real, [real, *sys.argv[1:]])
""",
    )
    with FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe:
        for frame in shades(20):
            pipe.write(frame)
    assert pipe.result.frames == 20
    assert "complaint 39999" in pipe.stderr_tail
    assert "complaint 30000" not in pipe.stderr_tail


def test_pipe_early_exit_with_status_0_raises(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "sys.stdin.buffer.read(9216 * 3); sys.exit(0)")
    with (  # noqa: PT012
        pytest.raises(FFmpegError, match="ended before all frames were written") as caught,
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
    ):
        for frame in shades(10_000):
            pipe.write(frame)
    assert caught.value.exit_status == 0
    assert not (tmp_path / "out.mp4").exists()


def test_pipe_frames_dropped_by_ffmpeg_raise(tmp_path: Path) -> None:
    # A filter that drops every other frame simulates any loss of frames.
    settings = faulty(
        tmp_path,
        """
arguments = [a.replace("format=yuv420p", "select=mod(n\\\\,2),format=yuv420p") for a in sys.argv[1:]]
os.execv(real, [real, *arguments[:-1], "-vsync" if False else "-fps_mode", "passthrough", arguments[-1]])
""",
    )
    with (  # noqa: PT012
        pytest.raises(Exception, match="10 frames were written to ffmpeg but the file has 5"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
    ):
        for frame in shades(10):
            pipe.write(frame)
    assert not (tmp_path / "out.mp4").exists()


def test_pipe_ffmpeg_not_reading_ended_at_timeout(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "import time; sys.stdin.buffer.read(9216); time.sleep(600)")
    settings = Settings(ffmpeg=settings.ffmpeg, stall_seconds=1.0)
    started = time.monotonic()
    with (  # noqa: PT012
        pytest.raises(FFmpegStalledError, match="no data moved for 1 s"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
    ):
        for frame in shades(10_000):
            pipe.write(frame)
    assert time.monotonic() - started < 20


def test_pipe_ffmpeg_not_exiting_ended_at_timeout(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "import time; sys.stdin.buffer.read(); time.sleep(600)")
    settings = Settings(ffmpeg=settings.ffmpeg, stall_seconds=1.0)
    with (
        pytest.raises(FFmpegStalledError, match="ffmpeg did not end"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
    ):
        pipe.write(BLACK)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_pipe_exception_in_block_propagates_and_cleans_up(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "out.mp4").write_bytes(b"the former file")
    with (  # noqa: PT012
        pytest.raises(type(error)) as caught,
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe,
    ):
        pipe.write(BLACK)
        raise error
    assert caught.value is error
    assert (tmp_path / "out.mp4").read_bytes() == b"the former file"
    with pytest.raises(ConfigError, match="after its `with` block"):
        _ = pipe.result


def test_pipe_second_ctrl_c_at_exit_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = FFmpegProcess.kill

    def interrupted(process: FFmpegProcess) -> None:
        kill(process)
        raise KeyboardInterrupt("second")

    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt, match="second"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe,
    ):
        while not list(tmp_path.iterdir()):  # until ffmpeg has made its temporary file
            pipe.write(BLACK)
        monkeypatch.setattr(FFmpegProcess, "kill", interrupted)
        raise KeyboardInterrupt("first")
    assert list(tmp_path.iterdir()) == []


def test_pipe_partly_written_frame_closes_pipe(tmp_path: Path) -> None:
    """The stand-in reads only one frame; the alarm signal arrives when the pipe is full."""
    settings = faulty(tmp_path, "import time; os.read(0, 9216); time.sleep(600)")
    last_count = -1

    def ring(number: int, stack: object) -> None:
        nonlocal last_count
        if last_count == pipe.frames_written:
            raise InterruptedByAlarmError
        last_count = pipe.frames_written

    def fill() -> None:
        for frame in shades(10_000):
            pipe.write(frame)

    former = signal.signal(signal.SIGALRM, ring)
    try:
        with (  # noqa: PT012
            pytest.raises(FFmpegError, match="a frame was written only partly") as caught,
            FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
        ):
            signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
            with pytest.raises(InterruptedByAlarmError):
                fill()
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.write(BLACK)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert caught.value.frame_index == pipe.frames_written > 1
    assert not (tmp_path / "out.mp4").exists()


class InterruptedByAlarmError(Exception):
    """An exception that a signal handler raises."""


@pytest.mark.parametrize("refused", ["stderr", "watch"])
def test_pipe_out_of_threads_raises_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    start = threading.Thread.start

    def at_the_limit(thread: threading.Thread) -> None:
        if thread.name == f"reel_modal-ffmpeg-{refused}":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", at_the_limit)
    with (
        pytest.raises(RuntimeError, match="new thread"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264"),
    ):
        pass


def test_pipe_ctrl_c_in_terminal_leaves_nothing(tmp_path: Path) -> None:
    host = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _ENDLESS,
            str(tmp_path / "out.mp4"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert host.stdout is not None
    assert host.stdout.readline() == "writing\n"
    encoders = Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()
    os.killpg(host.pid, signal.SIGINT)
    _, words = host.communicate(timeout=30)
    assert "KeyboardInterrupt" in words
    assert "closed file" not in words
    assert len(encoders) == 1
    assert not Path(f"/proc/{encoders[0]}").exists()
    assert list(tmp_path.iterdir()) == []


_ENDLESS = """
import sys
import numpy as np
from reel_modal import FramePipe
with FramePipe(sys.argv[1], size=(640, 480), fps=25, encoder="libx264") as pipe:
    while True:
        pipe.write(np.zeros((480, 640, 3), np.uint8))
        if pipe.frames_written == 20:
            print("writing", flush=True)
"""


def test_pipe_without_frames_raises_and_leaves_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(FFmpegError, match="no frame was written"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_pipe_output_path_is_folder_raises_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    with (
        pytest.raises(StorageError, match="could not be published"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe,
    ):
        pipe.write(BLACK)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_pipe_missing_ffmpeg_named_with_cure(tmp_path: Path) -> None:
    with (
        pytest.raises(FFmpegNotFoundError, match="REEL_MODAL_FFMPEG"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, settings=Settings(ffmpeg=str(tmp_path / "no"))),
    ):
        pytest.fail("the block was entered")
