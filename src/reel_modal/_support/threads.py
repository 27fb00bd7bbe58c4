"""Run blocking calls in threads, and await futures across threads and event loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar
from weakref import WeakSet

from reel_modal._support.clock import hold_manual_clocks

__all__ = ["ThreadPool", "run_in_thread", "wait_across_loops"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


def wait_across_loops(work: Future[T]) -> asyncio.Future[None]:
    """Return a future of the running loop that is done when `work` is done, with any outcome."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def on_done(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # that loop is closed, so nothing waits in it
            loop.call_soon_threadsafe(_finish, ended)

    work.add_done_callback(on_done)
    return ended


async def run_in_thread(work: Callable[[], T], seconds: float, *, purpose: str) -> T | None:
    """Run `work` in a daemon thread and return its result; None, with a warning, if it takes longer than `seconds`.

    `asyncio.to_thread` would make the end of the event loop and of the process wait for a call that hangs.

    Args:
        work: A call that may block, such as a request to a store.
        seconds: Longest wait in seconds; the call itself continues.
        purpose: Description for the log: "the check of a job of make_thumbnail".

    Raises:
        Exception: `work` raised it in time.

    Cancellation: returns at once; the call continues.

    Example:
        >>> asyncio.run(run_in_thread(lambda: 6 * 7, 10.0, purpose="the product"))
        42
    """
    call = _pool.start(work)
    ended = wait_across_loops(call)
    hold_manual_clocks(ended)
    await asyncio.wait({ended}, timeout=seconds)
    if call.done():
        return call.result()
    _log.warning("%s took more than %g s; the job continues without it", purpose, seconds)
    return None


class ThreadPool:
    """A bounded pool of daemon threads, which end when no work is left. A forked child starts with an empty pool.

    Args:
        most: Most threads at once; further work is queued.
        name: Name of the threads.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self.start_anew()
        _pools.add(self)

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Queue `work` and return the future of its result."""
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
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return call

    def start_anew(self) -> None:
        """Forget all work in a forked child, which has its parent's memory but not its threads."""
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = 0

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                run = self._waiting.popleft()
            run()


_pools: Final[WeakSet[ThreadPool]] = WeakSet()
_MOST: Final = min(32, (os.cpu_count() or 1) + 4)
"""The same number as in the default executor of an event loop."""

_pool: Final = ThreadPool(_MOST, "reel_modal-call")


def _reset_after_fork() -> None:
    for pool in list(_pools):
        pool.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _finish(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
