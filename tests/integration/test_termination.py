"""SIGTERM, SIGHUP and Ctrl-C end a command and leave no file, no ffmpeg and no temporary directory."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.clips import Clips, demo_package, made_clip
from tests.processes import await_end, executable, family
from tests.watchdog import with_variable

from reel_modal._support.interruption import Interruption, hold_interruptions
from reel_modal.media import probe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

PROMPT_SECONDS = 10.0
SLOW = ("--encoder", "libx264", "--preset", "veryslow")
KEYFRAME = {"time": 0, "x": 160, "y": 90, "radiusX": 40, "radiusY": 40}
Command = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """The temporary directory; fail if a file or a process that uses it remains."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    await_end(with_variable("TMPDIR", str(folder)), PROMPT_SECONDS)
    assert list(folder.rglob("*")) == []


@pytest.fixture
def start(scratch: Path) -> Command:
    """Start commands in a separate session, with a separate temporary directory."""

    def popen(*arguments: object, ignored: Sequence[int] = ()) -> subprocess.Popen[str]:
        code = "import runpy, signal, sys\n"
        code += "".join(f"signal.signal({int(number)}, signal.SIG_IGN)\n" for number in ignored)
        code += "sys.argv[0] = 'reel-modal'\nrunpy.run_module('reel_modal', run_name='__main__')"
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(scratch)},
            start_new_session=True,
            text=True,
        )

    return popen


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """The path of the output, whose folder stays empty."""
    folder = tmp_path / "made"
    folder.mkdir()
    yield folder / "out.mp4"
    assert list(folder.iterdir()) == []


