"""A tiny app for the plane's own tests; it imports nothing but modal and the standard library."""

import os
import time

import modal

image = modal.Image.debian_slim().env({"SAMPLE_COLOUR": "blue green"})
app = modal.App("loopback-sample", image=image)


@app.function(gpu="T4", cpu=1.5, memory=512, timeout=60, max_containers=2, scaledown_window=30, retries=0)
def double(x: int) -> int:
    """Twice the number."""
    return 2 * x


@app.function(timeout=60)
def refuse(message: str) -> None:
    """Raise, as a body with a bad input does."""
    raise ValueError(message)


@app.function(timeout=60)
def work(queue: str, partition: str, seconds: float) -> str:
    """Tell the host that it runs, and where; then take a while."""
    events = modal.Queue.from_name(queue, create_if_missing=True)
    events.put(os.environ["MODAL_TASK_ID"], partition=partition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.02)
    return os.environ["MODAL_TASK_ID"]


@app.function(timeout=1)
def overrun() -> None:
    """Go on for longer than the function may."""
    time.sleep(60)


@app.function(gpu=["L4", "T4"], secrets=[modal.Secret.from_name("sample-secret")])
def variable(name: str) -> str | None:
    """One variable of the container's environment."""
    return os.environ.get(name)


@app.function()
def count(n: int):
    """Yield the numbers below n."""
    yield from range(n)
