"""What a job will take and cost, before it is submitted, and whether that is too much.

It must run nothing: headers of the clip, the request, what finished jobs took, and the table of rates are all that it
looks at.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal.config import Settings
from reel_modal.errors import (
    ConfigError,
    InvalidMediaError,
    JobTooLongError,
    MediaError,
    OverBudgetError,
    RequestError,
    StorageError,
)
from reel_modal.functions.framing_plan import FramingPlan
from reel_modal.functions.output_rate import refuses_copying
from reel_modal.functions.pictures import as_rendered
from reel_modal.functions.requests import Request, function_of
from reel_modal.functions.smart import frames_expected
from reel_modal.functions.sources import look_at
from reel_modal.functions.specs import FunctionSpec, load_specs
from reel_modal.media import MediaInfo
from reel_modal.pricing import Rates, load_rates
from reel_modal.progress import ProgressPlan
from reel_modal.progress.timing_history import TimingHistory
from reel_modal.progress.timings import HERE
from reel_modal.rendering.framing import CropTrack, output_size
from reel_modal.rendering.overlay import OverlayRenderer
from reel_modal.schema import FramingRequest, OverlayRequest, UpscaleRequest
from reel_modal.scratch import scratch_folder
from reel_modal.storage import Storage

__all__ = ["Contributor", "Estimate", "check_before_submission", "estimate"]

_log = logging.getLogger(__name__)

_MOST_OF_TIMEOUT: Final = 0.8
"""A job that is expected to need more of its function's time-out is refused: estimates are no promises."""


