"""API for hosts: the render functions of this package by name, on Modal or on this machine.

This module imports neither modal nor OpenCV.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeVar, overload

from reel_modal._jobs.estimates import Contributor, Estimate, check_before_submission, estimate
from reel_modal._jobs.job import Job, JobOptions
from reel_modal._jobs.remote_function import CallAdapter, RemoteFunction, map_bounded, shortened
from reel_modal._jobs.timing_recorder import TimingRecorder
from reel_modal._progress.history import TimingHistory
from reel_modal._support.clock import Clock
from reel_modal._upscaling.model import check_registered
from reel_modal.backends.base import Backend, Check
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import ConfigError, RequestError
from reel_modal.functions.receipts import find_published_result
from reel_modal.functions.requests import REQUESTS, Request, function_of
from reel_modal.functions.specs import app_name, load_specs
from reel_modal.media import MediaInfo
from reel_modal.progress import ProgressPlan, ProgressUpdate
from reel_modal.schema import FramingRequest, OverlayRequest, RenderResult, UpscaleRequest
from reel_modal.settings import ModelSource, Settings
from reel_modal.storage import Storage
from reel_modal.storage.urls import check_store

__all__ = [
    "Check",
    "Contributor",
    "Estimate",
    "FunctionRegistry",
    "Job",
    "JobOptions",
    "RemoteFunction",
    "estimate",
]


class FunctionRegistry(Mapping[str, "RemoteFunction[..., RenderResult]"]):
    """Mapping of the render functions of this package by name; `MODAL_ENABLED` selects Modal or this machine.

    Args:
        settings: Default: `Settings.from_env()`.
        backend: Backend to use instead, such as `testing.InMemoryBackend`.
        options: Wait limits.
        history: Timings of finished jobs, from which the next ones are planned. Default: the file named in the
            settings. Backends other than `ModalBackend` and `LocalBackend` record timings only if it is given.
        clock: Clock of the waits. Default: the backend's; use a `ManualClock` in tests.

    Attributes:
        settings: The settings.
        backend: The backend that runs the functions.
        history: Timings of finished jobs.

    Raises:
        ConfigError: An environment variable is not valid, for example that of the environment or of a GPU.

    Example:
        >>> registry = FunctionRegistry.from_env()
        >>> job = await registry.submit(request)
        >>> result = await job.result()
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
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
        self._traits = traits = backend.traits
        self._job_settings = traits.settings or self.settings
        records = history is not None or traits.records_timings
        self.history: TimingHistory = history or TimingHistory(self.settings.timings)
        gpus = {name: ",".join(spec.gpu) or "cpu" for name, spec in load_specs().items()}
        self._functions: dict[str, RemoteFunction[..., RenderResult]] = {
            name: _render_function(
                name,
                request_type,
                backend,
                models=self._job_settings.models,
                options=options or JobOptions(),
                recorder=(
                    TimingRecorder(self.history, name, traits.timings_place or gpus[name]) if records else None
                ),
                check=self._check_submission,
                published=self._look_for_output,
                clock=clock,
                store_url=self.settings.store_url,
            )
            for name, request_type in REQUESTS.items()
        }

    @classmethod
    def from_env(cls) -> Self:
        """Return the registry that the environment variables define.

        Raises:
            ConfigError: A variable is not valid; the message names it.
        """
        return cls(Settings.from_env())

    @overload
    def __getitem__(self, name: Literal["render_overlay"]) -> RemoteFunction[[OverlayRequest], RenderResult]: ...
    @overload
    def __getitem__(self, name: Literal["process_framing"]) -> RemoteFunction[[FramingRequest], RenderResult]: ...
    @overload
    def __getitem__(self, name: Literal["apply_upscale"]) -> RemoteFunction[[UpscaleRequest], RenderResult]: ...
    @overload
    def __getitem__(self, name: str) -> RemoteFunction[..., RenderResult]: ...
    def __getitem__(self, name: str) -> RemoteFunction[..., RenderResult]:
        function = self._functions.get(name)
        if function is None:
            raise KeyError(_unknown_function(name, list(self._functions)))
        return function

    def __repr__(self) -> str:
        return f"FunctionRegistry({self.backend!r}, functions={list(self._functions)!r})"

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    async def submit(self, request: Request) -> Job[RenderResult]:
        """Start the job of `request` and return it; the request's type determines the function.

        Args:
            request: An `OverlayRequest`, `FramingRequest` or `UpscaleRequest`.

        Raises:
            RequestError: No function takes a request of this type, or its model is not registered.
            ReelModalError: See `RemoteFunction.submit`.

        Cancellation: as `RemoteFunction.submit`.

        Example:
            >>> job = await registry.submit(request)
        """
        return await self._function_of(request).submit(request)

    async def run(self, request: Request) -> RenderResult:
        """Run the job of `request` and return its result; see `submit` and `Job.result` for the errors.

        Cancellation: also cancels the job, unless the options say `detach`.
        """
        return await self._function_of(request)(request)

    async def map(
        self, requests: Iterable[Request], *, concurrency: int = 8, ordered: bool = True
    ) -> AsyncGenerator[RenderResult]:
        """Yield the results of many requests, which may be of different types.

        Args:
            requests: Taken when they are needed.
            concurrency: Highest number of jobs that are submitted and not yet yielded, 1 or more.
            ordered: Whether the results have the order of the requests, or that of their completion.

        Raises:
            ConfigError: `concurrency` is below 1.
            RemoteError: The error of the first job that failed; the others are cancelled.

        Cancellation: cancels the running jobs. So does leaving the loop early, once the generator is closed.

        Example:
            >>> async for result in registry.map(requests, ordered=False):
            ...     print(result.output_key)
        """
        async with aclosing(map_bounded(self.run, requests, concurrency=concurrency, ordered=ordered)) as results:
            async for result in results:
                yield result

    def run_sync(
        self, request: Request, *, on_progress: Callable[[ProgressUpdate], object] | None = None
    ) -> RenderResult:
        """Run the job of `request` from code without an event loop; Ctrl-C cancels the job.

        Args:
            request: The request.
            on_progress: Called with each update of `Job.progress`, in this thread. If it raises, the job is cancelled
                and the exception passes on.

        Raises:
            BlockingCallError: An event loop runs in this thread; await `run` instead.
            ReelModalError: See `RemoteFunction.submit` and `Job.result`.

        Example:
            >>> registry.run_sync(request, on_progress=lambda update: print(describe(update)))
        """
        function = self._function_of(request)
        return function.call(request) if on_progress is None else function.call_with_progress(on_progress, request)

    def attach(self, job_id: str, request: Request | None = None) -> Job[RenderResult]:
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
        published = None if request is None else self._look_for_output(request)
        return self._functions[function].job(call_id, published=published)

    def estimate(self, request: Request, media: MediaInfo) -> Estimate:
        """Return the expected duration and cost of a job, based on this registry's history.

        Args:
            request: The request that would be submitted.
            media: The clip under its `input_key`, from `probe`.

        Raises:
            RequestError: The request does not fit the clip.
            ConfigError: The price of the function's GPU is unknown.
        """
        return estimate(request, media, settings=self.settings, history=self.history)

    def _function_of(self, request: Request) -> RemoteFunction[[Request], RenderResult]:
        return self._functions[function_of(request)]

    def _check_submission(self, request: Request) -> ProgressPlan | None:
        if self._traits.needs_store:
            check_store(self._job_settings.store_url, credentials=self._traits.uses_host_credentials)
        expected = check_before_submission(request, self.settings, self.history)
        return None if expected is None else expected.plan

    def _look_for_output(self, request: Request) -> Callable[[], object | None] | None:
        url = self.settings.store_url
        return None if url is None else partial(find_published_result, request, url)

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


