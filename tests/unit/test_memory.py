"""The peak memory of a job."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from reel_modal.functions.memory import MemoryWatch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

HELD = 150_000_000
CHILD = f"block = bytearray(b'x') * {HELD}; print('held', flush=True); input()"


def test_samples_keep_the_peak_of_a_process_that_has_ended() -> None:
    watch = MemoryWatch(sampled=True)
    with watch.watching():
        before = watch.peak_bytes()
        command = [sys.executable, "-c", CHILD]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            watch.sample()
            child.communicate(b"\n")
    assert watch.peak_bytes() - before > 0.9 * HELD
    # No thread is left.
    assert "reel_modal-memory" not in {thread.name for thread in threading.enumerate()}


def test_kernel_peak_needs_no_thread() -> None:
    watch = MemoryWatch()
    with watch.watching():
        assert "reel_modal-memory" not in {thread.name for thread in threading.enumerate()}
    assert watch.peak_bytes() > 10_000_000


GUEST = f"""
import sys; sys.path[:0] = {sys.path!r}
from reel_modal.functions.memory import MemoryWatch
watch = MemoryWatch()
with watch.watching():
    block = bytearray(b"x") * {HELD}
    watch.sample()
    del block
print(watch._sampled, watch.peak_bytes())
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("runsc") is None, reason="gVisor (runsc) is not installed")
def test_gvisor_peak_is_sampled() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        command = ["runsc", "--platform=ptrace", "--network=none", f"--root={Path(folder)}", "do"]
        guest = [*command, sys.executable, "-c", GUEST]
        ran = subprocess.run(guest, check=False, capture_output=True, text=True, timeout=60)
    if ran.returncode != 0:
        pytest.skip(f"gVisor does not start here: {ran.stderr[-300:]}")
    sampled, peak = ran.stdout.split()
    assert sampled == "True"
    assert HELD < int(peak) < HELD + 100_000_000
