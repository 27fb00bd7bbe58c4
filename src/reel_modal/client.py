"""What a host calls: the render functions of this package by name, on Modal or on this machine.

It must load neither modal nor OpenCV, and must not know how a job is run.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeVar, overload

from reel_modal.backends.base import Backend
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.modal import ModalBackend
from reel_modal.config import ModelSource, Settings
from reel_modal.errors import ConfigError, RemoteError, RequestError
from reel_modal.estimates import Estimate, check_before_submission, estimate
from reel_modal.experience import Experience
from reel_modal.functions.contract import local_contract
from reel_modal.functions.requests import REQUESTS, Request
from reel_modal.functions.specs import app_name, load_specs
from reel_modal.job import Job, JobOptions
from reel_modal.media import MediaInfo
from reel_modal.progress import ProgressPlan
from reel_modal.progress.clocks import Clock
from reel_modal.progress.timing_history import TimingHistory
from reel_modal.progress.timings import HERE
from reel_modal.records import result_of_job
from reel_modal.remote_function import RemoteFunction, shortened
from reel_modal.schema import FramingRequest, OverlayRequest, RenderResult, UpscaleRequest
from reel_modal.storage import Storage
from reel_modal.storage.urls import check_store
from reel_modal.upscaling.model import check_registered
from reel_modal.verification import Check, verify_deployment

__all__ = ["Check", "FunctionRegistry", "RemoteFunction"]


class FunctionRegistry(Mapping[str, "RemoteFunction[..., RenderResult]"]):
    """The render functions of this package by name; `MODAL_ENABLED` decides where they run.

    Args:
        settings: Default: of the environment.
        backend: Where to run instead, such as `testing.InMemoryBackend`.
        options: Limits of waits.
        history: What finished jobs took, by which the next ones are planned; default the file of the settings,
            for jobs on Modal and on this machine. A backend of another kind learns only where a history is given.
        clock: Where the time of its waits comes from; default: the backend's, a `ManualClock` in tests.

    Attributes:
        settings: The settings.
        backend: Where the functions run.
        history: What finished jobs took.

    Raises:
        ConfigError: The environment's name is not known, or a GPU's variable cannot be read.

    Example:
        >>> registry = FunctionRegistry.from_env()
        >>> job = await registry["render_overlay"].submit(request)
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
        # Those of the process that runs the body, as far as this one knows them.
        self._job_settings = backend.settings if isinstance(backend, LocalBackend) else self.settings
        learns = history is not None or isinstance(backend, (LocalBackend, ModalBackend))
        self.history: TimingHistory = history or TimingHistory(self.settings.timings)
        gpus = {name: ",".join(spec.gpu) or "cpu" for name, spec in load_specs().items()}
        self._functions: dict[str, RemoteFunction[..., RenderResult]] = {
            name: _render_function(
                name,
                request_type,
                backend,
                models=self._job_settings.models,
                options=options or JobOptions(),
                experience=(
                    Experience(self.history, name, gpus[name] if backend.name == "modal" else HERE)
                    if learns
                    else None
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
        """Return the registry that the environment asks for.

        Raises:
            ConfigError: A variable cannot be read; the message names it.
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

    def attach(self, job_id: str, request: Request | None = None) -> Job[RenderResult]:
        """Return the job with this `Job.id`, submitted by this host or one before it; nothing is asked yet.

        Args:
            job_id: As it was kept.
            request: What was submitted. With it, the job's output is looked for as well: an answer that was lost, or
                has expired, is found again.

        Raises:
            ConfigError: It is not the id of a job, or that of one which runs elsewhere than this registry looks.
        """
        if not isinstance(job_id, str):
            raise ConfigError(f"{shortened(job_id)} is not the id of a job; give the text that `Job.id` was")
        backend, _, rest = job_id.partition(":")
        function, _, call_id = rest.partition(":")
        if not call_id or function not in self._functions:
            raise ConfigError(f"{shortened(job_id)} is not the id of a job of this registry")
        if backend != self.backend.name:
            raise ConfigError(
                f"job {shortened(job_id)} runs on {backend!r}, and this registry looks on {self.backend.name!r}:"
                " MODAL_ENABLED has changed since"
            )
        published = None if request is None else self._look_for_output(request)
        return self._functions[function].job(call_id, published=published)

    def estimate(self, request: Request, media: MediaInfo) -> Estimate:
        """Return what the job of `request` is expected to take and to cost, by this registry's history.

        Args:
            request: What would be submitted.
            media: The clip under its `input_key`, by `probe`.

        Raises:
            RequestError: The request does not fit the clip.
            ConfigError: No price of the function's GPU is known.
        """
        return estimate(request, media, settings=self.settings, history=self.history)

    def _check_submission(self, request: Request) -> ProgressPlan | None:
        if isinstance(self.backend, (LocalBackend, ModalBackend)):
            # A container has credentials of its own, a worker those of this process.
            check_store(self._job_settings.store_url, credentials=isinstance(self.backend, LocalBackend))
        expected = check_before_submission(request, self.settings, self.history)
        return None if expected is None else expected.plan

    def _look_for_output(self, request: Request) -> Callable[[], object | None] | None:
        url = self.settings.store_url
        return None if url is None else partial(result_of_job, request, url)

    async def verify(self) -> list[Check]:
        """Look every function up again, and say of each whether it is there and was deployed by this version.

        On this machine there is nothing to differ.

        Cancellation: changes nothing.
        """
        if isinstance(self.backend, ModalBackend):
            try:
                contract = await asyncio.to_thread(local_contract)
                return list((await verify_deployment(self.backend, contract, self._functions)).checks)
            except RemoteError as error:
                return [Check(name, error) for name in self._functions]
        return list(await asyncio.gather(*map(self._check, self._functions)))

    async def close(self) -> None:
        """Take no more submissions, and give back what the backend holds.

        Local jobs are ended, those on Modal go on. Jobs can still be attached to and waited for.
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

    async def _check(self, name: str) -> Check:
        try:
            await self._functions[name].hydrate()
        except RemoteError as error:
            return Check(name, error)
        return Check(name)


Q = TypeVar("Q", bound=Request)


def _render_function(
    name: str,
    request_type: type[Q],
    backend: Backend,
    *,
    models: Mapping[str, ModelSource],
    options: JobOptions,
    experience: Experience | None,
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

    return RemoteFunction(
        name,
        backend,
        encode=encode,
        decode=decode,
        identify=identify,
        options=options,
        experience=experience,
        check=check,
        published=published,
        clock=clock,
    )


def _unknown_function(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1) if isinstance(name, str) else []
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    return f"{shortened(name)} is not a function of this registry; {hint}"


def _sign_url(store_url: str, key: str, seconds: float) -> str:
    return Storage.from_url(store_url).signed_url(key, seconds=seconds)
