"""Run blocking calls in threads, and await futures across threads and event loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from reel_modal._support.clock import hold_manual_clocks

__all__ = ["run_in_thread", "wait_across_loops"]

T = TypeVar("T")


def wait_across_loops(work: Future[T]) -> asyncio.Future[None]:
    """Return a future of the running loop that is done when `work` is done, with any outcome."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def on_done(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # that loop is closed, so nothing waits in it
            loop.call_soon_threadsafe(_finish, ended)

    work.add_done_callback(on_done)
    return ended


async def run_in_thread(work: Callable[[], T], seconds: float) -> Future[T]:
    """Run `work` in a daemon thread; return its future when it is done, or still pending after `seconds`.

    `asyncio.to_thread` would make the end of the event loop and of the process wait for a call that hangs.

    Args:
        work: A call that may block, such as a request to a store.
        seconds: Longest wait in seconds; the call itself continues.

    Cancellation: returns at once; the call continues.

    Example:
        >>> call = asyncio.run(run_in_thread(lambda: 6 * 7, 10.0))
        >>> call.result() if call.done() else None
        42
    """
    call = _threads.start(work)
    ended = wait_across_loops(call)
    hold_manual_clocks(ended)
    await asyncio.wait({ended}, timeout=seconds)
    return call


class _Threads:
    """A bounded pool of daemon threads, which end when no work is left."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0

    def start(self, work: Callable[[], T]) -> Future[T]:
        call: Future[T] = Future()

        def run() -> None:
            try:
                call.set_result(work())
            except BaseException as error:  # noqa: BLE001 - passed to the caller that waits
                call.set_exception(error)

        with self._lock:
            self._waiting.append(run)
            if self._running < self._most:
                self._running += 1
                threading.Thread(target=self._work, name="reel_modal-call", daemon=True).start()
        return call

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                run = self._waiting.popleft()
            run()


_MOST: Final = min(32, (os.cpu_count() or 1) + 4)
"""The same number as in the default executor of an event loop."""

_threads = _Threads(_MOST)


def _forget_threads() -> None:
    """Start with an empty pool in a forked child, which has its parent's memory but not its threads."""
    global _threads  # noqa: PLW0603 - it is the thread pool of the process
    _threads = _Threads(_MOST)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def _finish(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
