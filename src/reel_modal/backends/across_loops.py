"""Waiting in one event loop for what ends in a thread or in another loop, and running blocking calls in threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from reel_modal.progress.clocks import hold_manual_clocks

__all__ = ["end_of", "run_in_thread"]

T = TypeVar("T")


def end_of(work: Future[T]) -> asyncio.Future[None]:
    """Return a future of the running loop that is done when `work` is, however that ended."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def tell(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # that loop is closed, and nobody waits in it
            loop.call_soon_threadsafe(_finish, ended)

    work.add_done_callback(tell)
    return ended


async def run_in_thread(work: Callable[[], T], seconds: float) -> Future[T]:
    """Run `work` in a daemon thread; return its future when that is done, or after `seconds` as it is.

    `asyncio.to_thread` would make the end of the event loop, and that of the process, wait for a call that hangs.

    Args:
        work: A call that may block, such as a request to a store.
        seconds: Longest wait; the call itself goes on.

    Cancellation: returns at once; the call goes on.

    Example:
        >>> call = asyncio.run(run_in_thread(lambda: 6 * 7, 10.0))
        >>> call.result() if call.done() else None
        42
    """
    call = _threads.start(work)
    ended = end_of(call)
    hold_manual_clocks(ended)
    await asyncio.wait({ended}, timeout=seconds)
    return call


class _Threads:
    """A bounded number of daemon threads, which end when there is nothing to do."""

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
            except BaseException as error:  # noqa: BLE001 - handed to the caller that waits
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
"""As many as the default executor of an event loop has."""

_threads = _Threads(_MOST)


def _forget_threads() -> None:
    """Begin again in the child of a fork, which has its parent's memory but not its threads."""
    global _threads  # noqa: PLW0603 - the threads of the process are what it is
    _threads = _Threads(_MOST)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def _finish(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
