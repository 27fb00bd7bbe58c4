"""An interrupted test run leaves no process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.processes import await_end
from tests.watchdog import with_variable

ROOT = Path(__file__).parents[2]
RUN = """
import os, subprocess, time
from pathlib import Path

def test_that_takes_long(request):
    request.getfixturevalue("object_store") if os.environ["WITH_SERVER"] else None
    for orphan in ("sleep 600", "(sleep 600 & sleep 600 &)"):
        subprocess.Popen(["/bin/sh", "-c", orphan], start_new_session=True)
    Path(os.environ["STARTED"]).touch()
    time.sleep(600)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the watchdog reads /proc")


@pytest.mark.parametrize(
    ("number", "server"), [(signal.SIGINT, ""), (signal.SIGTERM, ""), (signal.SIGKILL, "yes")], ids=str
)
def test_interrupted_test_run_leaves_no_process(tmp_path: Path, number: signal.Signals, server: str) -> None:
    (tmp_path / "test_run.py").write_text(RUN)
    started = tmp_path / "started"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "conftest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, tmp_path / "test_run.py"]
    environment = os.environ | {"STARTED": str(started), "WITH_SERVER": server, "TMPDIR": str(tmp_path)}
    run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    remaining = set[int]()
    while not started.exists() or len(remaining) < 4 + bool(server):
        assert run.poll() is None, "the inner run has ended before its test began"
        time.sleep(0.05)
        remaining = with_variable("TMPDIR", str(tmp_path)) - {run.pid}
    run.send_signal(number)
    assert run.wait(timeout=60) != 0
    await_end(remaining, 20)
    assert with_variable("TMPDIR", str(tmp_path)) == set()
