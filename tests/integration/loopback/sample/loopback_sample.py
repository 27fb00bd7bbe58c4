"""A tiny app for the plane's own tests; it needs only modal and the standard library."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import modal

if os.environ.get("SAMPLE_BREAKS"):
    raise RuntimeError("this image lacks something")

settings = {"SAMPLE_COLOUR": "blue green", "SAMPLE_VERSION": os.environ.get("SAMPLE_VERSION", "1")}
app = modal.App("loopback-sample", image=modal.Image.debian_slim().env(settings))


@app.function(gpu="T4", cpu=1.5, memory=512, timeout=60, max_containers=2, scaledown_window=30)
def double(x: int) -> int:
    return 2 * x


@app.function(timeout=60)
def refuse(message: str) -> None:
    raise ValueError(message)


@app.function(timeout=60)
def leave(how: str) -> None:
    """Exit in a way that a function should not."""
    if how == "a bare time-out":
        raise TimeoutError
    sys.exit(how)


@app.function(timeout=60, max_containers=2)
def work(partition: str, seconds: float = 0.0) -> str:
    """Report to the host that the body runs, and in which process, then wait."""
    task_id = os.environ["MODAL_TASK_ID"]
    modal.Queue.from_name("sample-events", create_if_missing=True).put(task_id, partition=partition)
    Path(tempfile.gettempdir(), "working").touch()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.01)
    return task_id


@app.function(timeout=60)
def leave_child() -> int:
    """Start a process in another session, report its id, and wait for it."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:  # noqa: S607
        modal.Queue.from_name("sample-events", create_if_missing=True).put(child.pid, partition="child")
        return child.wait()


@app.function(timeout=1)
def overrun() -> None:
    time.sleep(60)


@app.function(retries=modal.Retries(max_retries=2, initial_delay=0.0))
def third_time(partition: str) -> int:
    """Fail twice, then return the number of the attempt."""
    events = modal.Queue.from_name("sample-events", create_if_missing=True)
    events.put("attempt", partition=partition)
    if (attempts := events.len(partition=partition)) < 3:
        raise RuntimeError(f"attempt {attempts}")
    return attempts


@app.function(gpu=["L4", "A10G:2"], secrets=[modal.Secret.from_name("sample-secret", required_keys=["SAMPLE_KEY"])])
def variable(name: str) -> str | None:
    return os.environ.get(name)


@app.function()
def has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@app.function()
def numbers(n: int) -> Iterator[int]:
    yield from range(n)
