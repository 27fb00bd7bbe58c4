"""Function calls from the client's side: submit, wait, retry, cancel, look up; containers take inputs from here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from .deployments import Deployments
from .model import Call, Container, Function, Input

_RETRIED = {
    api_pb2.GenericResult.GENERIC_STATUS_FAILURE,
    api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT,
}
TERMINATED = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_TERMINATED)


@dataclass(slots=True)
class Calls:
    """Every call and input of the plane, and the RPCs of clients about them."""

    deployments: Deployments
    calls: dict[str, Call] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)
    # Set by the containers: called when an input is queued, and when a container must give up an input.
    on_queued: Callable[[Function], None] = lambda _function: None
    on_withdrawn: Callable[[Container, Input, bool], None] = lambda _container, _input, _terminate: None
    on_change: Callable[[], None] = lambda: None

    # Life of an input.

    def enqueue(self, call_input: Input, *, first: bool = False) -> None:
        """Queue the input for a container; `first` puts it before the others."""
        if call_input.finished:
            return
        function = call_input.call.function
        call_input.container = None
        (function.queue.appendleft if first else function.queue.append)(call_input)
        function.changes.notify()
        self.on_queued(function)

    def finish(
        self,
        call_input: Input,
        result: api_pb2.GenericResult,
        *,
        data_format: int = 0,
        started_at: float = 0.0,
        created_at: float = 0.0,
    ) -> None:
        """Store the output of the input, or queue the input again if the plane has to retry it."""
        if call_input.finished:
            return
        if call_input.timer is not None:
            call_input.timer.cancel()
            call_input.timer = None
        if result.status in _RETRIED and self._retries(call_input):
            return
        call_input.finished = True
        call = call_input.call
        call.entries.append(len(call.entries) + 1)
        call.outputs.append(
            api_pb2.FunctionGetOutputsItem(
                result=result,
                idx=call_input.index,
                input_id=call_input.id,
                data_format=data_format,
                task_id=call_input.container.id if call_input.container else "",
                input_started_at=started_at,
                output_created_at=created_at,
                retry_count=call_input.retry_count,
            )
        )
        call.changes.notify()
        self.on_change()

    def cancel(self, call_input: Input, *, terminate: bool = False) -> None:
        """End an input permanently: at once if it is queued, through its container if it runs."""
        if call_input.finished:
            return
        call_input.cancelled = True
        queue = call_input.call.function.queue
        if call_input in queue:
            queue.remove(call_input)
        if call_input.container is None:
            self.finish(call_input, TERMINATED)
        else:
            self.on_withdrawn(call_input.container, call_input, terminate)

    def _retries(self, call_input: Input) -> bool:
        # A waiting client retries by itself, but no client waits for a spawned call.
        if call_input.call.invocation == api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC or call_input.cancelled:
            return False
        live = call_input.call.function.live
        if live is None or call_input.retry_count >= live.proto.retry_policy.retries:
            return False
        policy = live.proto.retry_policy
        delay_ms = policy.initial_delay_ms * (policy.backoff_coefficient or 1.0) ** call_input.retry_count
        call_input.retry_count += 1
        call_input.container = None
        delay_seconds = min(delay_ms, policy.max_delay_ms or delay_ms) / 1000
        asyncio.get_running_loop().call_later(delay_seconds, self.enqueue, call_input)
        return True

    # RPCs: submit.

    async def function_map(self, request: api_pb2.FunctionMapRequest) -> api_pb2.FunctionMapResponse:
        function, live = self.deployments.function(request.function_id)
        call = Call(function, request.function_call_invocation_type, request.parent_input_id)
        self.calls[call.id] = call
        if (parent := self.inputs.get(request.parent_input_id)) is not None:
            parent.children.append(call)
        return api_pb2.FunctionMapResponse(
            function_call_id=call.id,
            function_call_jwt=call.id,
            pipelined_inputs=self._put(call, request.pipelined_inputs),
            retry_policy=live.proto.retry_policy,
            sync_client_retries_enabled=True,
            max_inputs_outstanding=1000,
        )

    async def function_put_inputs(
        self, request: api_pb2.FunctionPutInputsRequest
    ) -> api_pb2.FunctionPutInputsResponse:
        call = self._call(request.function_call_id)
        self.deployments.function(call.function.id)
        return api_pb2.FunctionPutInputsResponse(inputs=self._put(call, request.inputs))

    async def function_finish_inputs(self, request: api_pb2.FunctionFinishInputsRequest) -> Empty:
        self._call(request.function_call_id)
        return Empty()

    async def function_retry_inputs(
        self, request: api_pb2.FunctionRetryInputsRequest
    ) -> api_pb2.FunctionRetryInputsResponse:
        call = self._call(request.function_call_jwt)
        again = [self.inputs[item.input_jwt.partition(":")[0]] for item in request.inputs]
        for call_input in again:
            remaining = [index for index, output in enumerate(call.outputs) if output.input_id != call_input.id]
            call.outputs = [call.outputs[index] for index in remaining]
            call.entries = [call.entries[index] for index in remaining]
            call_input.finished = False
            call_input.retry_count += 1
            self.enqueue(call_input)
        return api_pb2.FunctionRetryInputsResponse(input_jwts=[call_input.token for call_input in again])

    # RPCs: wait and look up.

    async def function_get_outputs(
        self, request: api_pb2.FunctionGetOutputsRequest
    ) -> api_pb2.FunctionGetOutputsResponse:
        call = self._call(request.function_call_id)
        after = int(request.last_entry_id.partition("-")[0] or 0)
        bounded = request.HasField("start_idx")

        def look() -> list[tuple[int, api_pb2.FunctionGetOutputsItem]]:
            numbered = zip(call.entries, call.outputs, strict=True)
            return [
                (entry, output)
                for entry, output in numbered
                if entry > after and (not bounded or request.start_idx <= output.idx <= request.end_idx)
            ]

        outputs_found = await call.changes.until(lambda: call.expired or look(), request.timeout)
        if outputs_found is True:
            # No output remains and none will follow: the client reports an expired output.
            await asyncio.sleep(min(request.timeout, 0.2))
            return api_pb2.FunctionGetOutputsResponse(last_entry_id=request.last_entry_id)
        unfinished = sum(not call_input.finished for call_input in call.inputs)
        return api_pb2.FunctionGetOutputsResponse(
            idxs=[output.idx for _, output in outputs_found],
            outputs=[output for _, output in outputs_found],
            last_entry_id=f"{max((entry for entry, _ in outputs_found), default=after)}-0",
            num_unfinished_inputs=unfinished,
        )

    async def function_call_from_id(
        self, request: api_pb2.FunctionCallFromIdRequest
    ) -> api_pb2.FunctionCallFromIdResponse:
        call = self._call(request.function_call_id)
        metadata = api_pb2.FunctionCallHandleMetadata(app_id=call.function.app.id, function_id=call.function.id)
        return api_pb2.FunctionCallFromIdResponse(
            function_call_id=call.id, num_inputs=len(call.inputs), metadata=metadata
        )

    async def function_get_call_graph(
        self, request: api_pb2.FunctionGetCallGraphRequest
    ) -> api_pb2.FunctionGetCallGraphResponse:
        root = self._call(request.function_call_id)
        while (parent := self.inputs.get(root.parent_input_id)) is not None:
            root = parent.call
        graph = api_pb2.FunctionGetCallGraphResponse()
        calls = [root]
        for call in calls:
            graph.function_calls.add(
                function_call_id=call.id, parent_input_id=call.parent_input_id, function_name=call.function.name
            )
            statuses = {output.input_id: output.result.status for output in call.outputs}
            for call_input in call.inputs:
                graph.inputs.add(
                    input_id=call_input.id,
                    status=statuses.get(call_input.id, api_pb2.GenericResult.GENERIC_STATUS_UNSPECIFIED),
                    function_call_id=call.id,
                    task_id=call_input.container.id if call_input.container else "",
                )
                calls.extend(call_input.children)
        return graph

    async def function_call_cancel(self, request: api_pb2.FunctionCallCancelRequest) -> Empty:
        for call_input in self._call(request.function_call_id).inputs:
            self.cancel(call_input, terminate=request.terminate_containers)
        return Empty()

    # RPCs: generators.

    async def function_call_put_data_out(self, request: api_pb2.FunctionCallPutDataRequest) -> Empty:
        call = self._call(request.function_call_id)
        call.chunks.extend(request.data_chunks)
        call.changes.notify()
        return Empty()

    async def function_call_get_data_out(
        self, request: api_pb2.FunctionCallGetDataRequest
    ) -> AsyncIterator[api_pb2.DataChunk]:
        call = self._call(request.function_call_id)
        sent = request.last_index
        while True:
            await call.changes.until(lambda sent=sent: len(call.chunks) > sent)
            yield call.chunks[sent]
            sent += 1

    def _put(
        self, call: Call, items: list[api_pb2.FunctionPutInputsItem]
    ) -> list[api_pb2.FunctionPutInputsResponseItem]:
        answered = []
        for item in items:
            call_input = Input(call, item.idx, item.input)
            self.inputs[call_input.id] = call_input
            call.inputs.append(call_input)
            self.enqueue(call_input)
            answered.append(
                api_pb2.FunctionPutInputsResponseItem(
                    idx=item.idx, input_id=call_input.id, input_jwt=call_input.token
                )
            )
        return answered

    def _call(self, call_id: str) -> Call:
        call = self.calls.get(call_id)
        if call is None:
            raise GRPCError(Status.NOT_FOUND, f"No FunctionCall with ID '{call_id}' found")
        return call
