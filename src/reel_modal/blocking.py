"""The async API for hosts without an event loop: one loop in a thread of its own, shared by all who call.

It must not know what runs on it.
"""

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

_DEAF_SECONDS: Final = 1.0
"""On Windows a thread that waits hears Ctrl-C only between two waits."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def run_sync(coroutine: Coroutine[object, object, T]) -> T:
    """Run `coroutine` to its end and return its result; for Django views, worker queues and scripts.

    Interrupting the caller (Ctrl-C) cancels the coroutine, and with it the job that it waits for.

    Args:
        coroutine: Such as `registry["render_overlay"].submit(request)`.

    Raises:
        BlockingCallError: An event loop runs in this thread, which would stand still; await instead.
        Exception: What the coroutine raises.
    """
    _refuse_in_a_loop(coroutine)
    future = asyncio.run_coroutine_threadsafe(coroutine, _shared_loop())
    try:
        while not future.done():
            concurrent.futures.wait([future], timeout=_DEAF_SECONDS)
    except BaseException:
        future.cancel()
        concurrent.futures.wait([future])
        raise
    return future.result()


def run_in_this_thread(coroutine: Coroutine[object, object, T]) -> T:
    """Do the same on an event loop of the call's own, in this thread; for callbacks that belong to the caller.

    Raises:
        BlockingCallError: An event loop runs in this thread, which would stand still; await instead.
        Exception: What the coroutine raises.
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
    global _loop  # noqa: PLW0603 - the one loop of the process is what this module is
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="reel_modal-loop", daemon=True).start()
        return _loop


def _start_anew() -> None:
    """Forget the loop: a child of a fork has its parent's memory, but not its threads."""
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
