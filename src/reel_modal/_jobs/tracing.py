"""What a finished job says about its parts, for the spans of its trace."""

from __future__ import annotations

from reel_modal._support.tracing import Measured
from reel_modal.schema.results import Result

__all__ = ["measured"]


def measured(result: Result, *, workers: int) -> Measured | None:
    """Return what the receipt of a job says about its parts; None if the job has none.

    Args:
        result: Result of the job.
        workers: Number of machines that rendered its segments at the same time.
    """
    usage = result.usage
    if usage is None:
        return None
    attributes: dict[str, str | bool | int | float | None] = {
        "reel_modal.job_id": result.job_id,
        "reel_modal.gpu": usage.gpu,
        "reel_modal.dollars": usage.dollars,
        "reel_modal.bytes_in": usage.bytes_in,
        "reel_modal.bytes_out": usage.bytes_out,
        "reel_modal.cold_start": result.cold_start,
        "reel_modal.reused_from": result.reused_from,
        "reel_modal.workers": workers,
    }
    # The seconds of a job on several machines are sums over all of them. Its phases are those of one.
    phases = result.seconds_by_phase if result.reused_from is None else {}
    return Measured(
        queue_seconds=usage.queue_seconds,
        startup_seconds=usage.startup_seconds if workers == 1 else None,
        function_seconds=usage.seconds if workers == 1 else sum(phases.values()),
        seconds_by_phase=phases,
        attributes={name: value for name, value in attributes.items() if value is not None},
    )
