"""Containers: scaling, dispatch of inputs, termination, and the RPCs of the container runtime."""

from __future__ import annotations

import asyncio
import hashlib
import math
import shutil
import signal
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from .calls import TERMINATED, Calls
from .deployments import Deployments
from .faults import Faults
from .logs import Logs
from .model import Container, Function, Input
from .processes import HEARTBEAT_SECONDS, container_environment, end_all, kill_all, write_mounts
from .wire import calling_task

KILL = api_pb2.FunctionGetInputsResponse(inputs=[api_pb2.FunctionGetInputsItem(kill_switch=True)])
Status = api_pb2.GenericResult


@dataclass(slots=True)
class Containers:
    """One process per queued input, up to the limits; idle ones are reused."""

    deployments: Deployments
    calls: Calls
    faults: Faults
    folder: Path
    python: str
    limit: int
    grace_seconds: float
    url: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    running: dict[str, Container] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    closing: bool = False
    # Longest time that a container waits for an input, so that a test need not wait for that of a function.
    longest_idle_seconds: float = math.inf
    logs: Logs = field(default_factory=Logs)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.calls.on_queued = self.scale
        self.calls.on_withdrawn = self._withdraw
        self.deployments.on_change = self._republished
        self.deployments.on_stop = self._stop_function
        self.deployments.calling_function = self._calling_function

    # Scaling.

    def scale(self, function: Function) -> None:
        """Start the containers that the queue of a function needs, within its limits."""
        live = function.live
        if live is None or self.closing:
            return
        # A container that takes no further input, but still has one, counts for the limit of the function.
        own = [one for one in self.running.values() if one.function is function and (one.inputs or not one.draining)]
        current = [one for one in own if one.definition is live and not one.draining]
        free = sum(one.concurrency - len(one.inputs) for one in current)
        settings = function.settings()
        allowed = settings.max_containers or live.proto.concurrency_limit or math.inf
        concurrency = live.proto.max_concurrent_inputs or 1
        while (
            (len(function.queue) > free or len(current) < settings.min_containers)
            and len(own) < allowed
            and self._make_room()
        ):
            container = Container(function, live, self.folder)
            container.folder = self.folder / "containers" / container.id
            # Registered before it starts, so that the next call of this method counts it.
            self.running[container.id] = container
            own.append(container)
            current.append(container)
            free += concurrency
            task = asyncio.ensure_future(self._run(container))
            self._tasks.add(task)
            task.add_done_callback(self._ran)

    def _scale_all(self) -> None:
        for function in list(self.deployments.functions.values()):
            self.scale(function)

    def _kept_warm(self, container: Container) -> bool:
        """Return whether a container without an input is one of the minimum of its function."""
        function = container.function
        current = [one for one in self.running.values() if one.function is function and not one.draining]
        return len(current) <= function.settings().min_containers

    def _make_room(self) -> bool:
        # A container that waits for calls of its body does not count, or the calls could wait for it forever.
        if sum(not one.waits for one in self.running.values()) < self.limit:
            return True
        for other in self.running.values():
            if other.ready and not other.inputs and not other.draining and not other.function.queue:
                other.draining = True
                other.function.changes.notify()
                break
        return False

    # Life of a container.

    async def _run(self, container: Container) -> None:
        proto = container.definition.proto
        container.folder.mkdir(parents=True)
        files = [file for mount_id in sorted(proto.mount_ids) for file in self.deployments.workspace.mounts[mount_id]]
        digest = hashlib.sha256(" ".join(sorted(proto.mount_ids)).encode()).hexdigest()[:16]
        source = write_mounts(self.folder / "mounts" / digest, files, self.deployments.workspace.files)
        app = container.function.app
        arguments = container.folder / "arguments.pb"
        arguments.write_bytes(
            api_pb2.ContainerArguments(
                task_id=container.id,
                function_id=container.function.id,
                app_id=app.id,
                function_def=proto,
                app_layout=self.deployments.layout(app, container.function.pinned_version),
                environment_name=app.environment,
            ).SerializeToString()
        )
        variables = container_environment(self.url, container.id, app.environment, arguments, source)
        variables |= self.deployments.workspace.image_environment(proto.image_id) if proto.image_id else {}
        for secret_id in proto.secret_ids:
            variables |= self.deployments.workspace.secrets[secret_id]
        work, disk = container.folder / "work", container.folder / "tmp"
        work.mkdir()
        disk.mkdir()
        with (container.folder / "stdout").open("wb") as out, (container.folder / "stderr").open("wb") as err:
            container.process = await asyncio.create_subprocess_exec(
                self.python,
                "-m",
                "modal._container_entrypoint",
                cwd=work,
                env={**variables, "TMPDIR": str(disk), **self.variables},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            if self.closing:
                kill_all(container.id)
            returncode = await container.process.wait()
        await asyncio.to_thread(end_all, container.id)
        # The disk of a container is deleted with it.
        await asyncio.to_thread(shutil.rmtree, disk, ignore_errors=True)
        container.ended = True
        container.changes.notify()
        del self.running[container.id]
        self._settle(container, returncode)
        self._scale_all()
        self.calls.on_change()

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append("".join(traceback.format_exception(error)))

    def _settle(self, container: Container, returncode: int) -> None:
        """Decide about the inputs of a container that ended."""
        how = f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"exit status {returncode}"
        died = api_pb2.GenericResult(
            status=Status.GENERIC_STATUS_INTERNAL_FAILURE, exception=f"Container {container.id} ended with {how}."
        )
        # An input that timed out may already run in another container.
        held_inputs = [call_input for call_input in container.inputs.values() if call_input.container is container]
        for call_input in held_inputs:
            if call_input.cancelled:
                self.calls.finish(call_input, TERMINATED)
            elif container.hands_over or returncode == 0:
                self.calls.enqueue(call_input, first=True)
            else:
                self.calls.finish(call_input, container.fate or died)
        container.inputs.clear()
        if container.ready or container.draining or self.closing:
            return
        # It never asked for an input, so the next one would fail in the same way.
        tail = (container.folder / "stderr").read_text(errors="replace")[-2000:]
        failed = container.failure or api_pb2.GenericResult(
            status=Status.GENERIC_STATUS_INIT_FAILURE, exception=f"The container did not start ({how}).\n{tail}"
        )
        queue = container.function.queue
        while queue:
            self.calls.finish(queue.popleft(), failed)

    def end(self, container: Container, fate: api_pb2.GenericResult | None) -> None:
        """Kill a container; its inputs get the result `fate`, or run again in another container if that is None."""
        container.draining = True
        container.hands_over = fate is None
        container.fate = fate
        kill_all(container.id)

    async def close(self) -> None:
        """End every container and wait until no process is left."""
        self.closing = True
        for container in list(self.running.values()):
            container.draining = True
            kill_all(container.id)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)

    # Withdrawal of an input.

    def _withdraw(self, container: Container, call_input: Input, terminate: bool) -> None:
        if terminate:
            self.end(container, None)
            return
        container.cancellations.append(call_input.id)
        container.changes.notify()
        asyncio.get_running_loop().call_later(self.grace_seconds, self._end_if_held, container, call_input)

    def _end_if_held(self, container: Container, call_input: Input) -> None:
        if call_input.id in container.inputs and not container.ended:
            self.end(container, None)

    def _timed_out(self, container: Container, call_input: Input) -> None:
        seconds = container.definition.proto.timeout_secs
        message = f"Task's current input {call_input.id} hit its timeout of {seconds}s"
        self._withdraw(container, call_input, terminate=False)
        result = api_pb2.GenericResult(status=Status.GENERIC_STATUS_TIMEOUT, exception=message)
        self.calls.finish(call_input, result)

    def _republished(self, function: Function) -> None:
        if function.live is None:
            self._stop_function(function)
        # Containers of the previous version end when they ask for the next input.
        function.changes.notify()

    def _stop_function(self, function: Function) -> None:
        while function.queue:
            self.calls.cancel(function.queue[0])
        for container in list(self.running.values()):
            if container.function is function:
                self.end(container, TERMINATED)

    # RPCs of the container runtime.

    async def container_hello(self, _request: Empty) -> Empty:
        return Empty()

    async def container_heartbeat(
        self, _request: api_pb2.ContainerHeartbeatRequest
    ) -> api_pb2.ContainerHeartbeatResponse:
        container = self._container()
        if not await container.changes.until(lambda: container.cancellations, HEARTBEAT_SECONDS - 0.2):
            return api_pb2.ContainerHeartbeatResponse()
        cancelled = [input_id for input_id in container.cancellations if input_id in container.inputs]
        container.cancellations.clear()
        return api_pb2.ContainerHeartbeatResponse(cancel_input_event=api_pb2.CancelInputEvent(input_ids=cancelled))

    async def function_get_inputs(
        self, _request: api_pb2.FunctionGetInputsRequest
    ) -> api_pb2.FunctionGetInputsResponse:
        container = self._container()
        container.ready = True
        function, proto = container.function, container.definition.proto
        if not function.queue:
            # It is idle, so a function that the limit of all containers has stopped may take its place.
            self._scale_all()

        def take() -> Input | bool | None:
            if container.draining or container.definition is not function.live:
                return True
            return function.queue.popleft() if function.queue else None

        window = function.settings().scaledown_window or proto.task_idle_timeout_secs or 60
        idle_seconds = min(window, self.longest_idle_seconds)
        while (taken := await function.changes.until(take, idle_seconds)) is None and self._kept_warm(container):
            container.idle_rounds += 1
            self.calls.on_change()
        if not isinstance(taken, Input):
            container.draining = True
            return KILL
        taken.container = container
        container.inputs[taken.id] = taken
        self.logs.begin(taken, container.folder)
        container.draining = proto.single_use_containers or proto.max_inputs == 1
        if proto.timeout_secs:
            loop = asyncio.get_running_loop()
            taken.timer = loop.call_later(proto.timeout_secs, self._timed_out, container, taken)
        self.calls.on_change()
        item = api_pb2.FunctionGetInputsItem(
            input_id=taken.id,
            input=taken.payload,
            function_call_id=taken.call.id,
            function_call_invocation_type=taken.call.invocation,
            retry_count=taken.retry_count,
            function_map_idx=taken.index,
        )
        return api_pb2.FunctionGetInputsResponse(inputs=[item])

    async def function_put_outputs(self, request: api_pb2.FunctionPutOutputsRequest) -> Empty:
        container = self._container()
        for output in request.outputs:
            call_input = container.inputs.pop(output.input_id, None)
            # An output that arrives after the input was withdrawn, or for an earlier attempt, is ignored.
            if (
                call_input is None
                or call_input.retry_count != output.retry_count
                or call_input.container is not container
            ):
                continue
            if self.faults.takes_output():
                continue
            self.calls.finish(
                call_input,
                output.result,
                data_format=output.data_format,
                started_at=output.input_started_at,
                created_at=output.output_created_at,
            )
        container.function.changes.notify()
        return Empty()

    async def task_result(self, request: api_pb2.TaskResultRequest) -> Empty:
        self._container().failure = request.result
        return Empty()

    # RPCs of clients about containers.

    async def task_list(self, request: api_pb2.TaskListRequest) -> api_pb2.TaskListResponse:
        listed = [
            api_pb2.TaskStats(task_id=one.id, app_id=one.function.app.id, enqueued_at=one.born_at)
            for one in self.running.values()
            if request.app_id in {"", one.function.app.id}
        ]
        return api_pb2.TaskListResponse(tasks=listed)

    async def container_stop(self, request: api_pb2.ContainerStopRequest) -> api_pb2.ContainerStopResponse:
        container = self.running.get(request.task_id)
        if container is not None:
            self.end(container, None)
            await container.changes.until(lambda: container.ended)
        return api_pb2.ContainerStopResponse()

    async def function_get_current_stats(
        self, request: api_pb2.FunctionGetCurrentStatsRequest
    ) -> api_pb2.FunctionStats:
        function, _ = self.deployments.function(request.function_id)
        own = [one for one in self.running.values() if one.function is function]
        return api_pb2.FunctionStats(
            backlog=len(function.queue),
            num_total_tasks=len(own),
            num_running_inputs=sum(len(one.inputs) for one in own),
        )

    async def function_update_scheduling_params(
        self, request: api_pb2.FunctionUpdateSchedulingParamsRequest
    ) -> api_pb2.FunctionUpdateSchedulingParamsResponse:
        function, _ = self.deployments.function(request.function_id)
        function.scaling.MergeFrom(request.settings)
        self.scale(function)
        return api_pb2.FunctionUpdateSchedulingParamsResponse(current_settings=function.settings())

    async def function_get_scheduling_params(
        self, request: api_pb2.FunctionGetSchedulingParamsRequest
    ) -> api_pb2.FunctionGetSchedulingParamsResponse:
        function, _ = self.deployments.function(request.function_id)
        configuration = api_pb2.AutoscalerConfiguration(settings=function.settings())
        return api_pb2.FunctionGetSchedulingParamsResponse(autoscaler_configuration=configuration)

    def _container(self) -> Container:
        return self.running[calling_task.get()]

    def _calling_function(self) -> Function | None:
        caller = self.running.get(calling_task.get())
        return None if caller is None else caller.function
