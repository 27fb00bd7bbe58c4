"""How far a bar is from the truth: the first apps' curve, ours by plan, by history, and by measured events."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.harness import OUT
from benchmarks.job_traces import JobTrace, made, published
from benchmarks.recorded_jobs import RecordedJob, recorded
from reel_modal._progress.simulation import SimulatedProgress
from reel_modal.functions.catalog import all_functions
from reel_modal.progress import ProgressBlender, ProgressPlan, TimingHistory, asymptotic, linear_with_cap

TICK_SECONDS = 0.5
PERCENT_SECONDS = 5.0
EVENT_SECONDS = 2.0
MADE_JOBS, LEARNED_JOBS = 200, 60
SEED_CAP, OUR_CAP = 87.0, 98.9
SHOWN = ("overlay, few frames, 31.8 s", "overlay, all frames, 21.5 s", "upscale, slowest, 5.5 s")
COLUMNS = (
    "what is shown",
    "mean error, points",
    "of the first row's",
    "published runs alone",
    "made jobs alone",
    "longest stand-still, s",
    "longest of a whole percent, s",
    "jobs with more than 5 s of it",
    "at the cap, s a job",
    "steps back",
)

SHORT_COLUMNS = (
    "short jobs that ran on this machine",
    "jobs",
    "seconds",
    "mean error, points",
    "the worst job",
    "remaining time within 50 % or 1 s, from the first quarter on",
)

Bar = Callable[[JobTrace], list[float]]
"""What is shown at each tick from the submission to the end, in the resolution that a page gets."""

Contestants = dict[str, tuple[Bar, float]]
"""Each bar, and the value at which it would stand."""


@dataclass(frozen=True)
class Score:
    """How one bar did on one job."""

    error: float
    stand_seconds: float
    percent_seconds: float
    cap_seconds: float
    steps_back: int


def ticks(trace: JobTrace) -> Iterator[float]:
    return (tick * TICK_SECONDS for tick in range(int(trace.seconds / TICK_SECONDS) + 1))


def seed(trace: JobTrace) -> list[float]:
    """5 s to 30 %, 30 s to 87 %, whole percents, whatever the job is."""
    bar = SimulatedProgress(ProgressPlan.default(), linear_with_cap, started_at=0.0)
    return [float(bar.next(now).percent) for now in ticks(trace)]


def same_constants(trace: JobTrace) -> list[float]:
    """The same two constants, with the curve that never stands still."""
    bar = SimulatedProgress(ProgressPlan.default(), asymptotic, started_at=0.0)
    return [payload(bar.next(now).to_dict()) for now in ticks(trace)]


def simulated(history: TimingHistory, *, sized: bool = True) -> Bar:
    """What `track` and the simulator show by the plans of `history`, with or without the size and the frames."""

    def bar(trace: JobTrace) -> list[float]:
        progress = SimulatedProgress(plan_of(trace, history, sized=sized), asymptotic, started_at=0.0)
        return [payload(progress.next(now).to_dict()) for now in ticks(trace)]

    return bar


def plan_of(trace: JobTrace, history: TimingHistory, *, sized: bool = True) -> ProgressPlan:
    size, frames = (trace.size, trace.frames) if sized else (None, None)
    published = all_functions()[trace.function].published
    return history.plan(trace.function, gpu=trace.gpu, size=size, frames=frames, cold=True, published=published)


def measured(history: TimingHistory) -> Bar:
    """What `Job.progress()` shows by the plans of `history`, and an event each two seconds."""

    def bar(trace: JobTrace) -> list[float]:
        blender = ProgressBlender(plan_of(trace, history), started_at=0.0)
        waiting = list(trace.events(EVENT_SECONDS))
        shown = []
        for now in ticks(trace):
            while waiting and waiting[0][0] <= now:
                heard_at, event = waiting.pop(0)
                blender.feed(event, heard_at)
            shown.append(payload(blender.update(now).to_dict()))
        return shown

    return bar


def payload(update: dict[str, object]) -> float:
    exact = update["progress_exact"]
    assert isinstance(exact, float)
    return exact


def score(bar: Bar, trace: JobTrace, cap: float) -> Score:
    shown = bar(trace)
    truth = [100 * now / trace.seconds for now in ticks(trace)]
    return Score(
        error=statistics.fmean(abs(one - other) for one, other in zip(shown, truth, strict=True)),
        stand_seconds=longest_stand(shown),
        percent_seconds=longest_stand([float(int(value)) for value in shown]),
        cap_seconds=TICK_SECONDS * sum(value >= cap for value in shown),
        steps_back=sum(after < before for before, after in pairwise(shown)),
    )


def longest_stand(shown: list[float]) -> float:
    stand = longest = 0.0
    for before, after in pairwise(shown):
        stand = stand + TICK_SECONDS if after <= before else 0.0
        longest = max(longest, stand)
    return longest


@contextmanager
def bars() -> Iterator[Contestants]:
    with tempfile.TemporaryDirectory() as folder:
        nothing = TimingHistory(Path(folder, "none"), env={})
        learned = TimingHistory(Path(folder, "timings"), env={})
        for trace in made(LEARNED_JOBS, seed=1):
            learned.record(trace.timing())
        yield {
            "the first apps' curve": (seed, SEED_CAP),
            "their two constants, our curve": (same_constants, 89.9),
            "ours, simulated by published figures": (simulated(nothing), OUR_CAP),
            "ours, simulated by history": (simulated(learned), OUR_CAP),
            "ours, by history, frames unknown": (simulated(learned, sized=False), OUR_CAP),
            "ours, measured, no history": (measured(nothing), OUR_CAP),
            "ours, measured, with history": (measured(learned), OUR_CAP),
        }


def main() -> list[str]:
    """Run and return the table as Markdown; the plot goes to benchmarks/out."""
    with bars() as contestants:
        plot(contestants, published(), OUT / "progress_accuracy.png")
        return [*table(contestants, published(), made(MADE_JOBS, seed=2)), "", *short_table()]


def short_table() -> list[str]:
    """Each recording, played with a history of its other jobs."""
    lines = [f"| {' | '.join(SHORT_COLUMNS)} |", "|---" * len(SHORT_COLUMNS) + "|"]
    names = {
        "before": "frames count when they enter the pipe",
        "after": "frames count when the encoder delivers them",
    }
    for name, title in names.items():
        jobs = recorded(name)
        played = [shown_of(job, [other for other in jobs if other is not job]) for job in jobs]
        errors = [error for error, _ in played]
        within = [close for _, eta in played for close in eta]
        seconds = f"{min(job.seconds for job in jobs):.0f} to {max(job.seconds for job in jobs):.0f}"
        lines.append(
            f"| {title} | {len(jobs)} | {seconds} | {statistics.fmean(errors):.1f} | {max(errors):.1f}"
            f" | {statistics.fmean(within):.0%} |"
        )
    return lines


def shown_of(job: RecordedJob, others: list[RecordedJob]) -> tuple[float, list[bool]]:
    """Return the mean error of the bar, and for each tick whether the remaining time was about right."""
    with tempfile.TemporaryDirectory() as folder:
        history = TimingHistory(Path(folder, "timings"), env={})
        for other in others:
            history.record(other.timing())
        blender = ProgressBlender(plan_of(job, history), started_at=0.0)
    waiting, errors, close = list(job.received), [], []
    for now in ticks(job):
        while waiting and waiting[0][0] <= now:
            received_at, event = waiting.pop(0)
            blender.feed(event, received_at)
        update = blender.update(now)
        errors.append(abs(update.progress - 100 * now / job.seconds))
        left = job.seconds - now
        if now >= job.seconds / 4:
            close.append(update.eta_seconds is not None and abs(update.eta_seconds - left) <= max(left / 2, 1.0))
    return statistics.fmean(errors), close


def table(contestants: Contestants, real: list[JobTrace], invented: list[JobTrace]) -> list[str]:
    """Means over all jobs; the longest and the sum where it says so."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    first: tuple[float, ...] = ()
    for name, (bar, cap) in contestants.items():
        both = [[score(bar, trace, cap) for trace in traces] for traces in (real, invented)]
        scores = [*both[0], *both[1]]
        errors = tuple(statistics.fmean(one.error for one in some) for some in (scores, *both))
        first = first or errors
        ratios = " | ".join(f"{one / other:.2f}" for one, other in zip(errors, first, strict=True))
        stand = max(one.stand_seconds for one in scores)
        percent = max(one.percent_seconds for one in scores)
        slow = sum(one.percent_seconds > PERCENT_SECONDS for one in scores)
        cap_seconds = statistics.fmean(one.cap_seconds for one in scores)
        back = sum(one.steps_back for one in scores)
        lines.append(
            f"| {name} | {errors[0]:.1f} | {ratios} | {stand:.1f} | {percent:.1f}"
            f" | {slow} | {cap_seconds:.1f} | {back} |"
        )
    return lines


def plot(contestants: Contestants, traces: list[JobTrace], path: Path) -> None:
    """Draw what three published jobs would have shown, against the truth, which is the diagonal."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = ("the first apps' curve", "ours, simulated by history", "ours, measured, with history")
    chosen = [trace for trace in traces if trace.name in SHOWN]
    figure, axes = pyplot.subplots(1, len(chosen), figsize=(12, 4), sharey=True, layout="constrained")
    for axis, trace in zip(axes, chosen, strict=True):
        seconds = list(ticks(trace))
        axis.plot([0, trace.seconds], [0, 100], color="0.75", linewidth=6, label="the truth")
        for name, color in zip(names, ("#c0392b", "#2980b9", "#1e8449"), strict=True):
            axis.plot(seconds, contestants[name][0](trace), color=color, label=name)
        axis.set(title=trace.name, xlabel="seconds since the submission", xlim=(0, trace.seconds), ylim=(0, 100))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("percent shown")
    axes[-1].legend(loc="lower right", fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    print("\n".join(main()))
