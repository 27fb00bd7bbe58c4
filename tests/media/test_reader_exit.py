"""A FrameReader that is not closed: the interpreter exits normally, and no ffmpeg is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.clips import Clips
from tests.processes import await_end

RUNS = {"break": 25, "next": 25, "raise": 25, "kept": 10, "entered": 10, "cycle": 10}
MARK = "REEL_MODAL_TEST_READER_EXIT"
END_SECONDS = 10

# Children forked after the imports start fast, and exit like any interpreter that reaches its last line. Two run in
# parallel, except if each writes a traceback, because the lines of two would mix. The objects of the imports are frozen:
# otherwise each child would copy and collect all of them at its exit, which takes longer than reading.
SCRIPT = """
import gc, json, os, sys
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.media import probe

path, decoder, way, runs = json.loads(sys.argv[1])
media, _ = probe(path), find_ffmpeg()
gc.freeze()
children, statuses = [], []
for _ in range(runs):
    if len(children) == (1 if way == "raise" else 2):
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(children.pop(0), 0)[1]))
    child = os.fork()
    if child == 0:
        break
    children.append(child)
else:
    statuses += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(statuses))
    sys.exit()

def read(reader):
    if way == "break":
        for frame in reader:
            break
    elif way == "next":
        next(iter(reader))
    elif way == "kept":
        global frames
        frames = iter(reader)
        next(frames)
    elif way == "entered":
        global entered
        entered = reader.__enter__()
    elif way == "cycle":
        cycle = [iter(reader)]
        cycle.append(cycle)
        next(cycle[0])
    else:
        for frame in reader:
            raise LookupError("in the loop")

read(FrameReader(media, decoder=decoder))
"""


def running(mark: str) -> list[Path]:
    """Return the running processes that were started with `mark` in their environment."""
    expected, remaining = f"{MARK}={mark}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if expected in (process / "environ").read_bytes().split(b"\0"):
                remaining.append(process)
    return remaining


@pytest.mark.parametrize("way", RUNS)
@pytest.mark.parametrize("decoder", ["process", "in_process"])
def test_reader_not_closed_exits_cleanly(clips: Clips, decoder: str, way: str) -> None:
    mark = f"{decoder}-{way}-{os.getpid()}"
    runs = RUNS[way]
    arguments = json.dumps([str(clips.get("with_sound.mp4")), decoder, way, runs])
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT, arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, MARK: mark},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1 if way == "raise" else 0] * runs, done.stderr[-2000:]
    assert done.stderr.count("LookupError: in the loop") == (runs if way == "raise" else 0)
    assert way == "raise" or done.stderr == ""
    # A killed process disappears only after the kernel has removed it.
    await_end([int(process.name) for process in running(mark)], END_SECONDS)
