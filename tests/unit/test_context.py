"""What a function body can tell its caller, how it is stopped, and what it leaves."""

from __future__ import annotations

import tempfile
import threading
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from reel_modal.errors import InvalidMediaError, JobCancelledError, ObjectNotFoundError
from reel_modal.functions import render_overlay
from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.progress import ManualClock, ProgressEvent
from reel_modal.run_here import keys_of, run_here
from reel_modal.schema import EncodeOptions, HighlightKeyframe, HighlightRegion, OverlayRequest
from reel_modal.storage import PathStorage
from reel_modal.testing import make_clip


class Heard:
    """A reporter on a clock that stands still, and what it said."""

    def __init__(self, *, interval_seconds: float = 0.5, attempt: int = 1) -> None:
        self.clock = ManualClock(start=1000.0)
        self.events: list[ProgressEvent] = []
        self.reporter = Reporter(
            self.events.append, interval_seconds=interval_seconds, clock=self.clock.monotonic, attempt=attempt
        )

    def said(self) -> list[tuple[str, int, int | None]]:
        return [(event.phase, event.done, event.total) for event in self.events]


@pytest.fixture
def heard() -> Heard:
    return Heard()


def render(heard: Heard, frames: int, seconds_per_frame: float) -> None:
    with heard.reporter.phase("render", frames) as advance:
        for frame in range(frames):
            heard.clock.jump(seconds_per_frame)
            advance(frame + 1)


def test_many_frames_become_at_most_one_event_each_interval(heard: Heard) -> None:
    render(heard, frames=10, seconds_per_frame=0.125)
    assert heard.said() == [("render", done, 10) for done in (0, 4, 8, 10)]


def test_a_slow_function_reports_every_frame(heard: Heard) -> None:
    render(heard, frames=3, seconds_per_frame=2.0)
    assert sorted({event.done for event in heard.events}) == [0, 1, 2, 3]


def test_thousands_of_frames_in_no_time_are_a_beginning_and_an_end(heard: Heard) -> None:
    render(heard, frames=5000, seconds_per_frame=0.0)
    assert heard.said() == [("render", 0, 5000), ("render", 5000, 5000)]


def test_a_day_of_work_makes_no_more_events_than_a_backend_can_keep_and_none_too_late(heard: Heard) -> None:
    render(heard, frames=24 * 3600 * 10, seconds_per_frame=0.1)
    assert len(heard.events) < 4500
    gaps = [after.elapsed_seconds - before.elapsed_seconds for before, after in pairwise(heard.events)]
    assert max(gaps) < 180  # the stall limit of a host


def test_what_counts_nothing_shows_that_it_lives_and_no_more_often_than_frames(heard: Heard) -> None:
    heard.reporter.pulse()
    assert heard.said() == []
    with heard.reporter.phase("publish"):
        for _ in range(10):
            heard.clock.jump(0.125)
            heard.reporter.pulse()
    assert heard.said() == [("publish", 0, None)] * 4
    assert [event.elapsed_seconds for event in heard.events] == [0, 0.5, 1, 1.25]


