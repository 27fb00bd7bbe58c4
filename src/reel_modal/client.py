"""API for hosts: declared functions by name or request, on Modal or on this machine.

This module imports neither modal nor OpenCV.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar, cast, overload

from reel_modal._jobs.chain import Chain, ChainReceipt, ChainStep, chain_seconds, check_chain, discard_output
from reel_modal._jobs.estimates import Contributor, Estimate, estimate
from reel_modal._jobs.job import Job
from reel_modal._jobs.options import JobOptions
from reel_modal._jobs.parallel import Parallel
from reel_modal._jobs.prewarm import Prewarm
from reel_modal._jobs.remote_function import RemoteFunction, map_bounded, shortened
from reel_modal._jobs.submission import adapt_declared, search_for_output
from reel_modal._jobs.worker_rows import WorkerRow
from reel_modal._progress.history import TimingHistory
from reel_modal._support.clock import Clock
from reel_modal._support.threads import run_in_thread
from reel_modal.backends.base import Backend, Check
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import ConfigError
from reel_modal.functions.catalog import AnyFunction, all_functions, function_of
from reel_modal.functions.declaration import RenderFunction
from reel_modal.functions.resources import Resources
from reel_modal.functions.specs import app_name
from reel_modal.media import MediaInfo
from reel_modal.progress import ProgressUpdate
from reel_modal.schema.requests import Request
from reel_modal.schema.results import Result
from reel_modal.settings import Settings

__all__ = [
    "Chain",
    "ChainReceipt",
    "Check",
    "Contributor",
    "Estimate",
    "FunctionRegistry",
    "Job",
    "JobOptions",
    "Parallel",
    "Prewarm",
    "RemoteFunction",
    "Resources",
    "WorkerRow",
    "estimate",
]

Q = TypeVar("Q")
R = TypeVar("R", bound=Result)
T = TypeVar("T")

_CHAIN_ESTIMATE_SECONDS: Final = 10.0


class FunctionRegistry(Mapping[str, "RemoteFunction[..., Result]"]):
    """Mapping of the declared functions by name; `MODAL_ENABLED` selects Modal or this machine.

    It has the functions of this package, those of installed packages with an entry point in the group
    `reel_modal.functions`, and those of the host.

    Args:
        settings: Default: `Settings.from_env()`.
        functions: Functions of the host, from `render_function`.
        backend: Backend to use instead, such as `testing.InMemoryBackend`.
        options: Wait limits, number of machines and resources of the jobs.
        history: Timings of finished jobs, from which the next ones are planned. Default: the file named in the
            settings. Backends other than `ModalBackend` and `LocalBackend` record timings only if it is given.
        clock: Clock of the waits. Default: the backend's; use a `ManualClock` in tests.

    Attributes:
        settings: The settings.
        backend: The backend that runs the functions.
        declared: The declarations of the functions by name.
        history: Timings of finished jobs.

    Raises:
        ConfigError: An environment variable is not valid, for example that of the environment or of a GPU, or two
            functions have the same name.

    Example:
        >>> registry = FunctionRegistry.from_env()
        >>> job = await registry.submit(request)
        >>> result = await job.result()
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        functions: Iterable[AnyFunction] = (),
        backend: Backend | None = None,
        options: JobOptions | None = None,
        history: TimingHistory | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings: Settings = settings or Settings.from_env()
        app = app_name(self.settings)
        if backend is None:
            modal_enabled, on_drift = self.settings.modal_enabled, self.settings.on_drift
            backend = ModalBackend(app, on_drift=on_drift) if modal_enabled else LocalBackend(self.settings)
        self.backend: Backend = backend
        traits = backend.traits
        self._clock = clock or backend.clock
        self._options = options or JobOptions()
        records = history is not None or traits.records_timings
        self.history: TimingHistory = history or TimingHistory(self.settings.timings)
        self.declared: Mapping[str, AnyFunction] = MappingProxyType(all_functions(functions))
        backend.register(self.declared)
        adapt = partial(adapt_declared, settings=self.settings, traits=traits, history=self.history, records=records)
        self._functions: dict[str, RemoteFunction[..., Any]] = {
            name: RemoteFunction.adapted(name, backend, adapt(function), options=self._options, clock=clock)
            for name, function in self.declared.items()
        }

    @classmethod
    def from_env(cls, *, functions: Iterable[AnyFunction] = ()) -> Self:
        """Return the registry that the environment variables define.

        Args:
            functions: Functions of the host, from `render_function`.

        Raises:
            ConfigError: A variable is not valid; the message names it.
        """
        return cls(Settings.from_env(), functions=functions)

    @overload
    def __getitem__(self, key: RenderFunction[Q, T]) -> RemoteFunction[[Q], T]: ...
    @overload
    def __getitem__(self, key: type[Request[R]]) -> RemoteFunction[[Request[R]], R]: ...
    @overload
    def __getitem__(self, key: str) -> RemoteFunction[..., Result]: ...
    def __getitem__(self, key: object) -> RemoteFunction[..., Any]:
        """Return a function by its declaration or by the type of its request, both typed, or by its name."""
        name = key.name if isinstance(key, RenderFunction) else key
        if isinstance(key, type):
            name = next((each.name for each in self.declared.values() if each.request is key), key.__name__)
        function = self._functions.get(name) if isinstance(name, str) else None
        if function is None:
            raise KeyError(_unknown_function(name, list(self._functions)))
        return function

    def __repr__(self) -> str:
        return f"FunctionRegistry({self.backend!r}, functions={list(self._functions)!r})"

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    async def submit(self, request: Request[R], *, parallel: Parallel | None = None) -> Job[R]:
        """Start the job of `request` and return it; the request's type determines the function.

        Args:
            request: The request. One that is no subclass of `Request` is submitted by `registry[function].submit`.
            parallel: Limits within which the job may use several machines; None keeps the registry's options, by
                default one machine.

        Raises:
            RequestError: No function takes a request of this type, or its model is not registered.
            ReelModalError: See `RemoteFunction.submit`.

        Cancellation: as `RemoteFunction.submit`.

        Example:
            >>> job = await registry.submit(request)
        """
        return cast("Job[R]", await self._function_of(request, parallel).submit(request))

    async def run(self, request: Request[R], *, parallel: Parallel | None = None) -> R:
        """Run the job of `request` and return its result; see `submit` and `Job.result` for the errors.

        Args:
            request: The request.
            parallel: See `submit`.

        Cancellation: also cancels the job, unless the options say `detach`.
        """
        return cast("R", await self._function_of(request, parallel)(request))

    async def map(
        self,
        requests: Iterable[Request[R]],
        *,
        concurrency: int = 8,
        ordered: bool = True,
        parallel: Parallel | None = None,
    ) -> AsyncGenerator[R]:
        """Yield the results of many requests, which may be of different types.

        Args:
            requests: Taken when they are needed.
            concurrency: Highest number of jobs that are submitted and not yet yielded, 1 or more.
            ordered: Whether the results have the order of the requests, or that of their completion.
            parallel: See `submit`; the limits of each job.

        Raises:
            ConfigError: `concurrency` is below 1.
            RemoteError: The error of the first job that failed; the others are cancelled.

        Cancellation: cancels the running jobs. So does leaving the loop early, once the generator is closed.

        Example:
            >>> async for result in registry.map(requests, ordered=False):
            ...     print(result.output_key)
        """
        run = partial(self.run, parallel=parallel)
        async with aclosing(map_bounded(run, requests, concurrency=concurrency, ordered=ordered)) as results:
            async for result in results:
                yield result

    async def chain(
        self,
        *requests: *tuple[*tuple[Request[Any], ...], Request[R]],
        keep_intermediates: bool = False,
        on_job: Callable[[Job[Any]], object] | None = None,
        running_job_id: str | None = None,
    ) -> Chain[R]:
        """Start several functions that work on each other's outputs as one job, and return it.

        The input of each step but the first must be the output of an earlier step. These objects are deleted when the
        chain has succeeded or was cancelled. If a step fails or this process ends, they stay until a chain with the
        same requests succeeds, or until `Chain.discard`; that chain continues after the last step whose output is in
        the store.

        Args:
            *requests: The requests in order.
            keep_intermediates: Whether the outputs between the steps stay in the store.
            on_job: Called with the job of each step when it has been submitted, for example to store its id.
            running_job_id: Id of a step's job that was still running when an earlier process ended; it is attached to
                instead of being submitted again.

        Raises:
            RequestError: A request is not valid, or its input is not the output of an earlier step.
            ConfigError: `running_job_id` is not the id of a job of this registry.

        Cancellation: nothing has been started.

        Example:
            >>> chain = await registry.chain(highlight, reel)
            >>> async for update in chain.progress():
            ...     print(describe(update))
            >>> result = await chain.result()
        """
        check_chain(requests)
        functions = [function_of(request, self.declared) for request in requests]
        running = None if running_job_id is None else running_job_id.split(":")[1:2]
        seconds = await self._expected_seconds(functions, requests)
        steps = [
            self._chain_step(
                function,
                request,
                expected,
                intermediate=request is not requests[-1],
                running_job_id=running_job_id if running == [function.name] else None,
            )
            for function, request, expected in zip(functions, requests, seconds, strict=True)
        ]
        return Chain(steps, clock=self._clock, keep_intermediates=keep_intermediates, on_job=on_job)

    def _chain_step(
        self,
        function: AnyFunction,
        request: Request[Any],
        expected_seconds: float,
        *,
        intermediate: bool,
        running_job_id: str | None,
    ) -> ChainStep:
        look = search_for_output(function, function.to_request(request), self.settings)

        async def start() -> Job[Any]:
            if running_job_id is not None:
                job = self.attach(running_job_id, request)
                if await job.status() not in {"failed", "cancelled", "unknown"}:
                    return job
            return await self._functions[function.name].submit(request)

        def discard() -> None:
            discard_output(request, self.settings.store_url)
            self._functions[function.name].forget(request.job_id)

        def find_published() -> Result | None:
            value = None if look is None else look()
            return None if value is None else function.parse_result(value)

        return ChainStep(
            function=function.name,
            request=request,
            start=start,
            find_published=find_published,
            unwrap=function.from_result,
            discard=discard if intermediate else None,
            expected_seconds=expected_seconds,
        )

    async def _expected_seconds(
        self, functions: Sequence[AnyFunction], requests: Sequence[Request[Any]]
    ) -> Sequence[float]:
        estimating = partial(chain_seconds, functions, requests, self.settings, self.history)
        seconds = await run_in_thread(estimating, _CHAIN_ESTIMATE_SECONDS, purpose="the estimate of a chain")
        return seconds or [1.0] * len(requests)

    def run_sync(
        self,
        request: Request[R],
        *,
        on_progress: Callable[[ProgressUpdate], object] | None = None,
        parallel: Parallel | None = None,
    ) -> R:
        """Run the job of `request` from code without an event loop; Ctrl-C cancels the job.

        Args:
            request: The request.
            on_progress: Called with each update of `Job.progress`, in this thread. If it raises, the job is cancelled
                and the exception passes on.
            parallel: See `submit`.

        Raises:
            BlockingCallError: An event loop runs in this thread; await `run` instead.
            ReelModalError: See `RemoteFunction.submit` and `Job.result`.

        Example:
            >>> registry.run_sync(request, on_progress=lambda update: print(describe(update)))
        """
        function = self._function_of(request, parallel)
        if on_progress is None:
            return cast("R", function.call(request))
        return cast("R", function.call_with_progress(on_progress, request))

    @overload
    def attach(self, job_id: str, request: Request[R]) -> Job[R]: ...
    @overload
    def attach(self, job_id: str, request: None = None) -> Job[Result]: ...
    def attach(self, job_id: str, request: Request[Any] | None = None) -> Job[Any]:
        """Return the job with this `Job.id`, from this process or an earlier one, without contacting the backend.

        Args:
            job_id: The `Job.id` that was stored.
            request: The submitted request. If it is given, the job also looks for its published output, so that a
                lost or expired result is found.

        Raises:
            ConfigError: `job_id` is not the id of a job, or belongs to another backend.
        """
        if not isinstance(job_id, str):
            raise ConfigError(f"{shortened(job_id)} is not the id of a job; use the string from `Job.id`")
        backend, _, rest = job_id.partition(":")
        function, _, call_id = rest.partition(":")
        if not call_id or function not in self._functions:
            raise ConfigError(f"{shortened(job_id)} is not the id of a job of this registry")
        if backend != self.backend.name:
            raise ConfigError(
                f"job {shortened(job_id)} runs on {backend!r}, and this registry uses {self.backend.name!r}:"
                " MODAL_ENABLED has changed since the submission"
            )
        published, declared = None, self.declared[function]
        if request is not None:
            published = search_for_output(declared, declared.to_request(request), self.settings)
        return self._functions[function].job(call_id, published=published)

    def estimate(
        self, request: object, media: MediaInfo | Sequence[MediaInfo], *, resources: Resources | None = None
    ) -> Estimate:
        """Return the expected duration and cost of a job, based on this registry's history.

        Args:
            request: The request that would be submitted.
            media: The clip under its `input_key`, from `probe`; of several inputs, all of them in order.
            resources: Resources in place of the deployed ones; default those of the registry's options.

        Raises:
            RequestError: The request does not fit the clip.
            ConfigError: The price of the function's GPU is unknown.
        """
        return estimate(
            request,
            media,
            settings=self.settings,
            history=self.history,
            functions=self.declared,
            resources=resources or self._options.resources,
        )

    def prewarm(
        self, function: RenderFunction[Any, Any] | type[Request[Any]] | str, *, containers: int, for_seconds: float
    ) -> Prewarm:
        """Return a block during which Modal keeps containers of a function running, for jobs without a cold start.

        Use it with `async with`, or with `with` in code without an event loop. At its end, also by an error or a
        cancellation, the containers are released and end after their idle time. A process that is killed releases
        nothing; the next deploy does. The local backend starts a process for each job, so it keeps nothing.

        Args:
            function: The function, as in `registry[function]`.
            containers: Number of containers, from 1 to the function's `max_containers`. Modal bills them.
            for_seconds: Time after which they are released even if the block has not ended; above 0, at most 86,400.

        Raises:
            KeyError: The function is unknown.
            ConfigError: An argument is out of range.
            RemoteError: By the block: the function is not deployed, or Modal is unreachable.

        Cancellation: releases the containers; the block ends within half a second, and the request continues in the
        background.

        Example:
            >>> async with registry.prewarm("render_overlay", containers=2, for_seconds=600):
            ...     results = [result async for result in registry.map(requests)]
        """
        name = self[function].name
        return Prewarm(self.backend, name, containers=containers, for_seconds=for_seconds, clock=self._clock)

    def _function_of(self, request: object, parallel: Parallel | None) -> RemoteFunction[..., Any]:
        return self._functions[function_of(request, self.declared).name].with_options(parallel=parallel)

    async def verify(self) -> list[Check]:
        """Look up every function again; check that it is deployed, and by this version of the package.

        Only a deployment on Modal can differ in version.

        Cancellation: changes nothing.
        """
        return await self.backend.verify(self._functions)

    async def close(self) -> None:
        """Refuse further submissions and release the backend's resources.

        Local jobs are terminated; jobs on Modal continue. Jobs can still be attached to and awaited.
        """
        for function in self._functions.values():
            function.close()
        await self.backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _unknown_function(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1) if isinstance(name, str) else []
    hint = f"did you mean {close[0]!r}?" if close else f"available are {', '.join(known)}"
    return f"{shortened(name)} is not a function of this registry; {hint}"
