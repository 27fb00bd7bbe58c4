"""The JSON payload of an update and its terminal line."""

from __future__ import annotations

import math

import pytest

from reel_modal.progress import ProgressUpdate, WorkDone, describe, time_left


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
        "time_left": "about 10 s left",
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
        (update(work=WorkDone(450, 900, 29.97)), " 42 %  Rendering the video...  30.0 fps  about 10 s left"),
        (update(work=WorkDone(0, 900, None)), " 42 %  Rendering the video...  about 10 s left"),
        (update(work=WorkDone(1, 2, 3.0), phase="fetch"), " 42 %  Rendering the video...  about 10 s left"),
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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "almost done"),
        (2.9, "almost done"),
        (3.0, "about 3 s left"),
        (9.6, "about 10 s left"),
        (38.0, "about 40 s left"),
        (58.0, "about 1 min left"),
        (97.0, "about 1 min 30 s left"),
        (290.0, "about 5 min left"),
        (1000.0, "about 17 min left"),
        (3590.0, "about 1 h left"),
        (7000.0, "about 1 h 55 min left"),
    ],
)
def test_time_left_is_as_exact_as_an_estimate(seconds: float | None, text: str) -> None:
    assert time_left(update(eta_seconds=seconds)) == text


def test_time_left_is_empty_at_the_end() -> None:
    assert time_left(update(100, status="complete", eta_seconds=0.0)) == ""


def test_update_to_dict_never_shows_zero_seconds_before_the_end() -> None:
    assert update(eta_seconds=0.04).to_dict()["eta_seconds"] == 0.1
