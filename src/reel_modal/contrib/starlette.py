"""Progress for a browser, out of Starlette or FastAPI: Server-Sent Events that resume, and WebSockets.

Needs `pip install "reel-modal[starlette]"`. It must not know where updates come from: `Job.progress()`, `track` and
`progress_of` all give the same kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Self

from reel_modal.errors import ConfigError, MissingDependencyError
from reel_modal.progress import ProgressUpdate
from reel_modal.progress.owned_task import OwnedTask

try:
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError as _error:
    raise MissingDependencyError(
        'starlette does not load here; install it with: pip install "reel-modal[starlette]"'
    ) from _error

__all__ = ["progress_events", "progress_socket"]

_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 3600.0
_NEARLY_COMPLETE: Final = 99.99
_ID: Final = re.compile(r"(\d{1,12})-(\d{1,2}\.\d{2}|100\.00)(-end)?", re.ASCII)


def progress_events(
    request: Request, updates: AsyncIterator[ProgressUpdate], *, retry_seconds: float = _RETRY_SECONDS
) -> Response:
    """Answer `request` with `updates` as Server-Sent Events, one `ProgressUpdate.to_dict` as JSON each.

    A browser's `EventSource` reconnects by itself and says which event it had last. Then the stream goes on from
    there: with the truth of now, but with no step back of the bar, and with higher sequence numbers. What was missed
    in between is not repeated. A browser that has had the last update is told to stop asking. A page that was loaded
    anew, whose `EventSource` knows nothing yet, may say it by `?last_event_id=`.

    Args:
        request: Of the endpoint.
        updates: A listener of its own, such as `job.progress()`. Who leaves ends it, so give a listener on a job and
            not a `track`, which would end the work.
        retry_seconds: How long the browser waits before it reconnects.

    Raises:
        ConfigError: `retry_seconds` is negative or no number.

    Returns:
        A response that streams until the last update, or 204 for a browser that has had it.

    Cancellation: a browser that goes away ends `updates`.

    Example:
        >>> async def progress(request: Request) -> Response:
        ...     job = registry.attach(request.path_params["job_id"])
        ...     return progress_events(request, job.progress())
    """
    if not 0 <= retry_seconds <= _LONGEST_RETRY_SECONDS:
        raise ConfigError(f"retry_seconds is {retry_seconds!r}; 0 to {_LONGEST_RETRY_SECONDS:g} is wanted")
    asked = request.headers.get("last-event-id") or request.query_params.get("last_event_id", "")
    seen = _Seen.parse(asked)
    if seen.ended:
        return Response(status_code=204)
    return StreamingResponse(
        _event_lines(_resumed(updates, seen), retry_seconds),
        media_type="text/event-stream",
        # nginx and its like would otherwise collect the events before they pass them on.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def progress_socket(websocket: WebSocket, updates: AsyncIterator[ProgressUpdate]) -> None:
    """Accept `websocket`, send `updates` as JSON, and close it after the last one.

    Each message is `ProgressUpdate.to_dict` and an `id`. A page that reconnects with `?last_event_id=` and the last
    id that it has seen goes on from there, as with `progress_events`.

    Args:
        websocket: Of the endpoint; what it sends is ignored.
        updates: A listener of its own, such as `job.progress()`.

    Cancellation: ends `updates`. So does a page that goes away, at the next update.

    Example:
        >>> async def progress(websocket: WebSocket) -> None:
        ...     job = registry.attach(websocket.path_params["job_id"])
        ...     await progress_socket(websocket, job.progress())
    """
    seen = _Seen.parse(websocket.query_params.get("last_event_id", ""))
    await websocket.accept()
    leaving = OwnedTask(_until_it_leaves(websocket))
    try:
        if not seen.ended:
            async with aclosing(_resumed(updates, seen)) as resumed:
                async for update in resumed:
                    if leaving.future.done():
                        return
                    await websocket.send_json({"id": _id_of(update), **update.to_dict()})
        await websocket.close()
    except (WebSocketDisconnect, OSError):
        pass  # it has left between the look and the sending
    finally:
        await leaving.cancel()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a page has had before it reconnected; all of it is in the id of an event, so any process can resume."""

    sequence: int = 0
    progress: float = 0.0
    ended: bool = False

    @classmethod
    def parse(cls, event_id: str) -> Self:
        """Read it from the id of an event; what is no id of ours says nothing."""
        found = _ID.fullmatch(event_id)
        return cls() if found is None else cls(int(found[1]), float(found[2]), found[3] is not None)


def _id_of(update: ProgressUpdate) -> str:
    exact = int(update.progress * 100) / 100
    return f"{update.sequence}-{exact:.2f}{'-end' if update.ended else ''}"


async def _resumed(updates: AsyncIterator[ProgressUpdate], seen: _Seen) -> AsyncGenerator[ProgressUpdate]:
    """Yield `updates` so that they follow on what was seen, and close them at the end."""
    floor = min(seen.progress, _NEARLY_COMPLETE)
    try:
        async for update in updates:
            yield replace(update, sequence=update.sequence + seen.sequence, progress=max(update.progress, floor))
    finally:
        close = getattr(updates, "aclose", None)
        if close is not None:
            await close()


async def _event_lines(updates: AsyncGenerator[ProgressUpdate], retry_seconds: float) -> AsyncGenerator[str]:
    async with aclosing(updates):
        yield f"retry: {round(1000 * retry_seconds)}\n\n"
        async for update in updates:
            yield f"id: {_id_of(update)}\ndata: {json.dumps(update.to_dict())}\n\n"


async def _until_it_leaves(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
