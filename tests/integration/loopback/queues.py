"""Modal's queues: named, with partitions and a time to live; values are opaque bytes."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .changes import Changes
from .model import new_id
from .workspace import Workspace

ITEMS_PER_PARTITION = 5_000
BYTES_PER_ITEM = 1 << 20


@dataclass(slots=True)
class _Partition:
    items: deque[tuple[int, bytes]] = field(default_factory=deque)
    ttl_seconds: float = 24 * 3600.0
    expires_at: float = float("inf")


@dataclass(slots=True)
class _Queue:
    name: str
    partitions: dict[bytes, _Partition] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)
    last_entry: int = 0


@dataclass(slots=True)
class Queues:
    """The queues and their RPCs."""

    workspace: Workspace
    queues: dict[str, _Queue] = field(default_factory=dict)
    named: dict[tuple[str, str], str] = field(default_factory=dict)
    # Set by tests: seconds added to the clock that expires partitions.
    passed_seconds: float = 0.0

    def lengths(self, name: str, environment: str) -> dict[str, int]:
        """Return the number of items by partition of a named queue; empty partitions are left out."""
        queue_id = self.named.get((environment, name))
        if queue_id is None:
            return {}
        queue = self._live(queue_id)
        return {key.decode(): len(partition.items) for key, partition in queue.partitions.items() if partition.items}

    async def queue_get_or_create(self, request: api_pb2.QueueGetOrCreateRequest) -> api_pb2.QueueGetOrCreateResponse:
        name = request.deployment_name
        if not name:
            return self._described(self._create(""))
        key = (self.workspace.environment(request.environment_name), name)
        creation_type = request.object_creation_type
        if key not in self.named:
            if creation_type == api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED:
                raise GRPCError(Status.NOT_FOUND, f"Queue '{name}' not found in environment '{key[0]}'")
            self.named[key] = self._create(name)
        elif creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(Status.ALREADY_EXISTS, f"Queue '{name}' exists")
        return self._described(self.named[key])

    async def queue_get_by_id(self, request: api_pb2.QueueGetByIdRequest) -> api_pb2.QueueGetByIdResponse:
        queue = self._live(request.queue_id)
        return api_pb2.QueueGetByIdResponse(
            queue_id=request.queue_id, metadata=api_pb2.QueueMetadata(name=queue.name)
        )

    async def queue_heartbeat(self, _request: api_pb2.QueueHeartbeatRequest) -> Empty:
        return Empty()

    async def queue_delete(self, request: api_pb2.QueueDeleteRequest) -> Empty:
        self.queues.pop(request.queue_id, None)
        self.named = {key: queue_id for key, queue_id in self.named.items() if queue_id != request.queue_id}
        return Empty()

    async def queue_put(self, request: api_pb2.QueuePutRequest) -> Empty:
        queue = self._live(request.queue_id)
        partition = queue.partitions.setdefault(request.partition_key, _Partition())
        if any(len(value) > BYTES_PER_ITEM for value in request.values):
            raise GRPCError(Status.INVALID_ARGUMENT, "a queue item may have 1 MiB at most")
        if len(partition.items) + len(request.values) > ITEMS_PER_PARTITION:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "the queue is full")
        for value in request.values:
            queue.last_entry += 1
            partition.items.append((queue.last_entry, value))
        partition.ttl_seconds = request.partition_ttl_seconds or partition.ttl_seconds
        self._touch(partition)
        queue.changes.notify()
        return Empty()

    async def queue_get(self, request: api_pb2.QueueGetRequest) -> api_pb2.QueueGetResponse:
        queue = self._live(request.queue_id)

        def take() -> list[bytes]:
            partition = queue.partitions.get(request.partition_key)
            if partition is None or not partition.items:
                return []
            self._touch(partition)
            count = min(request.n_values or 1, len(partition.items))
            return [partition.items.popleft()[1] for _ in range(count)]

        return api_pb2.QueueGetResponse(values=await queue.changes.until(take, max(0.0, request.timeout)))

    async def queue_next_items(self, request: api_pb2.QueueNextItemsRequest) -> api_pb2.QueueNextItemsResponse:
        queue = self._live(request.queue_id)
        last_entry = int(request.last_entry_id or 0)

        def look() -> list[api_pb2.QueueItem]:
            partition = queue.partitions.get(request.partition_key, _Partition())
            return [
                api_pb2.QueueItem(value=value, entry_id=str(entry))
                for entry, value in partition.items
                if entry > last_entry
            ]

        return api_pb2.QueueNextItemsResponse(items=await queue.changes.until(look, request.item_poll_timeout))

    async def queue_len(self, request: api_pb2.QueueLenRequest) -> api_pb2.QueueLenResponse:
        queue = self._live(request.queue_id)
        counted = [
            len(partition.items)
            for key, partition in queue.partitions.items()
            if request.total or key == request.partition_key
        ]
        return api_pb2.QueueLenResponse(len=sum(counted))

    async def queue_clear(self, request: api_pb2.QueueClearRequest) -> Empty:
        queue = self._live(request.queue_id)
        if request.all_partitions:
            queue.partitions.clear()
        else:
            queue.partitions.pop(request.partition_key, None)
        return Empty()

    def _create(self, name: str) -> str:
        queue_id = new_id("qu")
        self.queues[queue_id] = _Queue(name)
        return queue_id

    def _described(self, queue_id: str) -> api_pb2.QueueGetOrCreateResponse:
        metadata = api_pb2.QueueMetadata(name=self.queues[queue_id].name)
        return api_pb2.QueueGetOrCreateResponse(queue_id=queue_id, metadata=metadata)

    def _live(self, queue_id: str) -> _Queue:
        queue = self.queues.get(queue_id)
        if queue is None:
            raise GRPCError(Status.NOT_FOUND, f"No Queue with ID '{queue_id}' found")
        now = self._now()
        for key in [key for key, partition in queue.partitions.items() if partition.expires_at <= now]:
            del queue.partitions[key]
        return queue

    def _touch(self, partition: _Partition) -> None:
        partition.expires_at = self._now() + partition.ttl_seconds

    def _now(self) -> float:
        return time.monotonic() + self.passed_seconds
