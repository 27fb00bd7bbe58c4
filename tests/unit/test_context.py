"""Progress reports, cancellation and temporary files of a function body."""

from __future__ import annotations

import tempfile
import threading
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from reel_modal.cli.render import keys_of, run_in_process
from reel_modal.errors import InvalidMediaError, JobCancelledError, ObjectNotFoundError
from reel_modal.functions.builtin import render_overlay
from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.progress import ManualClock, ProgressEvent
from reel_modal.schema import EncodeOptions, HighlightKeyframe, HighlightRegion, OverlayRequest, RenderResult
from reel_modal.storage import PathStorage
from reel_modal.testing import make_clip


class Recorder:
    """A reporter with a manual clock that records its events."""

    def __init__(self, *, interval_seconds: float = 0.5, attempt: int = 1) -> None:
        self.clock = ManualClock(start=1000.0)
        self.events: list[ProgressEvent] = []
        self.reporter = Reporter(
            self.events.append, interval_seconds=interval_seconds, clock=self.clock.monotonic, attempt=attempt
        )

    def reports(self) -> list[tuple[str, int, int | None]]:
        return [(event.phase, event.done, event.total) for event in self.events]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def render(recorder: Recorder, frames: int, seconds_per_frame: float) -> None:
    with recorder.reporter.phase("render", frames) as advance:
        for frame in range(frames):
            recorder.clock.jump(seconds_per_frame)
            advance(frame + 1)


def test_reporter_many_frames_send_one_event_per_interval(recorder: Recorder) -> None:
    render(recorder, frames=10, seconds_per_frame=0.125)
    assert recorder.reports() == [("render", done, 10) for done in (0, 4, 8, 10)]


def test_reporter_slow_function_reports_every_frame(recorder: Recorder) -> None:
    render(recorder, frames=3, seconds_per_frame=2.0)
    assert sorted({event.done for event in recorder.events}) == [0, 1, 2, 3]


def test_reporter_instant_work_sends_first_and_last_event(recorder: Recorder) -> None:
    render(recorder, frames=5000, seconds_per_frame=0.0)
    assert recorder.reports() == [("render", 0, 5000), ("render", 5000, 5000)]


def test_reporter_day_of_work_limits_events_and_gaps(recorder: Recorder) -> None:
    render(recorder, frames=24 * 3600 * 10, seconds_per_frame=0.1)
    assert len(recorder.events) < 4500
    gaps = [after.elapsed_seconds - before.elapsed_seconds for before, after in pairwise(recorder.events)]
    assert max(gaps) < 180  # the default stall limit of a host


def test_pulse_repeats_the_phase_at_the_same_interval(recorder: Recorder) -> None:
    recorder.reporter.pulse()
    assert recorder.reports() == []
    with recorder.reporter.phase("publish"):
        for _ in range(10):
            recorder.clock.jump(0.125)
            recorder.reporter.pulse()
    assert recorder.reports() == [("publish", 0, None)] * 4
    assert [event.elapsed_seconds for event in recorder.events] == [0, 0.5, 1, 1.25]


def test_pulse_from_many_threads_keeps_sequence(recorder: Recorder) -> None:
    # Because the clock stands still, every report is due.
    reporter = Reporter(recorder.events.append, interval_seconds=0, clock=lambda: 0.0)
    with reporter.phase("fetch"):
        threads = [threading.Thread(target=reporter.pulse) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [event.sequence for event in recorder.events] == list(range(1, 53))


def test_phase_always_reports_start_and_end(recorder: Recorder) -> None:
    for name in ("fetch", "verify", "publish"):
        with recorder.reporter.phase(name):
            pass
    assert [phase for phase, _, _ in recorder.reports()] == [
        "fetch",
        "fetch",
        "verify",
        "verify",
        "publish",
        "publish",
    ]


def test_sequence_strictly_increases_through_all_phases(recorder: Recorder) -> None:
    for _ in range(3):
        render(recorder, frames=20, seconds_per_frame=0.25)
    sequence = [event.sequence for event in recorder.events]
    assert sequence == sorted(set(sequence))
    assert sequence[0] >= 1


def test_elapsed_time_counts_from_start_of_body(recorder: Recorder) -> None:
    recorder.clock.jump(3.0)
    render(recorder, frames=2, seconds_per_frame=1.0)
    assert [event.elapsed_seconds for event in recorder.events] == [3.0, 4.0, 5.0, 5.0]


def test_events_name_their_attempt() -> None:
    recorder = Recorder(attempt=3)
    render(recorder, frames=1, seconds_per_frame=0.0)
    assert {event.attempt for event in recorder.events} == {3}


def test_phase_without_total_ends_with_done_count(recorder: Recorder) -> None:
    with recorder.reporter.phase("fetch") as advance:
        advance(17)
    assert recorder.reports() == [("fetch", 0, None), ("fetch", 17, None)]


def test_phase_that_failed_reports_no_completion(recorder: Recorder) -> None:
    def fail() -> None:
        with recorder.reporter.phase("render", 100) as advance:
            advance(40)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert recorder.reports() == [("render", 0, 100)]


def test_seconds_by_phase_are_summed(recorder: Recorder) -> None:
    render(recorder, frames=4, seconds_per_frame=0.5)
    with recorder.reporter.phase("publish"):
        recorder.clock.jump(0.25)
    render(recorder, frames=2, seconds_per_frame=0.5)
    assert recorder.reporter.seconds_by_phase == {"render": 3.0, "publish": 0.25}


def test_context_without_listener_accepts_reports(tmp_path: Path) -> None:
    context = JobContext(PathStorage(), tmp_path)
    with context.reporter.phase("render", 1) as advance:
        advance(1)
    assert list(context.reporter.seconds_by_phase) == ["render"]


def test_cancellation_from_another_thread_raises_with_function(tmp_path: Path) -> None:
    token = CancellationToken()
    context = JobContext(PathStorage(), tmp_path, cancellation=token, function="render_overlay")
    context.raise_if_cancelled()
    thread = threading.Thread(target=token.cancel)
    thread.start()
    thread.join()
    assert token.cancelled
    for _ in range(2):
        with pytest.raises(JobCancelledError) as caught:
            context.raise_if_cancelled()
        assert caught.value.function == "render_overlay"


def test_cancellation_of_one_job_leaves_others_running(tmp_path: Path) -> None:
    first, second = (JobContext(PathStorage(), tmp_path) for _ in range(2))
    first.cancellation.cancel()
    second.raise_if_cancelled()
    assert (first.cancellation.cancelled, second.cancellation.cancelled) == (True, False)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary directories during the test."""
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


def test_finished_job_leaves_only_its_output(tmp_path: Path, scratch: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", size=(64, 48), seconds=0.2)
    result, _ = run_in_process(render_overlay, request(), {request().input_key: clip}, tmp_path / "out.mp4")
    assert isinstance(result, RenderResult)
    assert result.frames == 5
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "scratch"]


@pytest.mark.parametrize("problem", [ObjectNotFoundError, InvalidMediaError])
def test_failed_job_leaves_no_files(tmp_path: Path, scratch: Path, problem: type[Exception]) -> None:
    source = tmp_path / "in.mp4"
    if problem is InvalidMediaError:
        source.write_bytes(bytes(range(256)) * 100)
    with pytest.raises(problem, match=r"in\.mp4"):
        run_in_process(render_overlay, request(), {request().input_key: source}, tmp_path / "out.mp4")
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "out.mp4").exists()
