"""Send progress to a browser from Starlette or FastAPI: resumable Server-Sent Events, and WebSockets.

Needs `pip install "reel-modal[starlette]"`. Updates may come from `Job.progress()`, `track` or `progress_of`.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Self

from reel_modal._progress.updates import rounded_down
from reel_modal._support.tasks import OwnedTask
from reel_modal.errors import ConfigError, MissingDependencyError
from reel_modal.progress import ProgressUpdate

try:
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError as _error:
    raise MissingDependencyError(
        'starlette cannot be imported; install it with: pip install "reel-modal[starlette]"'
    ) from _error

__all__ = ["progress_events", "progress_socket"]

_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 3600.0
_NEARLY_COMPLETE: Final = 99.99
_ID: Final = re.compile(r"(\d{1,12})-(\d{1,2}\.\d{2}|100\.00)(-end)?", re.ASCII)


def progress_events(
    request: Request, updates: AsyncIterator[ProgressUpdate], *, retry_seconds: float = _RETRY_SECONDS
) -> Response:
    """Answer `request` with `updates` as Server-Sent Events; each event is a `ProgressUpdate.to_dict` as JSON.

    A browser's `EventSource` reconnects automatically and sends the id of the last event it received. The stream then
    continues with the current update: progress never decreases, sequence numbers only increase, and missed updates
    are not repeated. A browser that already has the last update gets status 204, so it does not reconnect. A reloaded
    page, whose `EventSource` has no last event, can send the id as `?last_event_id=`.

    Args:
        request: The request of the endpoint.
        updates: A separate listener for this browser, such as `job.progress()`. It is closed when the browser
            disconnects, so do not pass a `track`: closing that would end the work.
        retry_seconds: How long the browser waits before it reconnects, 0 to 3,600 s.

    Raises:
        ConfigError: `retry_seconds` is out of range or not a number.

    Returns:
        A response that streams until the last update, or status 204 if the browser already has the last update.

    Cancellation: If the browser disconnects, `updates` is closed.

    Example:
        >>> async def progress(request: Request) -> Response:
        ...     job = registry.attach(request.path_params["job_id"])
        ...     return progress_events(request, job.progress())
    """
    if not 0 <= retry_seconds <= _LONGEST_RETRY_SECONDS:
        raise ConfigError(f"retry_seconds is {retry_seconds!r}; it must be 0 to {_LONGEST_RETRY_SECONDS:g}")
    last_event_id = request.headers.get("last-event-id") or request.query_params.get("last_event_id", "")
    seen = _Seen.parse(last_event_id)
    if seen.ended:
        return Response(status_code=204)
    return StreamingResponse(
        _event_lines(_resumed(updates, seen), retry_seconds),
        media_type="text/event-stream",
        # Otherwise reverse proxies such as nginx buffer the events.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def progress_socket(websocket: WebSocket, updates: AsyncIterator[ProgressUpdate]) -> None:
    """Accept `websocket`, send `updates` as JSON, and close it after the last one.

    Each message is a `ProgressUpdate.to_dict` with an additional `id`. A page that reconnects with the last id it
    received as `?last_event_id=` continues as with `progress_events`.

    Args:
        websocket: The WebSocket of the endpoint; received messages are ignored.
        updates: A separate listener for this page, such as `job.progress()`.

    Cancellation: `updates` is closed. If the page disconnects, it is closed at the next update.

    Example:
        >>> async def progress(websocket: WebSocket) -> None:
        ...     job = registry.attach(websocket.path_params["job_id"])
        ...     await progress_socket(websocket, job.progress())
    """
    seen = _Seen.parse(websocket.query_params.get("last_event_id", ""))
    await websocket.accept()
    disconnect = OwnedTask(_wait_for_disconnect(websocket))
    try:
        if not seen.ended:
            async with aclosing(_resumed(updates, seen)) as resumed:
                async for update in resumed:
                    if disconnect.future.done():
                        return
                    await websocket.send_json({"id": _id_of(update), **update.to_dict()})
        await websocket.close()
    except (WebSocketDisconnect, OSError):
        pass  # the page disconnected after the check above
    finally:
        await disconnect.cancel()


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last event that a page received. The event id contains all of it, so any process can resume the stream."""

    sequence: int = 0
    progress: float = 0.0
    ended: bool = False

    @classmethod
    def parse(cls, event_id: str) -> Self:
        """Parse the id of an event; return the initial state if the id is not valid."""
        match = _ID.fullmatch(event_id)
        return cls() if match is None else cls(int(match[1]), float(match[2]), match[3] is not None)


def _id_of(update: ProgressUpdate) -> str:
    return f"{update.sequence}-{rounded_down(update.progress):.2f}{'-end' if update.ended else ''}"


async def _resumed(updates: AsyncIterator[ProgressUpdate], seen: _Seen) -> AsyncGenerator[ProgressUpdate]:
    """Yield `updates` so that sequence and progress continue from `seen`, and close them at the end."""
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


async def _wait_for_disconnect(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
