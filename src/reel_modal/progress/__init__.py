"""Progress of a job: what a function measures, what a host shows, and the plan that bridges the two.

It must not know where a job runs; a backend brings the events. `timing_history`, which learns plans from finished
jobs, is imported on its own, so that a function's process does not load SQLite.
"""

from __future__ import annotations

from reel_modal.progress.blending import ProgressBlender
from reel_modal.progress.clocks import Clock, ManualClock, SystemClock
from reel_modal.progress.events import ProgressEvent
from reel_modal.progress.listening import ProgressListener, progress_of
from reel_modal.progress.plan import Curve, PlannedPhase, ProgressPlan, WorkPhase, asymptotic, linear_with_cap
from reel_modal.progress.simulator import ProgressSimulator
from reel_modal.progress.tracking import Tracking, track, track_call
from reel_modal.progress.updates import ProgressUpdate, WorkDone, describe

__all__ = [
    "Clock",
    "Curve",
    "ManualClock",
    "PlannedPhase",
    "ProgressBlender",
    "ProgressEvent",
    "ProgressListener",
    "ProgressPlan",
    "ProgressSimulator",
    "ProgressUpdate",
    "SystemClock",
    "Tracking",
    "WorkDone",
    "WorkPhase",
    "asymptotic",
    "describe",
    "linear_with_cap",
    "progress_of",
    "track",
    "track_call",
]
