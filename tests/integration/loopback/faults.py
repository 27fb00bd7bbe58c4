"""Scripted faults: refused, slow, stuck and lost answers. Thread-safe; independent of the RPCs' meaning."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from google.protobuf.message import Message
from grpclib import GRPCError, Status

Side = Literal["client", "container"]
Where = Callable[[Message], bool]


@dataclass(slots=True)
class _Fault:
    rpc: str
    side: Side | None
    where: Where | None
    remaining: float
    status: Status | None = None
    message: str = ""
    seconds: float = 0.0
    loses_reply: bool = False

    def concerns(self, rpc: str, side: Side, request: Message) -> bool:
        return (
            self.remaining > 0
            and self.rpc in {rpc, "*"}
            and self.side in {side, None}
            and (self.where is None or self.where(request))
        )


class Faults:
    """The scripted faults, used up in the order in which they were set.

    `rpc` is the name of a request ("FunctionGet") or "*"; `side` limits a fault to requests of clients or of
    containers, `where` to the requests for which it returns true; `times` is the number of affected requests.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lost_outputs = 0
        self._build_failure: tuple[str, tuple[str, ...]] | None = None

    def fail(
        self,
        rpc: str,
        status: Status,
        times: float = 1,
        *,
        message: str = "scripted fault",
        side: Side | None = None,
        where: Where | None = None,
    ) -> None:
        """Answer with a gRPC status instead of handling the request."""
        self._add(_Fault(rpc, side, where, times, status=status, message=message))

    def delay(
        self,
        rpc: str,
        seconds: float,
        times: float = math.inf,
        *,
        side: Side | None = None,
        where: Where | None = None,
    ) -> None:
        """Handle the request after a delay in seconds."""
        self._add(_Fault(rpc, side, where, times, seconds=seconds))

    def hang(
        self, rpc: str, times: float = math.inf, *, side: Side | None = None, where: Where | None = None
    ) -> None:
        """Do not answer until `clear` is called or the caller gives up."""
        self._add(_Fault(rpc, side, where, times, seconds=math.inf))

    def lose_reply(self, rpc: str, times: float = 1, *, side: Side | None = None, where: Where | None = None) -> None:
        """Handle the request, then answer UNAVAILABLE, so that the caller cannot know that it was handled."""
        self._add(
            _Fault(
                rpc, side, where, times, status=Status.UNAVAILABLE, message="scripted lost reply", loses_reply=True
            )
        )

    def lose_outputs(self, times: int = 1) -> None:
        """Acknowledge the next outputs that a container reports, and discard them."""
        with self._lock:
            self._lost_outputs += times

    def fail_image_build(self, reason: str, log: tuple[str, ...] = ()) -> None:
        """Let image builds fail, cached or not, after they streamed `log`, until `clear`."""
        with self._lock:
            self._build_failure = (reason, log)

    def clear(self) -> None:
        """Remove every fault; hanging requests are handled now."""
        with self._lock:
            self._faults.clear()
            self._lost_outputs = 0
            self._build_failure = None
            for loop, released in self._waiting:
                loop.call_soon_threadsafe(released.set)

    async def strike(self, rpc: str, side: Side, request: Message) -> GRPCError | None:
        """Apply the matching faults to a request: wait, raise, or return the error that replaces its reply."""
        hidden: GRPCError | None = None
        for fault in self._take(rpc, side, request):
            await self._wait(fault.seconds)
            if fault.status is None:
                continue
            error = GRPCError(fault.status, fault.message)
            if not fault.loses_reply:
                raise error
            hidden = error
        return hidden

    def takes_output(self) -> bool:
        """Return whether to discard the output that just arrived."""
        with self._lock:
            lost = self._lost_outputs > 0
            self._lost_outputs -= lost
            return lost

    @property
    def build_failure(self) -> tuple[str, tuple[str, ...]] | None:
        """Return the reason and the log for failing image builds."""
        with self._lock:
            return self._build_failure

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def _take(self, rpc: str, side: Side, request: Message) -> list[_Fault]:
        matching: list[_Fault] = []
        with self._lock:
            for fault in self._faults:
                if not fault.concerns(rpc, side, request):
                    continue
                fault.remaining -= 1
                matching.append(fault)
                if fault.status is not None or math.isinf(fault.seconds):
                    break
        return matching

    async def _wait(self, seconds: float) -> None:
        if not seconds:
            return
        waiting = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.append(waiting)
        try:
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await waiting[1].wait()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.remove(waiting)
