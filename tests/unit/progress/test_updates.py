"""The JSON payload of an update and its terminal line."""

from __future__ import annotations

import math

import pytest

from reel_modal.progress import ProgressUpdate, WorkDone, describe


def update(progress: float = 42.777, **fields: object) -> ProgressUpdate:
    values: dict[str, object] = {
        "message": "Rendering the video...",
        "status": "processing",
        "phase": "render",
        "source": "measured",
        "elapsed_seconds": 9.1234,
        "eta_seconds": 12.06,
        "sequence": 3,
    } | fields
    return ProgressUpdate(progress, **values)  # type: ignore[arg-type]


def test_update_to_dict_has_keys_of_first_apps_and_new_ones() -> None:
    assert update(work=WorkDone(450, 900, 29.97)).to_dict() == {
        "progress": 42,
        "message": "Rendering the video...",
        "status": "processing",
        "progress_exact": 42.77,
        "phase": "render",
        "source": "measured",
        "elapsed_seconds": 9.12,
        "eta_seconds": 12.1,
        "sequence": 3,
        "stalled_seconds": None,
        "done": 450,
        "total": 900,
        "attempt": 1,
    }


def test_update_to_dict_without_work_has_no_counts() -> None:
    payload = update(eta_seconds=None, stalled_seconds=41.6).to_dict()
    assert payload.keys().isdisjoint({"done", "total", "attempt"})
    assert (payload["eta_seconds"], payload["stalled_seconds"]) == (None, 42)


def test_update_almost_complete_shows_99_percent() -> None:
    almost = update(math.nextafter(100, 0))
    assert (almost.percent, almost.to_dict()["progress"], almost.to_dict()["progress_exact"]) == (99, 99, 99.99)


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (update(work=WorkDone(450, 900, 29.97)), " 42 %  Rendering the video...  30.0 fps  12 s left"),
        (update(work=WorkDone(0, 900, None)), " 42 %  Rendering the video...  12 s left"),
        (update(work=WorkDone(1, 2, 3.0), phase="fetch"), " 42 %  Rendering the video...  12 s left"),
        (update(5, source="simulated", eta_seconds=None), "  5 %  Rendering the video...  (estimated)"),
        (update(100, status="complete", message="Done.", eta_seconds=0.0), "100 %  Done."),
    ],
)
def test_describe_update_is_a_terminal_line(shown: ProgressUpdate, line: str) -> None:
    assert describe(shown) == line


def test_update_progress_with_two_decimals_is_unchanged() -> None:
    """A page that reconnects starts at a progress with two decimals, and its next update must not be below it."""
    for hundredths in range(10_001):
        assert update(progress=hundredths / 100).to_dict()["progress_exact"] == hundredths / 100


@pytest.mark.parametrize(("progress", "shown"), [(99.999, 99.99), (63.829, 63.82), (0.001, 0.0), (1 / 3, 0.33)])
def test_update_progress_is_rounded_down(progress: float, shown: float) -> None:
    assert update(progress=progress).to_dict()["progress_exact"] == shown


def test_update_whole_progress_is_sent_as_a_float() -> None:
    assert type(update(progress=5).to_dict()["progress_exact"]) is float
