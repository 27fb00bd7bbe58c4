"""Work that must finish after its caller has returned: bounded, logged, and kept alive until it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from reel_modal.errors import ReelModalError

__all__ = ["LET_GO_SECONDS", "finish", "keep"]

_log = logging.getLogger(__name__)

LET_GO_SECONDS: Final = 0.5
"""How long a cancelled caller waits for the work; most of the work takes a few milliseconds."""

_running: set[asyncio.Future[Any]] = set()
"""Strong references: the event loop keeps only weak references to its tasks."""


async def finish(
    work: Coroutine[object, object, object],
    *,
    purpose: str,
    limit_seconds: float,
    wait_seconds: float = LET_GO_SECONDS,
) -> None:
    """Run `work` to its end; return when it is done, or after `wait_seconds` while it continues in the background.

    A failure of the work is logged and not raised, since the caller is about to raise another error.

    Args:
        work: Coroutine that must finish.
        purpose: Description for the log: "cancelling local:make_thumbnail:17".
        limit_seconds: Time limit of the work, after which it is cancelled.
        wait_seconds: Longest time that this call waits. Half a second keeps `asyncio.timeout(1)` below two seconds.

    Cancellation: returns at once; the work continues.
    """
    task = keep(asyncio.ensure_future(_limited(work, purpose, limit_seconds)))
    await asyncio.wait({task}, timeout=wait_seconds)
    if not task.done():
        _log.warning("%s takes longer than %g s and continues in the background", purpose, wait_seconds)


def keep(task: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """Keep `task` alive until it ends, and return it."""
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def _limited(work: Coroutine[object, object, object], purpose: str, limit_seconds: float) -> None:
    try:
        async with asyncio.timeout(limit_seconds):
            await work
    except TimeoutError:
        _log.warning("%s was not finished after %g s and was abandoned", purpose, limit_seconds)
    except ReelModalError as error:
        _log.warning("%s failed: %s", purpose, error)
    except asyncio.CancelledError:
        _log.warning("%s was not finished when the event loop ended", purpose)
        raise
