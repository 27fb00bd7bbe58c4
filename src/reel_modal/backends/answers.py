"""One request to Modal: within a bound, a few in each turn of the loop, and whatever goes wrong becomes ours.

It must not know what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeVar

from reel_modal.backends.turnstile import Turnstile
from reel_modal.errors import UnavailableError

__all__ = ["answered", "no_answer", "within"]

T = TypeVar("T")

_TURNSTILE: Final = Turnstile()
"""One for the process: all that is asked is handed to the one thread of modal's client."""


async def answered(
    ask: Callable[[], Awaitable[T]], seconds: float, *, function: str, call_id: str | None = None
) -> T:
    """Ask, and return the answer.

    Raises:
        RemoteError: Modal refused, or nothing came within `seconds`.

    Cancellation: returns at once; Modal may have heard.
    """

    async def answer() -> T:
        try:
            return await ask()
        except OSError as error:
            raise UnavailableError(f"Modal does not answer: {error}", function=function, call_id=call_id) from error
        except Exception as error:
            from reel_modal.backends.modal_errors import remote_error

            raise remote_error(error, function=function, call_id=call_id) from error

    return await within(seconds, answer, function=function, call_id=call_id)


async def within(
    seconds: float, answer: Callable[[], Coroutine[object, object, T]], *, function: str, call_id: str | None
) -> T:
    """Return what `answer` does, or raise after `seconds`, at once: modal's client may miss that it was cancelled.

    Raises:
        UnavailableError: Nothing came.
        Exception: What `answer` raises.

    Cancellation: returns at once as well.
    """
    await _TURNSTILE.enter()
    asking = asyncio.ensure_future(answer())
    asking.add_done_callback(_take_note)
    try:
        await asyncio.wait({asking}, timeout=seconds)
        if not asking.done():
            raise no_answer(seconds, function, call_id)
        return asking.result()
    finally:
        asking.cancel()


def no_answer(seconds: float, function: str, call_id: str | None) -> UnavailableError:
    """Return the error for a Modal that is silent for `seconds`."""
    return UnavailableError(
        f"Modal does not answer: nothing came within {seconds:g} s", function=function, call_id=call_id
    )


def _take_note(asking: asyncio.Future[T]) -> None:
    """Ask for an outcome that nobody waits for any more, so that asyncio does not complain."""
    if not asking.cancelled():
        asking.exception()
