"""The gRPC server: authentication, request log and dispatch by the name of the RPC."""

from __future__ import annotations

import asyncio
import inspect
import re
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import WeakSet

import grpclib.server
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from grpclib.const import Handler
from modal._utils.grpc_utils import custom_detail_codec
from modal_proto import api_grpc, api_pb2

from .faults import Faults

TASK_HEADER = "x-loopback-task-id"


class Recorded(NamedTuple):
    """One request: the RPC's name and its message."""

    rpc: str
    request: Message


# The task whose container sent the current request; empty for a client.
calling_task: ContextVar[str] = ContextVar("calling_task", default="")


class Wire:
    """Serve every RPC of Modal's API with the method of `services` that has its name in snake case.

    A method takes the request and returns the reply; an async generator streams replies.
    """

    def __init__(self, services: Sequence[object], tokens: Mapping[str, str], faults: Faults) -> None:
        self.requests: list[Recorded] = []
        self.container_requests: list[Recorded] = []
        self.errors: list[str] = []
        self.on_request: Callable[[], None] = lambda: None
        self.is_task: Callable[[str], bool] = lambda _task_id: False
        self._services = services
        self._tokens = tokens
        self._faults = faults
        # A client repeats a request with the same key if the answer was lost; it is executed only once.
        self._replies: dict[tuple[str, str], asyncio.Task[Message]] = {}
        self._server: _Server | None = None

    async def start(self, port: int = 0) -> int:
        """Listen on a port of this machine, by default a free one, and return it."""
        # The server belongs to the loop in which it is created.
        self._server = _Server([self], status_details_codec=custom_detail_codec)
        await self._server.start("127.0.0.1", port)
        (socket,) = self._server._server.sockets
        return socket.getsockname()[1]

    async def stop(self, *, cut: bool = False) -> None:
        """Stop listening; `cut` also breaks the open connections, as a crash does."""
        if self._server is None:
            return
        if cut:
            for protocol in list(self._server.protocols):
                if protocol.connection is not None:
                    protocol.connection._transport.abort()
        self._server.close()
        # A client that keeps its connection open would make an unbounded wait endless.
        closed = asyncio.ensure_future(self._server.wait_closed())
        await asyncio.wait([closed], timeout=1)
        closed.cancel()

    def __mapping__(self) -> dict[str, Handler]:
        names = api_grpc.ModalClientBase.__abstractmethods__
        served = type("Served", (api_grpc.ModalClientBase,), {name: self._handler(name) for name in names})
        return dict(served().__mapping__())

    def _handler(self, rpc: str) -> Callable[..., Awaitable[None]]:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower()
        method = next(
            (service_method for service in self._services if (service_method := getattr(service, name, None))), None
        )

        async def handle(_served: object, stream: grpclib.server.Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            if request is None:
                return
            headers = {key: str(value) for key, value in (stream.metadata or {}).items()}
            task_id = self._identify(headers)
            calling_task.set(task_id)
            record = self.container_requests if task_id else self.requests
            record.append(Recorded(rpc, request))
            self.on_request()
            hidden = await self._faults.strike(rpc, "container" if task_id else "client", request)
            if method is None:
                raise GRPCError(Status.UNIMPLEMENTED, f"the loopback plane has no {rpc}")
            try:
                if inspect.isasyncgenfunction(method):
                    async for reply in method(request):
                        await stream.send_message(reply)
                    return
                reply = await self._once(rpc, headers, lambda: method(request))
            except GRPCError:
                raise
            except Exception as error:
                # A bug of the plane must not look like a fault of the tested code.
                self.errors.append(traceback.format_exc())
                raise GRPCError(Status.INTERNAL, f"loopback plane: {error!r}") from error
            if hidden is not None:
                raise hidden
            await stream.send_message(reply)

        return handle

    async def _once(self, rpc: str, headers: Mapping[str, str], run: Callable[[], Awaitable[Message]]) -> Message:
        key = headers.get("x-idempotency-key")
        if key is None or rpc not in _DONE_ONCE:
            return await run()
        task = self._replies.get((rpc, key))
        if task is None:
            task = self._replies[rpc, key] = asyncio.ensure_future(run())
        try:
            return await task
        except BaseException:
            # The request had no effect: a queue was full, or the sender gave up before the answer.
            self._replies.pop((rpc, key), None)
            raise

    def _identify(self, headers: Mapping[str, str]) -> str:
        if headers.get("x-modal-client-type") == str(api_pb2.CLIENT_TYPE_CONTAINER):
            task_id = headers.get(TASK_HEADER, "")
            if not self.is_task(task_id):
                raise GRPCError(Status.UNAUTHENTICATED, f"no such task: {task_id!r}")
            return task_id
        token = headers.get("x-modal-token-id", "")
        if not token or self._tokens.get(token) != headers.get("x-modal-token-secret"):
            raise GRPCError(Status.UNAUTHENTICATED, "Token ID or token secret is not valid.")
        return ""


class _Server(grpclib.server.Server):
    """A server that knows its connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.protocols: WeakSet[Any] = WeakSet()

    def _protocol_factory(self) -> Any:
        protocol = super()._protocol_factory()
        self.protocols.add(protocol)
        return protocol


# Requests that create or consume; repeating any other is harmless.
_DONE_ONCE = frozenset(
    {"FunctionMap", "FunctionPutInputs", "FunctionRetryInputs", "QueuePut", "QueueGet", "AppCreate"}
)