def test_threads_that_report_at_once_are_heard_one_after_another(heard: Heard) -> None:
    # While the clock stands, every report is due.
    reporter = Reporter(heard.events.append, interval_seconds=0, clock=lambda: 0.0)
    with reporter.phase("fetch"):
        threads = [threading.Thread(target=reporter.pulse) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [event.sequence for event in heard.events] == list(range(1, 53))


def test_every_phase_begins_and_ends_however_short(heard: Heard) -> None:
    for name in ("fetch", "verify", "publish"):
        with heard.reporter.phase(name):
            pass
    assert [phase for phase, _, _ in heard.said()] == ["fetch", "fetch", "verify", "verify", "publish", "publish"]


def test_the_sequence_goes_strictly_up_through_all_phases(heard: Heard) -> None:
    for _ in range(3):
        render(heard, frames=20, seconds_per_frame=0.25)
    sequence = [event.sequence for event in heard.events]
    assert sequence == sorted(set(sequence))
    assert sequence[0] >= 1


def test_the_time_counts_from_the_start_of_the_body(heard: Heard) -> None:
    heard.clock.jump(3.0)
    render(heard, frames=2, seconds_per_frame=1.0)
    assert [event.elapsed_seconds for event in heard.events] == [3.0, 4.0, 5.0, 5.0]


def test_each_event_names_its_attempt() -> None:
    heard = Heard(attempt=3)
    render(heard, frames=1, seconds_per_frame=0.0)
    assert {event.attempt for event in heard.events} == {3}


def test_a_phase_without_a_known_total_ends_with_what_was_done(heard: Heard) -> None:
    with heard.reporter.phase("fetch") as advance:
        advance(17)
    assert heard.said() == [("fetch", 0, None), ("fetch", 17, None)]


def test_a_phase_that_failed_never_says_that_it_is_complete(heard: Heard) -> None:
    def fail() -> None:
        with heard.reporter.phase("render", 100) as advance:
            advance(40)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert heard.said() == [("render", 0, 100)]


def test_the_seconds_of_a_phase_add_up(heard: Heard) -> None:
    render(heard, frames=4, seconds_per_frame=0.5)
    with heard.reporter.phase("publish"):
        heard.clock.jump(0.25)
    render(heard, frames=2, seconds_per_frame=0.5)
    assert heard.reporter.seconds_by_phase == {"render": 3.0, "publish": 0.25}


def test_a_context_that_nobody_listens_to_takes_reports(tmp_path: Path) -> None:
    context = JobContext(PathStorage(), tmp_path)
    with context.reporter.phase("render", 1) as advance:
        advance(1)
    assert list(context.reporter.seconds_by_phase) == ["render"]


def test_a_token_that_another_thread_raises_stops_the_function_by_name(tmp_path: Path) -> None:
    token = CancellationToken()
    context = JobContext(PathStorage(), tmp_path, cancellation=token)
    context.raise_if_cancelled("render_overlay")
    thread = threading.Thread(target=token.cancel)
    thread.start()
    thread.join()
    assert token.cancelled
    for _ in range(2):
        with pytest.raises(JobCancelledError) as caught:
            context.raise_if_cancelled("render_overlay")
        assert caught.value.function == "render_overlay"


def test_cancelling_one_job_leaves_the_next_alone(tmp_path: Path) -> None:
    first, second = (JobContext(PathStorage(), tmp_path) for _ in range(2))
    first.cancellation.cancel()
    second.raise_if_cancelled("render_overlay")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where working folders are made during the test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def request() -> OverlayRequest:
    key = HighlightKeyframe(time_seconds=Fraction(0), x=0.5, y=0.5, radius_x=0.25, radius_y=0.25)
    region = HighlightRegion(
        id="r", start_seconds=Fraction(0), end_seconds=Fraction(9), keyframes=(key,), video_size=(1, 1)
    )
    return OverlayRequest(
        **keys_of(Path("out.mp4")),
        regions=(region,),
        encode=EncodeOptions(encoder="libx264", preset="ultrafast"),
    )


def test_a_finished_job_leaves_its_output_and_no_working_folder(tmp_path: Path, scratch: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", size=(64, 48), seconds=0.2)
    result, _ = run_here(render_overlay.run, request(), clip, tmp_path / "out.mp4")
    assert result.frames == 5
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "scratch"]


@pytest.mark.parametrize("problem", [ObjectNotFoundError, InvalidMediaError])
def test_a_failed_job_leaves_nothing(tmp_path: Path, scratch: Path, problem: type[Exception]) -> None:
    source = tmp_path / "in.mp4"
    if problem is InvalidMediaError:
        source.write_bytes(bytes(range(256)) * 100)
    with pytest.raises(problem, match=r"in\.mp4"):
        run_here(render_overlay.run, request(), source, tmp_path / "out.mp4")
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "out.mp4").exists()
