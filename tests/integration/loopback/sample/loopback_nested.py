"""An app whose functions call one another; a test deploys it with another CODE to change code and resources."""

import asyncio
import os
import time
from typing import Any

import modal

CODE = 1
POLL_SECONDS = 5.0

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
def coordinate(count: int, seconds: float = 0.0, version: int | None = None) -> list[dict[str, Any]]:
    """Return the results of some parts; another attempt of the same call finds the parts of the first one."""
    own_id = modal.current_function_call_id()
    assert own_id is not None
    calls = [modal.FunctionCall.from_id(call_id) for call_id in events.iterate(partition=own_id)]
    sibling = modal.Function.from_name("loopback-nested", "part", version=version)
    for number in range(len(calls), count):
        calls.append(sibling.spawn(number, seconds))
        events.put(calls[-1].object_id, partition=own_id)
    events.put(own_id, partition="waiting")
    return [call.get() for call in calls]


@app.function(timeout=60)
def tidy(seconds: float) -> list[dict[str, Any]]:
    """Coordinate two parts, and cancel them if this call is cancelled."""
    calls = [part.spawn(number, seconds) for number in range(2)]
    try:
        events.put_many([call.object_id for call in calls], partition="tidy")
        return [call.get() for call in calls]
    except modal.exception.InputCancellation:
        for call in calls:
            call.cancel()
        raise


@app.function(timeout=60)
def cancel_one() -> str:
    """Spawn two parts, cancel one of them by its id, and return how it ended."""
    kept, cancelled = part.spawn(0), part.spawn(1, 60.0)
    for _ in range(2):
        events.get(partition="parts", timeout=30)
    modal.FunctionCall.from_id(cancelled.object_id).cancel()
    try:
        cancelled.get(timeout=20)
    except modal.exception.RemoteError:
        return f"cancelled, and {kept.get(timeout=20)['number']} was kept"
    return "not cancelled"


@app.function(timeout=60)
def use_sibling(lookup: str) -> tuple[int, int]:
    """Wait for the test, then return this code and that of a sibling, found in the module or by its name."""
    events.put("ready", partition="siblings")
    events.get(partition="go", timeout=30)
    sibling = part if lookup == "module" else modal.Function.from_name("loopback-nested", "part")
    return CODE, sibling.remote(0)["code"]


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


@app.function(timeout=60, max_containers=1, single_use_containers=True)
def alone() -> None:
    """Wait for the test in a container that takes one input."""
    events.put("ready", partition="alone")
    events.get(partition="go", timeout=30)


@app.function(timeout=60)
def start_child(seconds: float) -> None:
    """Start a call that watches this one, then wait or end."""
    own_id = modal.current_function_call_id()
    assert own_id is not None
    events.put(watch.spawn(own_id).object_id, partition="children")
    time.sleep(seconds)


@app.function(timeout=60)
async def watch(parent_id: str) -> str:
    """Work for a minute, or until the call that started this one ends; return how that one ended."""
    work = asyncio.create_task(asyncio.sleep(60, "it did not"))
    parent = asyncio.create_task(end_of(parent_id))
    await events.put.aio("ready", partition="watching")
    ended, running = await asyncio.wait({work, parent}, return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        task.cancel()
    return ended.pop().result()


async def end_of(call_id: str) -> str:
    """Wait for the end of a call, and return the type of its error or "result"."""
    call = modal.FunctionCall.from_id(call_id)
    while True:
        started_at = time.monotonic()
        try:
            await call.get.aio(timeout=POLL_SECONDS)
        except TimeoutError:
            # One that comes early is the error of the call itself.
            if time.monotonic() - started_at < POLL_SECONDS:
                return "TimeoutError"
        except modal.exception.Error as error:
            return type(error).__name__
        else:
            return "result"
