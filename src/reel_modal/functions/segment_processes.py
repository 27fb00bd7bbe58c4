"""Render several segments of an output at once on one machine, if it has the cores for several encoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from reel_modal._segments import Segment, SegmentReport, consecutive_runs
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.context import JobContext
from reel_modal.schema import Usage
from reel_modal.schema.options import ENCODER_THREADS
from reel_modal.settings import Settings

__all__ = ["WorkerProcesses", "segments_at_once"]


def segments_at_once(function: AnyFunction, payload: Mapping[str, object], cores: float) -> int:
    """Return the number of segments that a machine renders at once: one for each `encode.threads` cores.

    Args:
        function: The function.
        payload: The request's `to_dict()`.
        cores: Number of cores that are reserved for the job.
    """
    if function.segments is None or function.segments.uses_all_cores:
        return 1
    return max(1, int(cores) // _encoder_threads(payload))


def _encoder_threads(payload: Mapping[str, object]) -> int:
    match payload.get("encode"):
        case {"threads": int(threads)}:
            return threads
    return ENCODER_THREADS


@dataclass(frozen=True, slots=True)
class WorkerProcesses:
    """Worker processes that this one starts to render segments of its output, and that end with it.

    Attributes:
        function: The function.
        payload: The request's `to_dict()`.
        settings: Settings of this process; its cores are shared by the worker processes.
        count: Maximum number of worker processes at the same time, 2 or more.
    """

    function: AnyFunction
    payload: Mapping[str, object]
    settings: Settings
    count: int

    def render(self, grid: Sequence[Segment], context: JobContext, advance: Callable[[int], None]) -> SegmentReport:
        """See `SegmentProcesses.render`; each process gets an equal run of the segments."""
        # They load asyncio, which a job without segments does not need.
        from reel_modal.functions.fan_out import FanOut
        from reel_modal.functions.local_calls import LocalCalls

        runs = consecutive_runs(grid, -(-len(grid) // self.count))
        settings = replace(self.settings, cpu=self.settings.cores / self.count)
        calls = LocalCalls(self.function, self.payload, settings, workers=self.count)
        report = FanOut(calls, str(self.payload["job_id"]), self.count).render_runs(runs, context, advance)
        used = report.usage
        peak_bytes = min(len(runs), self.count) * used.peak_memory_bytes
        # Time and price are those of the machine, which this process counts.
        context.meter.add(Usage(bytes_in=used.bytes_in, bytes_out=used.bytes_out, peak_memory_bytes=peak_bytes))
        return report
