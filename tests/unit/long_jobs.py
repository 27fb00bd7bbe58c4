"""Long jobs on Modal: clips, recorded timings, and rows of the table of machines."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from tests.jobs import overlay

from reel_modal import MediaInfo, Settings
from reel_modal._jobs.estimates import Estimate, estimate
from reel_modal._jobs.worker_rows import WorkerRow
from reel_modal._progress.timing_model import JobTiming
from reel_modal.progress import TimingHistory

MODAL = Settings(modal_enabled=True)
TIMEOUT_SECONDS = 600.0


def with_length(media: MediaInfo, seconds: int) -> MediaInfo:
    return replace(media, size=(320, 180), duration_seconds=Fraction(seconds), frame_count_header=None, scan=None)


def record_jobs(
    history: TimingHistory, gpu: str, *, seconds_per_frame: float, function: str = "render_overlay"
) -> None:
    """Record three jobs, whose fetch, check and publication each take a twentieth of the time."""
    for frames in (100, 200, 300):
        seconds = frames * seconds_per_frame
        phases = {"fetch": 0.05, "render": 0.85, "verify": 0.05, "publish": 0.05}
        timing = JobTiming(
            function=function,
            gpu=gpu,
            size=(320, 180),
            frames=frames,
            startup_seconds=2.0,
            seconds_by_phase={name: share * seconds for name, share in phases.items()},
            cold=True,
        )
        history.record(timing)


def expected_overlay(media: MediaInfo, history: TimingHistory, seconds_per_frame: float = 0.3) -> Estimate:
    for gpu in ("T4", "cpu"):  # one machine has a GPU, and those that render segments have none
        record_jobs(history, gpu, seconds_per_frame=seconds_per_frame)
    return estimate(overlay(), media, settings=MODAL, history=history)


def row(workers: int, seconds: float, dollars: float, call_seconds: float = 1.0) -> WorkerRow:
    phases = {"startup": 0.0, "render": seconds}
    return WorkerRow(workers, dollars, call_seconds, TIMEOUT_SECONDS, "cpu", phases, "a test")
