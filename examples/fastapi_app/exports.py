"""Exports: what a person asked for, as a chain of render jobs that goes on after a restart of the app.

Each export is one JSON file. A job that nobody knows any more, as a local one after a restart, is submitted again.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from reel_modal import (
    FramingRequest,
    FunctionRegistry,
    Job,
    OverlayRequest,
    ProgressUpdate,
    RenderResult,
    UpscaleRequest,
)
from reel_modal.errors import ConfigError, JobCancelledError, JobNotFoundError, ReelModalError, RemoteError

REQUESTS = {
    "render_overlay": OverlayRequest,
    "process_framing": FramingRequest,
    "apply_upscale": UpscaleRequest,
}


@dataclass
class Export:
    """One export and how far it has come; all of it is in its file."""

    clip: str
    name: str
    steps: list[tuple[str, dict[str, object]]]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: float = field(default_factory=time.time)
    step: int = 0
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
    """Runs exports, a task each, and remembers them."""

    def __init__(self, registry: FunctionRegistry, folder: Path) -> None:
        self._registry = registry
        self._records = Records(folder)
        self._exports = {record["id"]: Export(**record) for record in self._records}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._jobs: dict[str, Job[RenderResult]] = {}
        self._news = {export_id: asyncio.Event() for export_id in self._exports}

    def __iter__(self) -> Iterator[Export]:
        yield from sorted(self._exports.values(), key=lambda export: -export.created_at)

    def __getitem__(self, export_id: str) -> Export:
        return self._exports[export_id]

    def resume(self) -> None:
        """Go on with what was under way when the app last stopped."""
        for export in self:
            if export.status == "running":
                self.start(export)

    def start(self, export: Export) -> None:
        """Run `export` to its end, in a task of its own."""
        self._exports[export.id] = export
        self._tell(export)
        self._tasks[export.id] = asyncio.create_task(self._run(export))

    async def cancel(self, export: Export) -> None:
        """End `export` and what it started; of one that has ended, nothing changes."""
        if export.status == "running":
            export.status = "cancelled"
            self._tell(export)
            if (job := self._jobs.get(export.id)) is not None:
                await job.cancel()

    async def close(self) -> None:
        """Stop watching; what is under way stays so in its file."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def updates(self, export: Export) -> AsyncGenerator[ProgressUpdate]:
        """Yield the progress of the whole chain, in which every step counts alike."""
        sequence = 0
        while export.status == "running":
            news, step, job = self._news[export.id], export.step, self._jobs.get(export.id)
            if job is not None:
                async with aclosing(job.progress()) as updates:
                    async for update in updates:
                        if update.ended:
                            break
                        sequence += 1
                        yield _of_chain(update, step, len(export.steps), sequence)
            await news.wait()
        yield _last(export, sequence + 1)

    async def _run(self, export: Export) -> None:
        try:
            while export.status == "running" and export.step < len(export.steps):
                result = await self._result(export)
                export.output, export.notes = result.output_key, [*export.notes, *map(str, result.degraded)]
                export.step, export.job_id = export.step + 1, None
            if export.status == "running":
                export.status = "complete"
        except JobCancelledError:
            export.status = "cancelled"
        except ReelModalError as error:
            export.status, export.message = "failed", _said(error)
        self._tell(export)

    async def _result(self, export: Export) -> RenderResult:
        """Return the result of the step that is due, of the job that runs already or of a new one."""
        function, fields = export.steps[export.step]
        request = REQUESTS[function].parse(fields)
        if export.job_id is not None:
            # A local job ends with the app that ran it; its request is still here, and its output may be.
            with suppress(ConfigError, JobNotFoundError):
                return await self._watched(export, self._registry.attach(export.job_id, request))
        return await self._watched(export, await self._registry[function].submit(request))

    async def _watched(self, export: Export, job: Job[RenderResult]) -> RenderResult:
        self._jobs[export.id], export.job_id = job, job.id
        self._tell(export)
        try:
            if export.status != "running":  # cancelled while the job was being submitted
                await job.cancel()
            return await job.result()
        finally:
            del self._jobs[export.id]

    def _tell(self, export: Export) -> None:
        """Write down what has changed, and wake who listens."""
        self._records.save(export.id, asdict(export))
        news, self._news[export.id] = self._news.get(export.id), asyncio.Event()
        if news is not None:
            news.set()


def _of_chain(update: ProgressUpdate, step: int, steps: int, sequence: int) -> ProgressUpdate:
    last = step == steps - 1
    return replace(
        update,
        progress=(100 * step + update.progress) / steps,
        message=f"Step {step + 1} of {steps}: {update.message}",
        eta_seconds=update.eta_seconds if last else None,
        sequence=sequence,
    )


def _last(export: Export, sequence: int) -> ProgressUpdate:
    done = export.status == "complete"
    return ProgressUpdate(
        progress=100.0 if done else 100.0 * export.step / len(export.steps),
        message="Your clip is ready." if done else export.message or "Cancelled.",
        status="complete" if done else "error",
        phase=export.status,
        source="measured",
        elapsed_seconds=time.time() - export.created_at,
        eta_seconds=0.0 if done else None,
        sequence=sequence,
    )


def _said(error: ReelModalError) -> str:
    return f"{error.user_message} ({error})" if isinstance(error, RemoteError) else str(error)
