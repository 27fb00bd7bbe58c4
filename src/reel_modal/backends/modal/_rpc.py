"""Call Modal's API with a deadline, throttled per event-loop iteration, and map its errors to RemoteError."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Final, TypeVar

from reel_modal._support.clock import SYSTEM_CLOCK, wait_for_tick
from reel_modal._support.tasks import consume_exception
from reel_modal._support.throttle import LoopThrottle
from reel_modal.errors import UnavailableError

__all__ = ["THROTTLE", "ask_api", "call_api", "unavailable", "within"]

T = TypeVar("T")

THROTTLE: Final = LoopThrottle()
"""One per process: all requests go to the single thread of modal's client."""


async def call_api(
    ask: Callable[[], Awaitable[T]], seconds: float, *, function: str, call_id: str | None = None
) -> T:
    """Send a request to Modal and return the response.

    Raises:
        RemoteError: Modal refused the request, or did not answer within `seconds`.

    Cancellation: returns at once; Modal may have received the request.
    """
    answer = partial(ask_api, ask, function=function, call_id=call_id)
    return await within(seconds, answer, function=function, call_id=call_id)


async def ask_api(ask: Callable[[], Awaitable[T]], *, function: str, call_id: str | None = None) -> T:
    """Send a request to Modal and return the response, for a caller that limits the wait itself.

    Raises:
        RemoteError: Modal refused the request or is unreachable.

    Cancellation: may not return, since modal's client may miss it; Modal may have received the request.
    """
    await THROTTLE.acquire()
    try:
        return await ask()
    except OSError as error:
        raise UnavailableError(f"Modal is unreachable: {error}", function=function, call_id=call_id) from error
    except Exception as error:
        from reel_modal.backends.modal._errors import remote_error

        raise remote_error(error, function=function, call_id=call_id) from error


async def within(
    seconds: float, answer: Callable[[], Coroutine[object, object, T]], *, function: str, call_id: str | None
) -> T:
    """Return the result of `answer`, or raise after `seconds`.

    A timeout does not wait for the cancelled request, since modal's client may miss its cancellation.

    Raises:
        UnavailableError: There was no answer in time.
        Exception: `answer` raised it.

    Cancellation: returns at once as well.
    """
    task = asyncio.ensure_future(answer())
    task.add_done_callback(consume_exception)
    try:
        await wait_for_tick(SYSTEM_CLOCK, seconds, task)
        if not task.done():
            raise unavailable(seconds, function, call_id)
        return task.result()
    finally:
        task.cancel()


def unavailable(seconds: float, function: str, call_id: str | None) -> UnavailableError:
    """Return the error for a request that Modal did not answer within `seconds`."""
    return UnavailableError(
        f"Modal is unreachable: no response within {seconds:g} s", function=function, call_id=call_id
    )
