"""The estimate of a job: its time, cost and parts, the check of its limits, and its text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from reel_modal._jobs.parallel import MOST_OF_TIMEOUT, Parallel, WorkerChoice, fits_timeout
from reel_modal._jobs.worker_rows import WorkerRow
from reel_modal._progress.plan import WorkPhase
from reel_modal._progress.timing_model import JobModel
from reel_modal.errors import JobTooLongError, OverBudgetError
from reel_modal.functions.specs import LONGEST_TIMEOUT_SECONDS
from reel_modal.progress import ProgressPlan

__all__ = ["Contributor", "Estimate", "contributors_of", "spread_of"]

_SHORTEST_SECONDS: Final = 0.001


@dataclass(frozen=True, slots=True)
class Contributor:
    """One part of the expected time of a job.

    Attributes:
        name: For example, `startup` or `render`.
        seconds: Expected duration.
        why: Main factor of the duration, as text.
        spread: Relative uncertainty of `seconds`: two jobs of three take `low_seconds` to `high_seconds`.
    """

    name: str
    seconds: float
    why: str
    spread: float = 0.0

    @property
    def low_seconds(self) -> float:
        """Lower bound: one job in six takes less."""
        return self.seconds / (1 + self.spread)

    @property
    def high_seconds(self) -> float:
        """Upper bound: one job in six takes more."""
        return self.seconds * (1 + self.spread)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected time and cost of a job.

    Attributes:
        function: Name of the function.
        gpu: GPU of one machine, for example `T4`; `cpu` for a container without a GPU, `local` for this machine.
        seconds: Time from the submission to the end.
        spread: Relative uncertainty of `seconds`: two jobs of three take `low_seconds` to `high_seconds`.
        work_seconds: Time of the function itself, which counts towards its timeout; on several machines, of its
            longest call.
        dollars: Expected cost in US dollars; 0 on this machine.
        timeout_seconds: Timeout of the function, or of a worker's calls; None on this machine, which has no timeout.
        frames: Number of frames of the output.
        frames_rendered: Number of frames that are rendered; the others are copied from the source.
        size: (width, height) of the output in pixels.
        fps: Frame rate of the output.
        contributors: Parts of `seconds`, the longest first.
        source: Basis of the estimate, as text.
        plan: The same estimate as a plan for `Job.progress`.
        workers: Number of machines that render at once; see `parallel`.
        rows: Time and cost on each number of machines, from one to the largest that is useful and that the function
            may use. There is only one if the output is a single segment or is rendered in one piece, or on this
            machine.
        other_gpu: Time and cost on the cheapest other GPU on which the job needs at most 80 % of its timeout; None if
            it does so already, or on no GPU.
        fixed_seconds: Part of `work_seconds` that does not depend on the number of frames.
        model: Expectation of the cost model before finished jobs are considered; None if nothing is known.
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
    workers: int = 1
    rows: tuple[WorkerRow, ...] = field(default=(), repr=False)
    other_gpu: WorkerRow | None = field(default=None, repr=False)
    fixed_seconds: float = 0.0
    model: JobModel | None = field(default=None, repr=False)

    @property
    def low_seconds(self) -> float:
        """Lower bound: one job in six takes less."""
        return self.seconds / (1 + self.spread)

    @property
    def high_seconds(self) -> float:
        """Upper bound: one job in six takes more."""
        return self.seconds * (1 + self.spread)

    def parallel(self, parallel: Parallel, budget_usd: float | None = None) -> Estimate:
        """Return the estimate for the number of machines to use within limits.

        On this machine, up to `max_workers` processes render the output, and no other limit applies: the backend
        starts as many as there are cores for, and the estimate remains that of one.

        Args:
            parallel: The limits.
            budget_usd: Largest allowed cost in US dollars of any job; None sets no limit.

        Raises:
            JobTooLongError: No number of machines meets the deadline, or keeps each call within 80 % of its timeout;
                the message says what would be possible.
            OverBudgetError: Those that do cost too much; the message says what they cost.

        Example:
            >>> fast = estimate(request, probe("clip.mp4")).parallel(Parallel(deadline_seconds=120))
            >>> fast.workers, fast.dollars
        """
        if self.timeout_seconds is None:
            return replace(self, workers=parallel.max_workers or 1)
        row = WorkerChoice(self.function, self.rows, parallel, budget_usd).row()
        return self if row.workers == 1 else self._on(row)

    def _on(self, row: WorkerRow) -> Estimate:
        """Return the estimate for the number of machines of `row`."""
        startup, work = self.plan.phases[-2:]
        why = f"{self.frames} frames of {self.size[0]} x {self.size[1]} on {row.workers} machines"
        plan = ProgressPlan.weighted(
            startup_seconds=row.phases["startup"],
            work=[WorkPhase(name, seconds) for name, seconds in row.phases.items() if name != "startup"],
            startup_spread=startup.spread,
            work_spread=work.spread,
            source=row.source,
        )
        return replace(
            self,
            gpu=row.gpu,
            seconds=row.seconds,
            spread=spread_of(plan),
            work_seconds=row.call_seconds,
            dollars=row.dollars,
            timeout_seconds=row.timeout_seconds,
            contributors=contributors_of(row.phases, {"render": why}, plan),
            source=row.source,
            plan=plan,
            workers=row.workers,
        )

    @property
    def headroom_seconds(self) -> float | None:
        """Seconds of the timeout that remain after the work, 0 if it needs more; None if the job has no timeout."""
        return None if self.timeout_seconds is None else max(0.0, self.timeout_seconds - self.work_seconds)

    def check(self, budget_usd: float | None = None) -> None:
        """Raise an error if the job exceeds a limit.

        Args:
            budget_usd: Largest allowed cost in US dollars; None sets no limit.

        Raises:
            JobTooLongError: The job needs more than 80 % of its function's timeout; the message says how much fits.
            OverBudgetError: The job costs more than the budget; the message says how much fits.
        """
        if self.timeout_seconds is not None and self.work_seconds > MOST_OF_TIMEOUT * self.timeout_seconds:
            allowed = MOST_OF_TIMEOUT * self.timeout_seconds
            raise JobTooLongError(
                f"{self.function} would need about {self.work_seconds:.0f} s of its timeout of"
                f" {self.timeout_seconds:.0f} s, and {allowed:.0f} s (80 %) are allowed: {self._longest()}."
                f" {', or '.join(self._ways(self.timeout_seconds))}"
            )
        if budget_usd is not None and self.dollars > budget_usd:
            fitting = self._fitting_part(self._affordable_seconds(budget_usd))
            raise OverBudgetError(
                f"{self.function} would cost about ${self.dollars:.4f}, and the budget is ${budget_usd:.4f}"
                f" (REEL_MODAL_BUDGET_USD): {self._longest()}. {fitting}"
            )

    def to_dict(self) -> dict[str, object]:
        """Return the estimate as a JSON-ready dict."""
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
            "workers": self.workers,
            "rows": [{"workers": row.workers, "seconds": row.seconds, "dollars": row.dollars} for row in self.rows],
            "width": self.size[0],
            "height": self.size[1],
            "contributors": [
                {
                    "name": part.name,
                    "seconds": part.seconds,
                    "spread": part.spread,
                    "low_seconds": part.low_seconds,
                    "high_seconds": part.high_seconds,
                    "why": part.why,
                }
                for part in self.contributors
            ],
            "source": self.source,
        }

    def to_text(self) -> str:
        """Return the estimate as a few lines of text."""
        time_range = f"{self.low_seconds:.1f} to {self.high_seconds:.1f}"
        lines = [
            f"{self.function} on {self.gpu}: about {self.seconds:.1f} s ({time_range}), ${self.dollars:.4f}",
            *(_line_of(part) for part in self.contributors),
        ]
        if self.timeout_seconds is not None:
            lines.extend(self._timeout_lines(self.timeout_seconds))
        return "\n".join([*lines, f"  based on {self.source}", *self._table()])

    def _timeout_lines(self, timeout_seconds: float) -> list[str]:
        allowed = MOST_OF_TIMEOUT * timeout_seconds
        if self.work_seconds <= allowed:
            return [f"  of a timeout of {timeout_seconds:.0f} s, {self.headroom_seconds:.0f} s are left"]
        too_long = (
            f"  too long for a timeout of {timeout_seconds:.0f} s, of which {allowed:.0f} s (80 %) are allowed:"
        )
        return [too_long, *(f"    {way}" for way in self._ways(timeout_seconds))]

    def _table(self) -> list[str]:
        """Return the lines of the rows: one, two, four, … machines, the largest number and that of this estimate."""
        if len(self.rows) == 1:
            return []
        shown = {self.workers, self.rows[-1].workers, *(2**power for power in range(len(self.rows).bit_length()))}
        lines = ["  machines      time      cost"]
        for row in self.rows:
            if row.workers in shown:
                marks = "  this estimate" if row.workers == self.workers else ""
                marks += "" if fits_timeout(row) else "  above 80 % of a timeout"
                lines.append(f"  {row.workers:8} {row.seconds:7.0f} s  ${row.dollars:.4f}{marks}")
        return lines

    @property
    def _all_rendered(self) -> bool:
        return self.frames_rendered == self.frames

    def _longest(self) -> str:
        part = next(part for part in self.contributors if part.name != "startup")
        return f"{part.seconds:.0f} s are for {part.name} ({part.why})" if part.why else f"most is for {part.name}"

    def _ways(self, timeout_seconds: float) -> list[str]:
        """Return what would fit in the timeout, or would make the job fit."""
        allowed, name = MOST_OF_TIMEOUT * timeout_seconds, self.function.upper()
        ways = [self._fitting_part(allowed)]
        if (other := self.other_gpu) is not None:
            ways.append(
                f"all of it on {other.gpu} in about {other.seconds:.0f} s for ${other.dollars:.2f}"
                f" (resources=Resources(gpu={other.gpu!r}))"
            )
        if (row := next((row for row in self.rows[1:] if fits_timeout(row)), None)) is not None:
            ways.append(
                f"on several machines: parallel=Parallel(max_workers={row.workers}), about {row.seconds:.0f} s for"
                f" ${row.dollars:.2f}"
            )
        needed = math.ceil(self.work_seconds / MOST_OF_TIMEOUT)
        if needed <= LONGEST_TIMEOUT_SECONDS:
            ways.append(
                f"resources=Resources(timeout_seconds={needed}); for all jobs, set"
                f" REEL_MODAL_{name}_TIMEOUT_SECONDS={needed} and deploy again"
            )
        return ways

    def _affordable_seconds(self, budget_usd: float) -> float:
        """Return the seconds of work that a budget pays for on one machine, after the start."""
        return budget_usd / self.dollars * self.seconds - self.plan.startup_seconds

    def _fitting_part(self, work_seconds: float) -> str:
        """Return how much of the clip would take `work_seconds`."""
        share = (work_seconds - self.fixed_seconds) / max(self.work_seconds - self.fixed_seconds, _SHORTEST_SECONDS)
        frames = int(self.frames_rendered * share)
        if frames < 1:
            return "Not one frame of this size would fit"
        seconds = f"{float(frames / self.fps):.1f} s of {'output' if self._all_rendered else 'changed video'}"
        return f"About {frames} frames of this size would fit, {seconds}, or all of it with {share:.0%} of the pixels"


def spread_of(plan: ProgressPlan) -> float:
    """Return the relative uncertainty of the whole time of a plan."""
    std_seconds = math.hypot(*(phase.seconds * phase.spread for phase in plan.phases))
    return std_seconds / (plan.startup_seconds + plan.processing_seconds)


def contributors_of(
    phases: Mapping[str, float], reasons: Mapping[str, str], plan: ProgressPlan
) -> tuple[Contributor, ...]:
    """Return the phases with the spreads of `plan`, the longest first."""
    start, work = plan.phases[-2:]
    parts = [
        Contributor(name, seconds, reasons.get(name, ""), start.spread if name == "startup" else work.spread)
        for name, seconds in phases.items()
    ]
    return tuple(sorted(parts, key=lambda part: -part.seconds))


def _line_of(part: Contributor) -> str:
    time_range = f"({part.low_seconds:.1f} to {part.high_seconds:.1f})" if part.seconds > 0 else ""
    return f"  {part.name:8} {part.seconds:8.1f} s  {time_range:18} {part.why}".rstrip()
