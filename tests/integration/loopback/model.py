"""The data model of the plane: apps, functions, calls, inputs and containers."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from modal_proto import api_pb2

from .changes import Changes

_numbers = itertools.count(1)
# Containers are found, and killed, by their ids, which must differ from those of another run on this machine.
_run = secrets.token_hex(4)


def new_id(prefix: str) -> str:
    """Return an id in Modal's form: a two-letter prefix, a dash and a unique part."""
    return f"{prefix}-loopback{_run}{next(_numbers):08d}"


@dataclass(slots=True, eq=False)
class App:
    """One app in one environment; `function_ids` maps names to the published functions."""

    name: str
    environment: str
    state: int
    id: str = field(default_factory=lambda: new_id("ap"))
    function_ids: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    deployment_tag: str = ""
    deployments: int = 0
    # Published versions: ids of functions by name, ids of definitions by function.
    versions: dict[int, tuple[dict[str, str], dict[str, str]]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Definition:
    """One version of a function, as sent by FunctionPrecreate and FunctionCreate."""

    metadata: api_pb2.FunctionHandleMetadata
    data: api_pb2.FunctionData
    id: str = field(default_factory=lambda: new_id("de"))

    @property
    def proto(self) -> api_pb2.Function:
        """Return the definition that a container runs: the first choice of GPU."""
        return self.data.ranked_functions[0].function


@dataclass(slots=True, eq=False)
class Function:
    """One function of an app. Its id survives a redeploy; `live` is the last published version.

    A function that is pinned to a version has a separate id, queue and containers; its `live` never changes.
    """

    app: App
    name: str
    id: str = field(default_factory=lambda: new_id("fu"))
    live: Definition | None = None
    pinned_version: int = 0
    base_id: str = ""
    # Changes of the autoscaler since the last publication.
    scaling: api_pb2.AutoscalerSettings = field(default_factory=api_pb2.AutoscalerSettings)
    queue: deque[Input] = field(default_factory=deque)
    changes: Changes = field(default_factory=Changes)

    def settings(self) -> api_pb2.AutoscalerSettings:
        """Return the settings of the autoscaler: those of the live version, and the changes since."""
        settings = api_pb2.AutoscalerSettings()
        if self.live is not None:
            settings.CopyFrom(self.live.proto.autoscaler_settings)
        settings.MergeFrom(self.scaling)
        return settings


@dataclass(slots=True, eq=False)
class Input:
    """One set of arguments of a call, from the queue to its output."""

    call: Call
    index: int
    payload: api_pb2.FunctionInput
    id: str = field(default_factory=lambda: new_id("in"))
    retry_count: int = 0
    container: Container | None = None
    timer: asyncio.TimerHandle | None = None
    # The calls that its body has made; another attempt of the same input may wait for them too.
    children: list[Call] = field(default_factory=list)
    cancelled: bool = False
    finished: bool = False

    @property
    def token(self) -> str:
        """Return a stand-in for Modal's signed input token."""
        return f"{self.id}:{self.retry_count}"


@dataclass(slots=True, eq=False)
class Call:
    """One function call: its inputs, its outputs so far and the values that a generator has yielded."""

    function: Function
    invocation: int
    parent_input_id: str = ""
    id: str = field(default_factory=lambda: new_id("fc"))
    inputs: list[Input] = field(default_factory=list)
    outputs: list[api_pb2.FunctionGetOutputsItem] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    chunks: list[api_pb2.DataChunk] = field(default_factory=list)
    expired: bool = False
    changes: Changes = field(default_factory=Changes)

    @property
    def finished(self) -> bool:
        """Return whether every input has ended; a call whose inputs have not arrived has not."""
        return bool(self.inputs) and all(call_input.finished for call_input in self.inputs)


@dataclass(slots=True, eq=False)
class Container:
    """One process of the container runtime and its inputs."""

    function: Function
    definition: Definition
    folder: Path
    id: str = field(default_factory=lambda: new_id("ta"))
    process: asyncio.subprocess.Process | None = None
    inputs: dict[str, Input] = field(default_factory=dict)
    cancellations: list[str] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)
    ready: bool = False
    draining: bool = False
    ended: bool = False
    # How often it has waited for its whole idle time, and was kept because of the minimum of its function.
    idle_rounds: int = 0
    born_at: float = field(default_factory=time.time)
    # The result of its inputs when it ends; None means that they run again in another container.
    hands_over: bool = False
    fate: api_pb2.GenericResult | None = None
    # The result reported by the runtime if the function could not be loaded.
    failure: api_pb2.GenericResult | None = None

    @property
    def waits(self) -> bool:
        """Return whether each of its inputs has made a call that has not ended."""
        made = [call_input.children for call_input in self.inputs.values()]
        return bool(made) and all(any(not child.finished for child in children) for children in made)

    @property
    def concurrency(self) -> int:
        return self.definition.proto.max_concurrent_inputs or 1
