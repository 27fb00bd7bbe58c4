"""What ends the trace of a job, and what the receipt says about the parts of the job, for its spans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reel_modal._support.tracing import JobTrace, Measured
from reel_modal.errors import JobNotFoundError, RemoteError, UnavailableError, WaitTimeoutError
from reel_modal.schema.results import Result

__all__ = ["ending_on_error", "measured"]


@contextmanager
def ending_on_error(trace: JobTrace) -> Iterator[None]:
    """End the trace of a job with an error of the block, unless the job goes on after it."""
    try:
        yield
    except RemoteError as error:
        goes_on = isinstance(error, WaitTimeoutError | UnavailableError) and not isinstance(error, JobNotFoundError)
        if not goes_on:
            trace.fail(error)
        raise


def measured(result: Result | None, *, workers: int) -> Measured | None:
    """Return what the receipt of a job says about its parts; None if the job has none.

    Args:
        result: Result of the job; None if it has no receipt.
        workers: Number of machines that rendered its segments at the same time.
    """
    if result is None or (usage := result.usage) is None:
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
