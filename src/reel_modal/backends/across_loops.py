"""Waiting in one event loop for what ends in a thread or in another loop.

It must not know what that is.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["end_of"]

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


def _finish(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
