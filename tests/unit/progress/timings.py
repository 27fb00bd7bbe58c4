"""Timings of jobs."""

from __future__ import annotations

from reel_modal.progress import JobTiming

HD = (1920, 1080)


def timing(seconds: float, frames: int = 900, size: tuple[int, int] = HD, **fields: object) -> JobTiming:
    """Return the timing of an overlay job whose phases take `seconds` in total."""
    values: dict[str, object] = {
        "function": "render_overlay",
        "gpu": "T4",
        "size": size,
        "frames": frames,
        "startup_seconds": 5.0,
        "seconds_by_phase": {"fetch": 0.1 * seconds, "render": 0.8 * seconds, "publish": 0.1 * seconds},
    } | fields
    return JobTiming(**values)  # type: ignore[arg-type]
