"""The log of a call: what its containers wrote while they ran its inputs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from modal_proto import api_pb2

from .model import Input

_STREAMS = {"stdout": api_pb2.FILE_DESCRIPTOR_STDOUT, "stderr": api_pb2.FILE_DESCRIPTOR_STDERR}


@dataclass(slots=True)
class _Run:
    """One input in one container, and the part of its output that was written meanwhile."""

    call_id: str
    input_id: str
    folder: Path
    begin: dict[str, int]
    end: dict[str, int] | None = None

    def lines(self, stream: str) -> list[str]:
        path, end = self.folder / stream, None if self.end is None else self.end[stream]
        content = path.read_bytes()[self.begin[stream] : end] if path.exists() else b""
        return content.decode(errors="replace").splitlines(keepends=True)


@dataclass(slots=True)
class Logs:
    """The runs of all inputs, and the RPC that reads their output."""

    runs: list[_Run] = field(default_factory=list)

    def begin(self, taken: Input, folder: Path) -> None:
        """Note that a container takes an input; its output from now on belongs to that input."""
        sizes = {stream: _size(folder / stream) for stream in _STREAMS}
        for run in self.runs:
            if run.folder == folder and run.end is None:
                run.end = sizes
        self.runs.append(_Run(taken.call.id, taken.id, folder, sizes))

    async def app_fetch_logs(self, request: api_pb2.AppFetchLogsRequest) -> api_pb2.AppFetchLogsResponse:
        items = [
            api_pb2.TaskLogs(
                data=line,
                file_descriptor=descriptor,
                function_call_id=run.call_id,
                input_id=run.input_id,
                timestamp=time.time(),
            )
            for run in self.runs
            if run.call_id == request.function_call_id
            for stream, descriptor in _STREAMS.items()
            for line in run.lines(stream)
        ]
        return api_pb2.AppFetchLogsResponse(batches=[api_pb2.TaskLogsBatch(items=items[-request.limit :])])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
