"""Work that must be finished although its caller has left: bounded, logged, and kept alive until it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from reel_modal.errors import ReelModalError

__all__ = ["LET_GO_SECONDS", "finish", "keep"]

_log = logging.getLogger(__name__)

LET_GO_SECONDS: Final = 0.5
"""How long a caller that was cancelled waits for the work: most of it takes a few milliseconds."""

_running: set[asyncio.Future[Any]] = set()
"""The event loop keeps no task alive that nothing else refers to."""


async def finish(
    work: Coroutine[object, object, object],
    *,
    purpose: str,
    limit_seconds: float,
    wait_seconds: float = LET_GO_SECONDS,
) -> None:
    """Run `work` to its end; return when it is done, or after a moment while it goes on in the background.

    A failure of the work is logged and not raised: the caller is about to raise something else.

    Args:
        work: What must be finished.
        purpose: What it does, for the log: "cancelling local:render_overlay:17".
        limit_seconds: Longest for the work, after which it is cancelled.
        wait_seconds: Longest that this call waits. Half a second keeps `asyncio.timeout(1)` below two.

    Cancellation: returns at once; the work goes on.
    """
    task = keep(asyncio.ensure_future(_limited(work, purpose, limit_seconds)))
    await asyncio.wait({task}, timeout=wait_seconds)
    if not task.done():
        _log.warning("%s takes longer than %g s and goes on in the background", purpose, wait_seconds)


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
        _log.warning("%s was not done after %g s and was given up", purpose, limit_seconds)
    except ReelModalError as error:
        _log.warning("%s failed: %s", purpose, error)
    except asyncio.CancelledError:
        _log.warning("%s was not done when the event loop ended", purpose)
        raise