@dataclass(frozen=True, slots=True)
class Contributor:
    """One part of the time that a job will take.

    Attributes:
        name: Such as `startup` or `render`.
        seconds: Expected.
        why: What makes it so long, in words.
    """

    name: str
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job is expected to take and to cost.

    Attributes:
        function: Its name.
        gpu: Such as `T4`, `cpu` for a container without one, `local` for this machine.
        seconds: From the submission to the end.
        spread: How uncertain that is, as a share of it: two jobs of three lie within `low_seconds` to `high_seconds`.
        work_seconds: Of the function itself, which is what its time-out counts.
        dollars: Expected cost; 0 on this machine.
        timeout_seconds: Of the function; None on this machine, which sets none.
        frames: Of the output.
        frames_rendered: How many of them are made anew; the others are copied out of the source.
        size: (width, height) of the output in pixels.
        fps: Of the output.
        contributors: What the seconds consist of, the longest first.
        source: What all this rests on, in words.
        plan: The same for `Job.progress`.
    """

    function: str
    gpu: str
    seconds: float
    spread: float
    work_seconds: float
    dollars: float
    timeout_seconds: float | None
    frames: int
    frames_rendered: int
    size: tuple[int, int]
    fps: Fraction
    contributors: tuple[Contributor, ...]
    source: str
    plan: ProgressPlan = field(repr=False)

    @property
    def low_seconds(self) -> float:
        """What one job in six stays below."""
        return self.seconds / (1 + self.spread)

    @property
    def high_seconds(self) -> float:
        """What one job in six exceeds."""
        return self.seconds * (1 + self.spread)

    @property
    def headroom_seconds(self) -> float | None:
        """What is left of the time-out once the work is done; None where there is no time-out."""
        return None if self.timeout_seconds is None else self.timeout_seconds - self.work_seconds

    def check(self, budget_usd: float | None = None) -> None:
        """Return when the job may be submitted.

        Args:
            budget_usd: The most that it may cost; None sets no bound.

        Raises:
            JobTooLongError: It needs more than 80 % of its function's time-out; says what would fit.
            OverBudgetError: It costs more than the budget; says what would fit.
        """
        if self.timeout_seconds is not None and self.work_seconds > _MOST_OF_TIMEOUT * self.timeout_seconds:
            allowed = _MOST_OF_TIMEOUT * self.timeout_seconds
            variable = f"REEL_MODAL_{self.function.upper()}_TIMEOUT_SECONDS"
            raise JobTooLongError(
                f"{self.function} would need about {self.work_seconds:.0f} s of its time-out of"
                f" {self.timeout_seconds:.0f} s, and {allowed:.0f} s (80 %) are allowed: {self._longest()}."
                f" {self._what_fits(allowed / self.work_seconds)}, or set"
                f" {variable}={math.ceil(self.work_seconds / _MOST_OF_TIMEOUT)} and deploy again"
            )
        if budget_usd is not None and self.dollars > budget_usd:
            raise OverBudgetError(
                f"{self.function} would cost about ${self.dollars:.4f}, and the budget is ${budget_usd:.4f}"
                f" (REEL_MODAL_BUDGET_USD): {self._longest()}. {self._what_fits(budget_usd / self.dollars)}"
            )

    def to_dict(self) -> dict[str, object]:
        """Return the estimate for JSON."""
        return {
            "function": self.function,
            "gpu": self.gpu,
            "seconds": self.seconds,
            "spread": self.spread,
            "low_seconds": self.low_seconds,
            "high_seconds": self.high_seconds,
            "work_seconds": self.work_seconds,
            "dollars": self.dollars,
            "timeout_seconds": self.timeout_seconds,
            "headroom_seconds": self.headroom_seconds,
            "frames": self.frames,
            "frames_rendered": self.frames_rendered,
            "width": self.size[0],
            "height": self.size[1],
            "contributors": [
                {"name": part.name, "seconds": part.seconds, "why": part.why} for part in self.contributors
            ],
            "source": self.source,
        }

    def to_text(self) -> str:
        """Return the estimate in a few lines for people."""
        between = f"{self.low_seconds:.1f} to {self.high_seconds:.1f}"
        lines = [
            f"{self.function} on {self.gpu}: about {self.seconds:.1f} s ({between}), ${self.dollars:.4f}",
            *(f"  {part.name:8} {part.seconds:8.1f} s  {part.why}".rstrip() for part in self.contributors),
        ]
        if self.timeout_seconds is not None:
            lines.append(f"  of a time-out of {self.timeout_seconds:.0f} s, {self.headroom_seconds:.0f} s are left")
        return "\n".join([*lines, f"  by {self.source}"])

    @property
    def _all_rendered(self) -> bool:
        return self.frames_rendered == self.frames

    def _longest(self) -> str:
        part = next(part for part in self.contributors if part.name != "startup")
        return f"{part.seconds:.0f} s are for {part.name} ({part.why})" if part.why else f"most is for {part.name}"

    def _what_fits(self, share: float) -> str:
        frames = max(1, int(self.frames_rendered * share))
        seconds = f"{float(frames / self.fps):.1f} s of {'output' if self._all_rendered else 'what changes'}"
        return f"About {frames} frames of this size would fit, {seconds}, or all of it with {share:.0%} of the pixels"


def estimate(
    request: Request,
    media: MediaInfo,
    *,
    settings: Settings | None = None,
    history: TimingHistory | None = None,
    specs: Mapping[str, FunctionSpec] | None = None,
    rates: Rates | None = None,
) -> Estimate:
    """Return what the job of `request` is expected to take and to cost.

    Args:
        request: What would be submitted.
        media: The clip under its `input_key`, by `probe`.
        settings: Say where it would run; default: of the environment.
        history: What finished jobs took; default: the file of the settings. Published figures where it has none.
        specs: Resources of the functions; default: `load_specs()`.
        rates: Default: `load_rates()`.

    Raises:
        RequestError: The request does not fit the clip, or no function takes it.
        ConfigError: No price of the GPU is known, or a variable cannot be read.

    Example:
        >>> print(estimate(request, probe("clip.mp4")).to_text())
    """
    settings = settings or Settings.from_env()
    history = history or TimingHistory(settings.timings)
    name = function_of(request)
    media = as_rendered(media, request.encode)
    size, frames, fps = _output(request, media)
    spec = (specs or load_specs())[name]
    gpu = (",".join(spec.gpu) or "cpu") if settings.modal_enabled else HERE
    rendered = _rendered(request, media, settings, on_gpu=settings.modal_enabled and bool(spec.gpu))
    rendered = frames if rendered is None else min(rendered, frames)
    cold = None if settings.modal_enabled else True
    plan = history.plan(name, gpu=gpu, size=size, frames=max(1, rendered), cold=cold)
    startup, work = plan.startup_seconds, plan.processing_seconds
    why = f"{frames if rendered == frames else f'{rendered} of {frames}'} frames of {size[0]} x {size[1]}"
    parts = [Contributor(phase.name, phase.seconds, why if phase.name == "render" else "") for phase in plan.work]
    parts.append(Contributor("startup", startup, ""))
    dollars = 0.0
    if settings.modal_enabled:
        first = next(iter(spec.gpu), None)
        rate = (rates or load_rates()).usd_per_second(gpu=first, cpu=spec.cpu, memory_mb=spec.memory_mb)
        dollars = rate * (startup + work)
    uncertain = math.hypot(*(phase.seconds * phase.spread for phase in plan.phases))
    return Estimate(
        function=name,
        gpu=gpu,
        seconds=startup + work,
        spread=uncertain / (startup + work),
        work_seconds=work,
        dollars=dollars,
        timeout_seconds=spec.timeout_seconds if settings.modal_enabled else None,
        frames=frames,
        frames_rendered=rendered,
        size=size,
        fps=fps,
        contributors=tuple(sorted(parts, key=lambda part: -part.seconds)),
        source=plan.source,
        plan=plan,
    )


def check_before_submission(request: Request, settings: Settings, history: TimingHistory) -> Estimate | None:
    """Look at the request's input where it lies, and refuse a job that would be too long or too dear.

    On this machine there is no time-out and no price: the estimate serves the job's progress alone.

    Returns:
        The estimate; None where there is nothing to check it against, or the input cannot be looked at from here: the
        function itself will say what is wrong with it.

    Raises:
        JobTooLongError: It needs more than 80 % of its function's time-out.
        OverBudgetError: It costs more than the budget.
    """
    if settings.store_url is None:
        return None
    try:
        storage = Storage.from_url(settings.store_url)
        with scratch_folder() as folder:
            media = look_at(storage.open(request.places()[0], folder), settings)
            expected = estimate(request, media, settings=settings, history=history)
    except (MediaError, StorageError, RequestError, ConfigError) as error:
        _log.warning("no estimate of job %s: %s", request.job_id, error)
        return None
    expected.check(settings.budget_usd)
    return expected


def _rendered(request: Request, media: MediaInfo, settings: Settings, *, on_gpu: bool) -> int | None:
    """Return how many frames are rendered and not copied, as far as can be told from here; None is all."""
    if isinstance(request, OverlayRequest):
        if refuses_copying(request, media):
            return None
        changed = OverlayRenderer(request, media.size, media.color).changed_intervals
        return frames_expected(media, changed, Path(request.output_key), request.encode, on_gpu=on_gpu)
    if not isinstance(request, FramingRequest):
        return None
    try:
        plan = FramingPlan.of(request, media, settings)
    except InvalidMediaError:  # it is not here
        return None
    if plan.remakes:
        return None
    return frames_expected(plan.media, (), Path(request.output_key), request.encode, on_gpu=on_gpu, trim=plan.trim)


def _output(request: Request, media: MediaInfo) -> tuple[tuple[int, int], int, Fraction]:
    """Return size, frames and rate of what the request makes of the clip, by its headers."""
    asked = request.output_rate
    fps = asked if isinstance(asked, Fraction) else media.fps
    whole = media.frames_at(fps) or 1
    if isinstance(request, FramingRequest):
        frames = request.timeline(media.duration_seconds or whole / fps).frame_count(fps)
        upright = media.size if request.rotation_degrees % 180 == 0 else media.size[::-1]
        return output_size(request, CropTrack(request, upright), media.sample_aspect_ratio), frames, fps
    if isinstance(request, UpscaleRequest):
        keeps = asked == "source" and not media.constant_rate
        return request.target_size(media.size), (media.expected_pictures or whole) if keeps else whole, fps
    return media.size, whole, fps