Q = TypeVar("Q", bound=Request)


def _render_function(
    name: str,
    request_type: type[Q],
    backend: Backend,
    *,
    models: Mapping[str, ModelSource],
    options: JobOptions,
    recorder: TimingRecorder | None,
    check: Callable[[Request], ProgressPlan | None],
    published: Callable[[Request], Callable[[], object | None] | None],
    clock: Clock | None,
    store_url: str | None,
) -> RemoteFunction[[Q], RenderResult]:
    def identify(request: Q) -> tuple[str, str]:
        if not isinstance(request, request_type):
            raise RequestError("", f"{name} takes {request_type.__name__}, not {type(request).__name__}")
        if isinstance(request, UpscaleRequest):
            check_registered(request.model, request.model_sha256, models)
        return request.job_id, request.request_hash()

    def decode(value: object) -> RenderResult:
        result = RenderResult.parse(value)  # type: ignore[arg-type]
        return result if store_url is None else replace(result, sign_url=partial(_sign_url, store_url))

    def encode(request: Q) -> tuple[object, ...]:
        return (request.to_dict(),)

    adapter = CallAdapter(encode, decode, identify, check, published, recorder)
    return RemoteFunction.adapted(name, backend, adapter, options=options, clock=clock)


def _unknown_function(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1) if isinstance(name, str) else []
    hint = f"did you mean {close[0]!r}?" if close else f"available are {', '.join(known)}"
    return f"{shortened(name)} is not a function of this registry; {hint}"


def _sign_url(store_url: str, key: str, seconds: float) -> str:
    return Storage.from_url(store_url).signed_url(key, seconds=seconds)
