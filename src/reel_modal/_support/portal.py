"""Run the async API from code without an event loop: one background loop, shared by all callers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Final, TypeVar

from reel_modal.errors import BlockingCallError

__all__ = ["run_sync"]

T = TypeVar("T")

_SIGNAL_CHECK_SECONDS: Final = 1.0
"""Longest single wait: on Windows, a waiting thread handles Ctrl-C only between two waits."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run_sync(coroutine: Coroutine[object, object, T]) -> T:
    """Run `coroutine` to its end and return its result; for Django views, worker queues and scripts.

    Interrupting the caller (Ctrl-C) cancels the coroutine, and with it the job for which it waits.

    Args:
        coroutine: For example, `registry.submit(request)`.

    Raises:
        BlockingCallError: An event loop runs in this thread and would be blocked; use `await` instead.
        Exception: The coroutine raised it.
    """
    _refuse_in_a_loop(coroutine)
    future = asyncio.run_coroutine_threadsafe(coroutine, _shared_loop())
    try:
        while not future.done():
            concurrent.futures.wait([future], timeout=_SIGNAL_CHECK_SECONDS)
    except BaseException:
        future.cancel()
        concurrent.futures.wait([future])
        raise
    return future.result()


def run_in_this_thread(coroutine: Coroutine[object, object, T]) -> T:
    """Run `coroutine` on a new event loop in this thread, for callbacks that must run in the caller's thread.

    Raises:
        BlockingCallError: An event loop runs in this thread and would be blocked; use `await` instead.
        Exception: The coroutine raised it.
    """
    _refuse_in_a_loop(coroutine)
    return asyncio.run(coroutine)


def _refuse_in_a_loop(coroutine: Coroutine[object, object, object]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    coroutine.close()
    raise BlockingCallError("this would block the running event loop; use `await` here, or a thread")


def _shared_loop() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603 - this module holds the one event loop of the process
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="reel_modal-loop", daemon=True).start()
        return _loop


def _reset_after_fork() -> None:
    """Forget the loop in a forked child, which has its parent's memory but not its threads."""
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
