"""Exports: each is a chain of jobs that continues after a restart of the app. Each is stored in one JSON file."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from reel_modal import (
    FramingRequest,
    FunctionRegistry,
    Job,
    OverlayRequest,
    ProgressUpdate,
    RemoteError,
    UpscaleRequest,
)
from reel_modal.client import Chain
from reel_modal.errors import JobCancelledError, ReelModalError

REQUESTS = {
    "render_overlay": OverlayRequest,
    "process_framing": FramingRequest,
    "apply_upscale": UpscaleRequest,
}


@dataclass
class Export:
    """One export and its state; all of it is in its file."""

    clip: str
    name: str
    steps: list[tuple[str, dict[str, object]]]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: float = field(default_factory=time.time)
    job_id: str | None = None
    status: Literal["running", "complete", "failed", "cancelled"] = "running"
    message: str = ""
    output: str | None = None
    notes: list[str] = field(default_factory=list)


class Records:
    """Small JSON files by name, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self._folder.glob("*.json")):
            yield json.loads(path.read_text(encoding="utf-8"))

    def save(self, name: str, record: dict[str, Any]) -> None:
        """Write one record in place of its former self."""
        staged = self._folder / f"{name}.part"
        staged.write_text(json.dumps(record), encoding="utf-8")
        staged.replace(self._folder / f"{name}.json")


class Exports:
    """Runs exports, each in a task, and stores their state."""

    def __init__(self, registry: FunctionRegistry, folder: Path) -> None:
        self._registry = registry
        self._records = Records(folder)
        self._exports = {record["id"]: Export(**record) for record in self._records}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._chains: dict[str, asyncio.Task[Chain[Any]]] = {}

    def __iter__(self) -> Iterator[Export]:
        yield from sorted(self._exports.values(), key=lambda export: -export.created_at)

    def __getitem__(self, export_id: str) -> Export:
        return self._exports[export_id]

    def resume(self) -> None:
        """Continue the exports that were running when the app last stopped."""
        for export in self:
            if export.status == "running":
                self.start(export)

    def start(self, export: Export) -> None:
        """Run `export` to its end in a task."""
        self._exports[export.id] = export
        self._save(export)
        self._chains[export.id] = asyncio.create_task(self._chain(export))
        self._tasks[export.id] = asyncio.create_task(self._run(export))

    async def cancel(self, export: Export) -> None:
        """Cancel `export` and its running job; has no effect on an export that has ended."""
        if export.status == "running":
            await (await self._chains[export.id]).cancel()
            await self._tasks[export.id]

    async def close(self) -> None:
        """Stop waiting; running exports keep their status, so that `resume` continues them."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def updates(self, export: Export) -> AsyncGenerator[ProgressUpdate]:
        """Yield the progress of the whole export."""
        if export.status == "running":
            async with aclosing((await self._chains[export.id]).progress()) as updates:
                async for update in updates:
                    if not update.ended:
                        yield update
            await self._tasks[export.id]
        yield _last(export)

    async def _chain(self, export: Export) -> Chain[Any]:
        def store_id(job: Job[Any]) -> None:
            export.job_id = job.id
            self._save(export)

        requests = [REQUESTS[function].parse(fields) for function, fields in export.steps]
        return await self._registry.chain(*requests, on_job=store_id, running_job_id=export.job_id)

    async def _run(self, export: Export) -> None:
        try:
            chain = await self._chains[export.id]
            result, receipt = await chain.result(), await chain.receipt()
            export.output, export.notes = result.output_key, [str(note) for note in receipt.degraded]
            export.status = "complete"
        except JobCancelledError:
            export.status = "cancelled"
        except ReelModalError as error:
            export.status, export.message = "failed", _message(error)
        self._save(export)

    def _save(self, export: Export) -> None:
        self._records.save(export.id, asdict(export))


def _last(export: Export) -> ProgressUpdate:
    done = export.status == "complete"
    return ProgressUpdate(
        progress=100.0 if done else 0.0,
        message="Your clip is ready." if done else export.message or "Cancelled.",
        status="complete" if done else "error",
        phase=export.status,
        source="measured",
        elapsed_seconds=time.time() - export.created_at,
        eta_seconds=0.0 if done else None,
        sequence=1_000_000,
    )


def _message(error: ReelModalError) -> str:
    return f"{error.user_message} ({error})" if isinstance(error, RemoteError) else str(error)
