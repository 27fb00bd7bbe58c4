"""Keep containers of a function running for a while, so that its next jobs start without a cold start."""

from __future__ import annotations

import asyncio
import logging
import math
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import stamina

from reel_modal._support.background import finish, keep
from reel_modal._support.clock import Clock
from reel_modal._support.portal import run_sync
from reel_modal._support.tasks import consume_exception
from reel_modal.backends.base import Backend
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import ConfigError, ReelModalError, UnavailableError

if TYPE_CHECKING:
    from reel_modal.backends.modal.scaling import Scaling

__all__ = ["Prewarm"]

_log = logging.getLogger(__name__)

_UNDO_SECONDS: Final = 120.0
"""How long the undo is tried while Modal is unreachable."""

_LONGEST_SECONDS: Final = 86_400.0


class Prewarm:
    """Containers of a function that Modal keeps running during a block, from `FunctionRegistry.prewarm`.

    It is a context manager for `async with`, and for `with` in code without an event loop.

    Args:
        backend: Runs the function. One that has no containers keeps nothing.
        function: Name of the function.
        containers: Number of containers, 1 or more.
        for_seconds: Time after which they are released even if the block has not ended; above 0, at most 86,400.
        clock: Measures that time.

    Raises:
        ConfigError: An argument is out of range.
    """

    def __init__(self, backend: Backend, function: str, *, containers: int, for_seconds: float, clock: Clock) -> None:
        if isinstance(containers, bool) or not isinstance(containers, int) or containers < 1:
            raise ConfigError(f"prewarm: containers={containers!r} must be 1 or more")
        is_number = isinstance(for_seconds, int | float) and not isinstance(for_seconds, bool)
        if not is_number or math.isnan(for_seconds) or not 0 < for_seconds <= _LONGEST_SECONDS:
            raise ConfigError(
                f"prewarm: for_seconds={for_seconds!r} must be above 0 and at most {_LONGEST_SECONDS:,.0f}"
            )
        self._backend = backend if isinstance(backend, ModalBackend) else None
        self._function = function
        self._containers = containers
        self._for_seconds = for_seconds
        self._clock = clock
        self._timer: asyncio.Task[None] | None = None
        self._undoing: asyncio.Task[None] | None = None
        self._before: int | None = None

    def __repr__(self) -> str:
        return f"Prewarm({self._function!r}, containers={self._containers}, for_seconds={self._for_seconds:g})"

    async def __aenter__(self) -> Self:
        """Have Modal start the containers; returns before they have started.

        Raises:
            ConfigError: The function has a lower limit of containers.
            RemoteError: The function is not deployed, or Modal is unreachable.

        Cancellation: changes nothing in the end: what Modal may have received is undone.
        """
        if self._backend is None:
            return self
        from reel_modal.backends.modal.scaling import scaling_of, set_minimum

        scaling = await scaling_of(self._backend, self._function)
        if scaling.max_containers is not None and self._containers > scaling.max_containers:
            raise ConfigError(
                f"prewarm: containers={self._containers} is more than the {scaling.max_containers} that"
                f" {self._function} may have; ask for fewer, or deploy it with a higher max_containers"
            )
        self._before = scaling.min_containers
        setting = asyncio.ensure_future(
            set_minimum(self._backend, self._function, max(self._containers, self._before))
        )
        try:
            await asyncio.shield(setting)
        except BaseException:  # Modal may have received it, or may still receive it
            await self._undo_in_background(after=setting)
            raise
        self._timer = asyncio.create_task(self._release_later())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the containers; a cancelled block does not wait for the answer for longer than half a second.

        Raises:
            RemoteError: Modal was unreachable for two minutes, so it keeps the containers, and bills them.
        """
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(error, asyncio.CancelledError):
            await self._undo_in_background()
            return
        try:
            await self._undo()
        except ReelModalError as failure:
            if error is None:
                raise
            _log.error("%s", failure)

    def __enter__(self) -> Self:
        """Do the same as `__aenter__`, in code without an event loop.

        Raises:
            BlockingCallError: An event loop runs in this thread; use `async with`.
        """
        return run_sync(self.__aenter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do the same as `__aexit__`."""
        run_sync(self.__aexit__(kind, error, trace))

    async def _release_later(self) -> None:
        await self._clock.sleep(self._for_seconds)
        await self._undo_in_background()

    async def _undo_in_background(self, after: asyncio.Future[Scaling] | None = None) -> None:
        """Release the containers, and return within half a second, while that continues.

        Args:
            after: A request that must have ended before.
        """
        purpose = f"releasing the containers of {self._function}"
        await finish(self._undo(after), purpose=purpose, limit_seconds=2 * _UNDO_SECONDS)

    async def _undo(self, after: asyncio.Future[Scaling] | None = None) -> None:
        """Lower the minimum to what it was, once; a cancelled caller does not end it."""
        if after is not None:
            await asyncio.wait({after})
            consume_exception(after)
        if self._backend is None or self._before is None:
            return
        if self._undoing is None:
            self._undoing = asyncio.create_task(self._lower(self._backend, self._before))
            self._undoing.add_done_callback(consume_exception)
            keep(self._undoing)
        await asyncio.shield(self._undoing)

    async def _lower(self, backend: ModalBackend, before: int) -> None:
        from reel_modal.backends.modal.scaling import scaling_of, set_minimum

        async def lower() -> None:
            current = await scaling_of(backend, self._function)
            # Another prewarm, or a deploy, may have lowered it in the meantime: never raise it.
            if current.min_containers > before:
                await set_minimum(backend, self._function, before)

        retrying = stamina.AsyncRetryingCaller(attempts=None, timeout=_UNDO_SECONDS)
        try:
            await retrying(UnavailableError, lower)
        except UnavailableError as error:
            message = (
                f"{error.message}; Modal keeps {self._containers} containers of it running, and bills them, until the"
                " next deploy: deploy again"
            )
            raise UnavailableError(message, function=self._function) from error
