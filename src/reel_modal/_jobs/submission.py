"""Prepare the call of a function: its checks, estimate, wire form and identity. Find its published output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from reel_modal._costs.rates import load_rates
from reel_modal._jobs.estimates import Estimate, estimate_of
from reel_modal._jobs.parallel import Parallel
from reel_modal._jobs.timing_recorder import TimingRecorder
from reel_modal._jobs.worker_rows import price_of
from reel_modal._progress.history import TimingHistory
from reel_modal._support.scratch import scratch_dir
from reel_modal.backends.base import BackendTraits
from reel_modal.errors import ConfigError, MediaError, RequestError, StorageError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.inputs import media_of, probe_object
from reel_modal.functions.receipts import find_published_result
from reel_modal.functions.resources import Resources
from reel_modal.functions.specs import spec_from_env
from reel_modal.progress import ProgressPlan
from reel_modal.schema.requests import Request
from reel_modal.schema.results import Result
from reel_modal.settings import Settings
from reel_modal.storage import Storage
from reel_modal.storage.urls import check_store

__all__ = ["CallAdapter", "PreparedCall", "adapt_declared", "search_for_output"]

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """One call, ready to be submitted.

    Attributes:
        args: Positional arguments, as they are sent.
        kwargs: Keyword arguments, as they are sent.
        job_id: Id of the job, under which it is submitted only once; None if every call is a new job.
        content: Hash of the request without `job_id` and `store.existing`.
        check: Refuses a job that must not be submitted, and returns the estimate of the others, for the number of
            machines that it chooses within the limits that it is given, with the resources that it is given. It runs
            in a thread.
        find_published: Returns the result of the job if its output is already published; None if no store is set.
    """

    args: tuple[object, ...]
    kwargs: Mapping[str, object] = field(default_factory=dict)
    job_id: str | None = None
    content: str = ""
    check: Callable[[Parallel | None, Resources | None], Estimate | None] | None = None
    find_published: Callable[[], object | None] | None = None


@dataclass(frozen=True, slots=True)
class CallAdapter(Generic[P, R]):
    """How the calls of one function are prepared, and their results read and recorded.

    Attributes:
        prepare: Checks the arguments and returns the call; default: the arguments are sent unchanged.
        decode: Converts the returned wire value to the result; default: unchanged.
        receipt: Converts it to the result with durations and usage; default: there is none.
        recorder: Timings of finished jobs; default: none are recorded.
        reports: Whether the function sends events. Otherwise its progress follows the plan.
        plan: Plan of a job without an estimate.
    """

    prepare: Callable[P, PreparedCall] | None = None
    decode: Callable[[object], R] | None = None
    receipt: Callable[[object], Result] | None = None
    recorder: TimingRecorder | None = None
    reports: bool = True
    plan: ProgressPlan | None = None

    def recorder_for(self, resources: Resources | None) -> TimingRecorder | None:
        """Return the recorder of jobs with these resources; None if their timings are not recorded."""
        return None if self.recorder is None else self.recorder.on(resources)


def adapt_declared(
    function: AnyFunction, *, settings: Settings, traits: BackendTraits, history: TimingHistory, records: bool
) -> CallAdapter[[Any], Any]:
    """Return the adapter of a declared function.

    Args:
        function: The function.
        settings: Settings of the registry.
        traits: Facts about its backend.
        history: Timings of finished jobs.
        records: Whether the timings of its jobs are recorded.
    """
    job_settings = traits.settings or settings
    without_effect: set[Resources] = set()

    def prepare(request: object) -> PreparedCall:
        submitted = function.to_request(request)
        if function.check is not None:
            function.check(request, job_settings)

        def check(parallel: Parallel | None, resources: Resources | None) -> Estimate | None:
            if resources is not None:
                _check_resources(function, resources)
                if not traits.applies_resources and resources not in without_effect:
                    without_effect.add(resources)
                    _log.warning("%s has no effect on jobs of %s on this machine", resources, function.name)
            if traits.needs_store:
                check_store(job_settings.store_url, credentials=traits.uses_host_credentials)
            return _estimate(function, submitted, settings, history, parallel, resources=resources)

        return PreparedCall(
            args=(submitted.to_dict(),),
            job_id=submitted.job_id,
            content=submitted.request_hash(),
            check=check,
            find_published=search_for_output(function, submitted, settings),
        )

    def receipt(value: object) -> Result:
        result, url = function.parse_result(value), settings.store_url
        return result if url is None else replace(result, sign_url=partial(_sign_url, url))

    gpu = ",".join(spec_from_env(function.spec).gpu) or "cpu"
    return CallAdapter(
        prepare=prepare,
        decode=lambda value: function.from_result(receipt(value)),
        receipt=receipt,
        recorder=TimingRecorder(history, function, traits.timings_place or gpu) if records else None,
    )


def search_for_output(
    function: AnyFunction, submitted: Request[Any], settings: Settings
) -> Callable[[], object | None] | None:
    """Return a function that returns the published result of a job, if any; None if no store is set.

    Args:
        function: The function.
        submitted: The request, in the form in which it is submitted.
        settings: Settings of the registry.
    """
    url = settings.store_url
    return None if url is None else partial(find_published_result, function, submitted, url)


def _check_resources(function: AnyFunction, resources: Resources) -> None:
    """Check that a function can have these resources.

    Raises:
        ConfigError: It needs no GPU, or the price of the GPU is unknown.
    """
    price_of(resources.applied_to(spec_from_env(function.spec)), load_rates())


def _estimate(
    function: AnyFunction,
    request: Request[Any],
    settings: Settings,
    history: TimingHistory,
    parallel: Parallel | None,
    *,
    resources: Resources | None,
) -> Estimate | None:
    """Probe the inputs of the request in the store, and refuse a job that would be too long or too expensive.

    A job on this machine has no timeout and no price: its estimate is used only for progress.

    Args:
        function: The function.
        request: The request, in the form in which it is submitted.
        settings: Settings of the processes that run the function.
        history: Timings of finished jobs.
        parallel: Limits within which several machines may be used; None uses one.
        resources: Resources in place of the deployed ones.

    Returns:
        The estimate; None if no store is set, or if the input cannot be estimated from here. In the second case, the
        function itself reports the error.

    Raises:
        JobTooLongError: The job needs more than 80 % of its function's timeout, or cannot meet its deadline.
        OverBudgetError: The job costs more than the budget, or than its limits allow.
    """
    if settings.store_url is None:
        return None
    try:
        storage = Storage.from_url(settings.store_url)
        with scratch_dir() as folder:
            media = media_of(
                request, lambda key: probe_object(storage.open(request.stored_input(key), folder), settings)
            )
            expected = estimate_of(
                function,
                function.from_request(request),
                media,
                settings=settings,
                history=history,
                resources=resources,
            )
    except (MediaError, StorageError, RequestError, ConfigError) as error:
        _log.warning("no estimate for job %s, which therefore uses one machine: %s", request.job_id, error)
        return None
    if parallel is not None:
        return expected.parallel(parallel, settings.budget_usd)
    expected.check(settings.budget_usd)
    return expected


def _sign_url(store_url: str, key: str, seconds: float) -> str:
    return Storage.from_url(store_url).signed_url(key, seconds=seconds)
