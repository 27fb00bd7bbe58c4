"""Jobs of one function in worker processes, for the contract of every function."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from reel_modal._support.portal import run_sync
from reel_modal.backends.local import LocalBackend
from reel_modal.client import FunctionRegistry
from reel_modal.errors import ConfigError, WaitTimeoutError
from reel_modal.functions.context import CancellationToken
from reel_modal.functions.declaration import RenderFunction
from reel_modal.progress import ProgressEvent, ProgressUpdate
from reel_modal.schema.requests import Request
from reel_modal.schema.results import Result
from reel_modal.settings import Settings

__all__ = ["CancelIn", "ContractStore", "FinishedJob", "hash_in_other_process", "run_in_worker", "watch_job"]

T = TypeVar("T")

_PROCESS_SECONDS: Final = 120.0
_UPDATE_SECONDS: Final = 0.05

# Run by another Python process: it finds the function by its module, as a worker process and a container do.
_OTHER_PROCESS: Final = """
import json, sys
from reel_modal.functions.catalog import find_function
function = find_function(*sys.argv[1:])
request = function.parse_request(json.load(sys.stdin))
print(json.dumps(function.to_request(function.from_request(request)).request_hash()))
"""


@dataclass(frozen=True, slots=True)
class ContractStore:
    """A store in a folder, with the input of one request.

    Attributes:
        folder: Folder of the store.
        input: The input in the folder.
    """

    folder: Path
    input: Path

    @property
    def settings(self) -> Settings:
        """Settings of the environment, with this store, without Modal, and without recorded timings."""
        return Settings.from_env(modal_enabled=False, store_url=self.folder.as_uri(), timings="off")

    def files(self) -> dict[str, tuple[int, int]]:
        """Return size and modification time of each file, also of hidden ones, by its key."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {
            path.relative_to(self.folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) for path in found
        }


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """A job that ran in a worker process.

    Attributes:
        request: The request, as the host builds it.
        result: The result, as the host gets it.
        receipt: The result in the form in which it is sent, with durations and usage.
        events: All events of the job.
        updates: All progress updates of the job.
        store: The store, with the output.
        outside: Files that the job has left in the current directory or in the temporary directory.
    """

    request: Any
    result: Any
    receipt: Result
    events: tuple[ProgressEvent, ...]
    updates: tuple[ProgressUpdate, ...]
    store: ContractStore
    outside: tuple[str, ...]


def run_in_worker(function: RenderFunction[Any, Any], request: Any, store: ContractStore) -> FinishedJob:
    """Run a job in a worker process of a new registry."""
    backend = LocalBackend(store.settings)
    registry = FunctionRegistry(store.settings, functions=[function], backend=backend)
    try:
        result, receipt, events, updates = run_sync(watch_job(registry, function, request))
    finally:
        run_sync(registry.close())
    return FinishedJob(request, result, receipt, events, updates, store, ())


async def watch_job(
    registry: FunctionRegistry, function: RenderFunction[Any, Any], request: Any
) -> tuple[Any, Result, tuple[ProgressEvent, ...], tuple[ProgressUpdate, ...]]:
    """Submit a job and wait for its end; return its result, its receipt, its events and its updates."""
    job = await registry[function].submit(request)
    updates = await _all(job.progress(interval_seconds=_UPDATE_SECONDS))
    result, events = await job.result(), await _all(job.events())
    outcome = await registry.backend.wait(job.id.rpartition(":")[2], 0)
    if outcome is None:
        raise WaitTimeoutError("the backend does not know the outcome", function=function.name, call_id=job.id)
    return result, function.parse_result(outcome.value), events, updates


async def _all(values: AsyncIterator[T]) -> tuple[T, ...]:
    return tuple([value async for value in values])


class CancelIn:
    """Receives the events of a body, and cancels it at the first event of a phase."""

    def __init__(self, phase: str) -> None:
        self.token = CancellationToken()
        self._phase = phase
        self._cancelled_at = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        """Receive an event."""
        if event.phase == self._phase and not self.token.cancelled:
            self._cancelled_at = time.monotonic()
            self.token.cancel()

    def seconds(self) -> float:
        """Return the seconds since the cancellation."""
        return time.monotonic() - self._cancelled_at


def hash_in_other_process(function: RenderFunction[Any, Any], submitted: Request[Any]) -> str:
    """Return the hash that another Python process computes for a request that was sent to it."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _OTHER_PROCESS, function.module, function.name],
        input=json.dumps(submitted.to_dict()),
        # Another order of sets than in this process.
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=_PROCESS_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise ConfigError(
            f"another Python process cannot load {function.name} from {function.module!r}: {done.stderr}"
        )
    return str(json.loads(done.stdout.splitlines()[-1]))
