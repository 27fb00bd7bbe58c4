"""An app whose functions call one another; a test deploys it with another CODE to change code and resources."""

import os
import time
from typing import Any

import modal

CODE = 1

app = modal.App("loopback-nested", image=modal.Image.debian_slim())
events = modal.Queue.from_name("nested-events", create_if_missing=True)


@app.function(timeout=100 * CODE, max_containers=2)
def part(number: int, seconds: float = 0.0) -> dict[str, Any]:
    """Do one part of a job, and return when it ran and with which code."""
    started_at = time.monotonic()
    events.put(number, partition="parts")
    while time.monotonic() < started_at + seconds:
        time.sleep(0.01)
    return {"number": number, "code": CODE, "started_at": started_at, "ended_at": time.monotonic()}


@app.function(timeout=60)
def use_siblings(lookup: str) -> int:
    """Wait for the test, then return the code of a sibling, which is found in the module or by its name."""
    events.put("ready", partition="siblings")
    events.get(partition="go", timeout=30)
    sibling = part if lookup == "module" else modal.Function.from_name("loopback-nested", "part")
    return sibling.remote(0)["code"]


@app.function(timeout=60)
def introspect() -> dict[str, Any]:
    """Return everything that a container can find out about itself."""
    return {
        "app": app.name,
        "app_id": app.app_id,
        "environment": os.environ["MODAL_ENVIRONMENT"],
        "task": os.environ["MODAL_TASK_ID"],
        "call": modal.current_function_call_id(),
        "input": modal.current_input_id(),
        "latest_version": app.info().lifecycle.version,
    }
