"""Estimate the time and cost of a job before its submission, and refuse jobs that exceed their limits.

An estimate runs nothing. It uses only the headers of the clip, the request, recorded timings and the rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reel_modal._costs.devices import gpu_names
from reel_modal._costs.rates import Rates, load_rates
from reel_modal._jobs.estimate_report import Contributor, Estimate, contributors_of, spread_of
from reel_modal._jobs.job_model import ModelledJob
from reel_modal._jobs.parallel import MOST_OF_TIMEOUT, fits_timeout
from reel_modal._jobs.worker_rows import SegmentedJob, WorkerRow, place_of, price_of, rows_of
from reel_modal._progress.history import TimingHistory
from reel_modal._progress.timing_model import LOCAL
from reel_modal._segments import segment_grid
from reel_modal.functions.catalog import AnyFunction, all_functions, function_of
from reel_modal.functions.declaration import Work
from reel_modal.functions.inputs import each_clip, media_of_each
from reel_modal.functions.rendered_format import as_rendered
from reel_modal.functions.resources import Resources
from reel_modal.functions.specs import COORDINATOR_SUFFIX, SEGMENTS_SUFFIX, FunctionSpec, spec_from_env
from reel_modal.media import MediaInfo
from reel_modal.progress import ProgressPlan
from reel_modal.schema.requests import VideoRequest
from reel_modal.settings import Settings

__all__ = ["Contributor", "Estimate", "estimate", "estimate_of", "work_of"]


def estimate(
    request: object,
    media: MediaInfo | Sequence[MediaInfo],
    *,
    settings: Settings | None = None,
    history: TimingHistory | None = None,
    functions: Mapping[str, AnyFunction] | None = None,
    rates: Rates | None = None,
    resources: Resources | None = None,
) -> Estimate:
    """Return the expected time and cost of the job of `request`.

    Args:
        request: Request that would be submitted.
        media: Clip stored under its `input_key`, as returned by `probe`; for a request with several clips, all of
            them in the order of `clip_keys`.
        settings: Select the place where the job would run; default: those of the environment.
        history: Timings of finished jobs; default: the file of the settings. Without any, published figures are used.
        functions: The declared functions by name; default those of this package and of installed packages.
        rates: Default: `load_rates()`.
        resources: Resources of the job on Modal in place of the deployed ones; see `JobOptions`.

    Raises:
        RequestError: The request does not fit the clip, no function accepts it, or headers of inputs are missing.
        ConfigError: The price of the GPU is unknown, the function cannot have the resources, or an environment
            variable is not valid.

    Example:
        >>> print(estimate(request, probe("clip.mp4")).to_text())
    """
    settings = settings or Settings.from_env()
    history = history or TimingHistory(settings.timings)
    function = function_of(request, all_functions() if functions is None else functions)
    return estimate_of(function, request, media, settings=settings, history=history, rates=rates, resources=resources)


def estimate_of(
    function: AnyFunction,
    request: object,
    media: MediaInfo | Sequence[MediaInfo],
    *,
    settings: Settings,
    history: TimingHistory,
    rates: Rates | None = None,
    resources: Resources | None = None,
) -> Estimate:
    """Return the same as `estimate` for a known function, which takes `request`."""
    name, spec = function.name, spec_from_env(function.spec)
    if resources is not None and settings.modal_enabled:
        spec = resources.applied_to(spec)
    submitted = function.to_request(request)
    media = media_of_each(submitted, media)
    if isinstance(submitted, VideoRequest):
        encode = submitted.encode
        if isinstance(media, MediaInfo):
            media = as_rendered(media, encode)
        else:
            media = tuple(as_rendered(each, encode) for each in media)
    work = work_of(function, request, media, settings, on_gpu=settings.modal_enabled and bool(spec.gpu))
    planner = _Planner(ModelledJob.of(function, submitted, work, media, settings), settings, history, resources)
    place = spec if settings.modal_enabled else None
    plan = planner.plan(place)
    one, segmented, other_gpu = planner.row(plan, place, rates), None, None
    if place is not None:
        rates = rates or load_rates()
        segmented = planner.segmented(rates)
        if not fits_timeout(one):
            other_gpu = planner.other_gpu(place, rates)
    return Estimate(
        function=name,
        gpu=one.gpu,
        seconds=one.seconds,
        spread=spread_of(plan),
        work_seconds=one.call_seconds,
        dollars=one.dollars,
        timeout_seconds=one.timeout_seconds,
        frames=work.frames,
        frames_rendered=work.rendered,
        size=work.size,
        fps=work.fps,
        contributors=contributors_of(one.phases, planner.job.reasons(place, settings), plan),
        source=plan.source,
        plan=plan,
        rows=rows_of(one, segmented),
        other_gpu=other_gpu,
        fixed_seconds=min(planner.plan(place, frames=1).processing_seconds, one.call_seconds),
        model=planner.job.on(place, settings),
    )


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans of one job on different machines.

    Attributes:
        job: The job.
        settings: Settings of the host.
        history: Timings of finished jobs.
        resources: Resources of the job on Modal in place of the deployed ones.
    """

    job: ModelledJob
    settings: Settings
    history: TimingHistory
    resources: Resources | None

    def plan(
        self, place: FunctionSpec | None, *, frames: int | None = None, cold: bool | None = None, worker: bool = False
    ) -> ProgressPlan:
        """Return the plan on one machine.

        Args:
            place: Resources of its container; None is this machine.
            frames: Number of rendered frames; default those of the job, at least 1.
            cold: Whether a container has to be started; if None, the pause since the last job decides.
            worker: See `ModelledJob.on`.
        """
        function, work = self.job.function, self.job.work
        frames = max(1, work.rendered) if frames is None else frames
        return self.history.plan(
            function.name,
            gpu=LOCAL if place is None else place_of(place),
            size=work.size,
            frames=frames,
            cold=True if place is None else cold,
            published=function.published,
            model=self.job.on(place, self.settings, frames=frames, worker=worker),
        )

    def row(self, plan: ProgressPlan, place: FunctionSpec | None, rates: Rates | None) -> WorkerRow:
        """Return the time and cost of a plan on one machine."""
        phases = {"startup": plan.startup_seconds} | {phase.name: phase.seconds for phase in plan.work}
        if place is None:
            return WorkerRow(1, 0.0, plan.processing_seconds, None, LOCAL, phases, plan.source)
        dollars = self._price_of(place, rates or load_rates()) * sum(phases.values())
        timeout = place.timeout_seconds
        return WorkerRow(1, dollars, plan.processing_seconds, timeout, place_of(place), phases, plan.source)

    def other_gpu(self, place: FunctionSpec, rates: Rates) -> WorkerRow | None:
        """Return the row of the cheapest GPU on which the job is short enough; None if it is on none."""
        here = self.job.on(place, self.settings)
        if here is None or not place.gpu:
            return None
        factor = self.plan(place).processing_seconds / here.render_seconds
        rows = []
        for gpu in gpu_names():
            other = replace(place, gpu=(gpu,))
            row, model = self.row(self.plan(other), other, rates), self.job.on(other, self.settings)
            # If jobs here are slower than their model, those on another GPU are expected to be so, too.
            if gpu not in place.gpu and model is not None and fits_timeout(row):
                in_time = factor * model.render_seconds <= MOST_OF_TIMEOUT * place.timeout_seconds
                rows.extend([row] if in_time else [])
        return min(rows, key=lambda row: row.dollars, default=None)

    def segmented(self, rates: Rates) -> SegmentedJob | None:
        """Return the figures of the job on several machines; None if its output is rendered in one piece."""
        function, work = self.job.function, self.job.work
        if function.segments is None or not work.in_segments or work.frames < 2:
            return None
        specs = function.deployed_specs()
        worker, coordinator = specs[function.name + SEGMENTS_SUFFIX], specs[function.name + COORDINATOR_SUFFIX]
        if self.resources is not None and (own := self.resources.for_calls(gpu=bool(worker.gpu))) is not None:
            worker = own.applied_to(worker)
        return SegmentedJob.of(
            segment_grid(work.frames, work.fps, function.segments.seconds),
            self.plan(worker, frames=work.frames, cold=True, worker=True),
            self.plan(worker, frames=1, cold=True, worker=True),
            worker=worker,
            worker_usd=self._price_of(worker, rates),
            coordinator_usd=price_of(coordinator, rates),
            at_once=self.job.at_once(worker),
        )

    def _price_of(self, place: FunctionSpec, rates: Rates) -> float:
        in_region = self.resources is not None and self.resources.region is not None
        return price_of(place, rates, in_region=in_region)


def work_of(
    function: AnyFunction,
    request: object,
    media: MediaInfo | Sequence[MediaInfo],
    settings: Settings,
    *,
    on_gpu: bool,
) -> Work:
    """Return the amount of work of a job, as far as this host can determine it.

    A function that does not estimate its work is expected to make one frame of each frame of its input, in segments
    if its declaration has a `SegmentSpec`.

    Raises:
        RequestError: The request does not fit the clip.
    """
    if function.estimate is not None:
        return function.estimate(request, media, settings=settings, on_gpu=on_gpu)
    first = each_clip(media)[0]
    frames = first.frames_at(first.fps) or 1
    return Work(first.size, frames, first.fps, in_segments=function.segments is not None)