def until_it_encodes(process: subprocess.Popen[str]) -> None:
    """Wait until an ffmpeg writes."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pid in family(process.pid):
            if "ffmpeg" in executable(pid) and any(".part" in str(file) for file in open_files(pid)):
                return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("no ffmpeg writes anything")


def open_files(pid: int) -> list[Path]:
    files: list[Path] = []
    with contextlib.suppress(FileNotFoundError):  # the process ended just now
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed just now
                files.append(link.readlink())
    return files


def overlay_arguments(source: Path, tmp_path: Path, output: Path) -> list[object]:
    regions = tmp_path / "regions.json"
    regions.write_text(json.dumps([{"id": "a", "start_time": 0, "end_time": 5, "keyframes": [KEYFRAME]}]))
    return ["render-overlay", source, output, "--regions", regions]


def framing_arguments(source: Path, tmp_path: Path, output: Path) -> list[object]:
    """A crop that stands still: one ffmpeg reads the file and writes the other."""
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps([{"time": 0, "x": 100, "y": 0, "width": 404, "height": 720}]))
    return ["process-framing", source, output, "--spec", spec]


def upscale_arguments(source: Path, tmp_path: Path, output: Path) -> list[object]:
    return ["apply-upscale", source, output, "--scale", "2"]


ARGUMENTS = {
    "render_overlay": overlay_arguments,
    "process_framing": framing_arguments,
    "apply_upscale": upscale_arguments,
}
LONG = {"render_overlay": "bigbuckbunny.mp4", "process_framing": "bigbuckbunny.mp4", "apply_upscale": "long.mp4"}
"""A clip that takes each function seconds."""


@pytest.mark.parametrize("function", ARGUMENTS)
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
    ids=str,
)
def test_command_ended_by_signal_leaves_nothing(
    start: Command, clips: Clips, tmp_path: Path, output: Path, function: str, number: int, status: int
) -> None:
    process = start(*ARGUMENTS[function](clips.get(LONG[function]), tmp_path, output), *SLOW)
    until_it_encodes(process)
    left = family(process.pid)
    os.kill(process.pid, number)
    _, words = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in words) == (status, False), words
    assert "interrupted; no partial files were left" in words
    await_end(left, PROMPT_SECONDS)


@pytest.mark.parametrize("function", ARGUMENTS)
def test_command_ended_at_any_time_leaves_nothing_or_output(
    start: Command, tmp_path: Path, scratch: Path, function: str
) -> None:
    source = made_clip(tmp_path / "in.mp4", seconds=2, audio_seconds=2)
    moments = random.Random(function)
    for attempt in range(4):
        out = tmp_path / str(attempt) / "out.mp4"
        out.parent.mkdir()
        process = start(*ARGUMENTS[function](source, tmp_path, out), "--encoder", "libx264", "--preset", "ultrafast")
        # Half a second for the start, and as much for the job; a busy machine takes longer for both.
        time.sleep(moments.uniform(0.3, 1.2))
        os.kill(process.pid, signal.SIGTERM if attempt % 2 else signal.SIGHUP)
        _, words = process.communicate(timeout=60)
        # Before the first line runs, a signal has its default effect.
        assert process.returncode in {0, 143, 129, -signal.SIGTERM, -signal.SIGHUP}, words
        assert "Traceback" not in words
        published = [path.name for path in out.parent.iterdir()]
        # A signal may also arrive after the output was published: the output is complete or missing.
        assert published == ["out.mp4"] or (published == [] and process.returncode != 0)
        if published:
            assert (scan := probe(out, scan=True).scan) is not None
            assert scan.duration_seconds > 1
        assert list(scratch.rglob("*")) == []


def test_command_two_signals_clean_up_once(start: Command, clips: Clips, tmp_path: Path, output: Path) -> None:
    process = start(*overlay_arguments(clips.get("bigbuckbunny.mp4"), tmp_path, output), *SLOW)
    until_it_encodes(process)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):  # as systemd does with SendSIGHUP
        os.kill(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode in {143, 129}


def test_sigterm_works_with_ctrl_c_ignored(start: Command, clips: Clips, tmp_path: Path, output: Path) -> None:
    process = start(
        *overlay_arguments(clips.get("bigbuckbunny.mp4"), tmp_path, output), *SLOW, ignored=[signal.SIGINT]
    )  # cmd & in a script
    until_it_encodes(process)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_sighup_under_nohup_is_ignored(start: Command, tmp_path: Path) -> None:
    source = made_clip(tmp_path / "in.mp4", size=(160, 90), seconds=3)
    out = tmp_path / "out.mp4"
    process = start("apply-upscale", source, out, "--scale", "2", "--encoder", "libx264", ignored=[signal.SIGHUP])
    until_it_encodes(process)
    os.kill(process.pid, signal.SIGHUP)
    _, words = process.communicate(timeout=60)
    assert (process.returncode, out.exists()) == (0, True), words


def test_command_terminal_closed_leaves_nothing(clips: Clips, tmp_path: Path, output: Path, scratch: Path) -> None:
    arguments = [
        sys.executable,
        "-m",
        "reel_modal",
        *map(str, overlay_arguments(clips.get("bigbuckbunny.mp4"), tmp_path, output)),
        *SLOW,
    ]
    variables = {**os.environ, "TMPDIR": str(scratch), "TERM": "xterm-256color"}
    variables.pop("PYTHONUNBUFFERED", None)  # what is buffered cannot be written at exit either
    pid, screen = pty.fork()
    if pid == 0:
        os.execve(arguments[0], arguments, variables)  # noqa: S606
    deadline = time.monotonic() + 60
    while not list(scratch.glob("reel_modal-*/.*.part.mp4")):
        assert time.monotonic() < deadline
        os.read(screen, 65536)
    os.close(screen)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129


@pytest.mark.parametrize("made", [None, "highlight.mp4"])
def test_demo_ended_by_signal_leaves_complete_files(
    start: Command, tmp_path: Path, made: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(demo_package(tmp_path / "packages")))
    process = start("demo", "--output", tmp_path / "demo")
    while made is not None and not (tmp_path / "demo" / made).exists():
        assert process.poll() is None
        time.sleep(0.05)
    until_it_encodes(process)
    os.kill(process.pid, signal.SIGTERM)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 143, words
    assert list(tmp_path.rglob(".*")) == []
    assert (tmp_path / "demo").exists() == (made is not None)
    assert {path.name for path in (tmp_path / "demo").rglob("*")} <= {"highlight.mp4", "before_and_after.png"}


def test_doctor_ended_by_signal_leaves_nothing(start: Command) -> None:
    process = start("doctor")
    deadline = time.monotonic() + 60
    while not any("ffmpeg" in executable(pid) for pid in family(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_interruption_restores_previous_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
    assert (interruption.received, interruption.exit_status) == (signal.SIGTERM, 143)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before


@pytest.fixture
def default_ctrl_c() -> Iterator[None]:
    """Python's own handler, also if an event loop of other tests has set another one."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("default_ctrl_c")
def test_hold_interruptions_delays_signal_to_block_end() -> None:
    done: list[str] = []

    def start(*numbers: signal.Signals) -> None:
        with hold_interruptions():
            for number in numbers:
                signal.raise_signal(number)
            done.append("started")
        done.append("never")

    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        start(signal.SIGHUP, signal.SIGTERM)
    assert (done, interruption.received) == (["started"], signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt):
        start(signal.SIGINT)
    assert done == ["started", "started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
