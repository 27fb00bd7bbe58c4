"""The `Backend` protocol: a service that runs functions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from reel_modal._progress.events import ProgressEvent
from reel_modal._progress.timing_model import LOCAL
from reel_modal._support.clock import Clock
from reel_modal.errors import RemoteError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.contract import Difference
from reel_modal.functions.resources import Resources
from reel_modal.settings import Settings

__all__ = [
    "CALL_ID",
    "Backend",
    "BackendTraits",
    "CallResult",
    "Check",
    "JobStatus",
    "verify_by_hydration",
]

JobStatus: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled", "unknown"]
"""`unknown` means that the backend is unreachable. It is never a final status."""

CALL_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
"""Pattern that the call ids of every backend match."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of the check of one function.

    Attributes:
        function: Name of the function.
        error: The problem; None if the function is deployed and matches the contract of this host.
        differences: Fields that differ between the deployment and this host.
    """

    function: str
    error: RemoteError | None = None
    differences: tuple[Difference, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the function can be called and matches the contract of this host."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class BackendTraits:
    """Facts about a backend that a registry uses.

    Attributes:
        settings: Settings of the processes that run the functions; None if they are those of the registry.
        records_timings: Whether the durations of its jobs are recorded if the host gives no history.
        timings_place: Name under which the durations are recorded; None is the GPU of the function.
        needs_store: Whether the functions run in other processes, which reach the videos only through a store.
        uses_host_credentials: Whether the store's credentials come from this process.
        applies_resources: Whether the `Resources` of a job have an effect.
    """

    settings: Settings | None = None
    records_timings: bool = False
    timings_place: str | None = LOCAL
    needs_store: bool = False
    uses_host_credentials: bool = False
    applies_resources: bool = True


@dataclass(frozen=True, slots=True)
class CallResult:
    """Result of a job that succeeded.

    Attributes:
        value: Return value of the function, in its wire form.
        queued_seconds: Seconds that the job waited in the queue before its start; 0 if unknown.
    """

    value: object
    queued_seconds: float = 0.0


class Backend(Protocol):
    """A service that runs functions. Every method may be called from any task, thread and event loop.

    All failures are `RemoteError`s. `UnavailableError` means that the state of the job is unknown, not that the job
    failed. Its subclass `JobNotFoundError` means that the state will stay unknown.
    """

    @property
    def name(self) -> str:
        """First part of every job id, such as `modal`."""
        ...

    @property
    def clock(self) -> Clock:
        """Clock for the waits of this backend: the system clock, except in a backend for tests."""
        ...

    @property
    def traits(self) -> BackendTraits:
        """Facts about the backend that a registry uses."""
        ...

    def register(self, functions: Mapping[str, AnyFunction]) -> None:
        """Add declared functions by name, so that the backend can run them; a registry calls this."""
        ...

    def is_call_id(self, call_id: str) -> bool:
        """Return whether `call_id` has the form of this backend's ids; sends no request."""
        ...

    async def hydrate(self, function: str) -> None:
        """Return once `function` is known to exist.

        Raises:
            RemoteError: The function does not exist, or the backend is unreachable.
        """
        ...

    async def submit(
        self,
        function: str,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        workers: int = 1,
        resources: Resources | None = None,
    ) -> str:
        """Start one call and return its id; the caller limits the wait.

        Args:
            function: Name of the function.
            args: Positional arguments in their wire form.
            kwargs: Keyword arguments in their wire form.
            workers: Number of machines that render segments of the output at once, 1 or more; 1 renders all of it on
                one machine. With libx264, the output has the same bytes for every number.
            resources: Resources in place of the deployed ones; None keeps those. A worker process on this machine has
                the resources of the machine.

        Raises:
            RemoteError: The call was not started, as far as the backend can know.

        Cancellation: may leave a call running; `RemoteFunction` therefore lets the submission finish.
        """
        ...

    async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:
        """Return the outcome, or None if the job has not ended after `timeout_seconds`; 0 does not wait.

        While the backend is silent, this may take longer; the caller limits the wait.

        Raises:
            RemoteError: The job failed or was cancelled, or the backend is unreachable.

        Cancellation: ends only the wait; the job continues.
        """
        ...

    async def cancel(self, call_id: str) -> None:
        """Cancel the job and everything that it started; has no effect on a job that has ended.

        Raises:
            RemoteError: The backend is unreachable.
        """
        ...

    async def event_count(self, call_id: str) -> int:
        """Return how many events the job has reported; a number above 0 means that it runs or has run."""
        ...

    def events(self, call_id: str) -> AsyncGenerator[ProgressEvent]:
        """Yield every event from the first on, then new ones, until the job ends; any number of listeners is allowed.

        Raises:
            RemoteError: The backend is unreachable.

        Cancellation: ends only this listener.
        """
        ...

    async def logs(self, call_id: str, lines: int) -> list[str]:
        """Return the last `lines` lines that the machine of the job wrote to stdout and stderr during the job.

        Raises:
            RemoteError: The log is not available.
        """
        ...

    async def verify(self, functions: Iterable[str]) -> list[Check]:
        """Look up every function again, and check that this version of the package deployed it."""
        ...

    async def close(self) -> None:
        """Release the resources that the backend holds on this machine; jobs that run here are ended."""
        ...


async def verify_by_hydration(
    hydrate: Callable[[str], Coroutine[object, object, None]], functions: Iterable[str]
) -> list[Check]:
    """Return a check of each function that only looks it up, for backends that cannot differ in version."""

    async def check(name: str) -> Check:
        try:
            await hydrate(name)
        except RemoteError as error:
            return Check(name, error)
        return Check(name)

    return list(await asyncio.gather(*map(check, functions)))
