"""The table of a job: its time and cost on each number of machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import Clips
from tests.jobs import GLOBAL, overlay
from tests.media import splices
from tests.own_video import TintRequest, tint
from tests.unit.long_jobs import MODAL, expected_overlay, record_jobs, row, with_length

from reel_modal import CropKeyframe, FramingRequest, MediaInfo, Parallel, Settings, UpscaleRequest, probe
from reel_modal._jobs.estimates import estimate
from reel_modal._jobs.worker_rows import SegmentedJob, WorkerRow, rows_of
from reel_modal._segments import segment_grid, segment_runs
from reel_modal.functions.builtin import render_overlay
from reel_modal.progress import TimingHistory
from reel_modal.schema import EncodeOptions

DOCUMENTED = Path(__file__).parents[2] / "docs/long-jobs.md"


@pytest.fixture
def history(tmp_path: Path) -> TimingHistory:
    return TimingHistory(tmp_path / "timings.sqlite3")


@pytest.fixture
def media(clips: Clips) -> MediaInfo:
    return with_length(probe(clips.get("25.mp4")), 60)


SECONDS = st.floats(0, 1000)
JOBS = st.builds(
    SegmentedJob,
    grid=st.builds(
        segment_grid,
        st.integers(1, 20_000),
        st.fractions(1, 120, max_denominator=1001),
        st.sampled_from([Fraction(8), Fraction(4)]),
    ),
    start_seconds=SECONDS,
    fetch_seconds=SECONDS,
    fixed_seconds=SECONDS,
    frame_seconds=st.floats(0.001, 10),
    verify_seconds=SECONDS,
    publish_seconds=SECONDS,
    worker=st.builds(replace, st.just(render_overlay.spec), max_containers=st.integers(1, 1000)),
    worker_usd=st.floats(1e-6, 1e-2),
    coordinator_usd=st.just(0.0),
    source=st.just("a test"),
)


@given(st.integers(1, 3000), st.integers(1, 1000))
def test_segment_runs_cover_each_frame_once(segments: int, workers: int) -> None:
    grid = segment_grid(25 * segments, Fraction(25), Fraction(1))
    runs = segment_runs(grid, workers)
    assert [run.frames for run in runs] == sorted((run.frames for run in runs), reverse=True)
    in_order = sorted(runs, key=lambda run: run.first)
    assert (in_order[0].first, in_order[-1].end) == (0, 25 * segments)
    assert [run.end for run in in_order[:-1]] == [run.first for run in in_order[1:]]
    assert len(runs) >= min(3 * workers, segments)


@given(JOBS, st.integers(2, 200))
def test_row_time_is_near_the_even_share(job: SegmentedJob, workers: int) -> None:
    """No schedule is shorter than an even share, and longest-first is at most one call longer."""
    row, calls = job.row(workers), job.calls(workers)
    rendering = row.phases["render"] - job.start_seconds
    even, slack = sum(calls) / workers, 1e-9 * sum(calls)
    assert max(even, calls[0]) - slack <= rendering <= even + calls[0] + slack
    assert row.seconds == pytest.approx(
        2 * job.start_seconds + job.fetch_seconds + rendering + job.verify_seconds + job.publish_seconds
    )
    assert row.call_seconds == calls[0]


@given(JOBS, st.integers(2, 200))
def test_row_another_machine_costs_its_start_and_idle_time(job: SegmentedJob, workers: int) -> None:
    fewer, more = job.row(workers), job.row(workers + 1)
    further_calls = len(job.calls(workers + 1)) - len(job.calls(workers))
    assert further_calls >= 0
    seconds = job.start_seconds + 60 + further_calls * (job.fetch_seconds + job.fixed_seconds)
    assert more.dollars - fewer.dollars == pytest.approx(job.worker_usd * seconds, rel=1e-6, abs=1e-6 * more.dollars)


@given(JOBS)
def test_rows_end_at_containers_and_segments(job: SegmentedJob) -> None:
    one = row(1, 1.0, 1.0)
    rows = rows_of(one, job)
    assert [each.workers for each in rows] == list(
        range(1, max(1, min(job.worker.max_containers, len(job.grid))) + 1)
    )
    assert rows_of(one, None) == (one,)


def test_row_example_has_the_cost_of_every_container() -> None:
    job = SegmentedJob(
        grid=segment_grid(800, Fraction(25)),
        start_seconds=20,
        fetch_seconds=5,
        fixed_seconds=10,
        frame_seconds=0.1,
        verify_seconds=3,
        publish_seconds=4,
        worker=replace(render_overlay.spec, scaledown_window_seconds=2),
        worker_usd=0.01,
        coordinator_usd=0.001,
        source="a test",
    )
    two = job.row(2)  # two of four calls each, of 5 + 10 + 200 * 0.1 s
    assert two.call_seconds == pytest.approx(35)
    assert two.seconds == pytest.approx(20 + 5 + (20 + 2 * 35) + 3 + 4)
    assert two.dollars == pytest.approx(0.01 * (2 * (20 + 2) + 4 * 35) + 0.001 * (122 + 2))


def test_row_of_workers_with_several_segments_at_once() -> None:
    job = SegmentedJob(
        grid=segment_grid(1000, Fraction(25)),
        start_seconds=20,
        fetch_seconds=5,
        fixed_seconds=10,
        frame_seconds=0.1,
        verify_seconds=3,
        publish_seconds=4,
        worker=replace(render_overlay.spec, scaledown_window_seconds=2),
        worker_usd=0.01,
        coordinator_usd=0.001,
        source="a test",
        at_once=2,
    )
    # Runs of two, two and one segment of 200 frames. The last one uses half of the cores, so it takes as long.
    assert job.calls(2) == [pytest.approx(5 + 10 + 400 * 0.1)] * 3
    assert job.row(2).call_seconds == pytest.approx(55)
    assert job.row(2).phases["render"] == pytest.approx(20 + 2 * 55)
    assert len(rows_of(row(1, 1.0, 1.0), job)) == 3


_X264 = EncodeOptions(encoder="libx264")


def test_estimate_of_eight_cores_is_that_of_two_segments_at_once(
    media: MediaInfo, history: TimingHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(clip: MediaInfo, encode: EncodeOptions = _X264) -> Sequence[WorkerRow]:
        request = replace(overlay(), encode=encode)
        return estimate(request, clip, settings=MODAL, history=history).rows

    def render_seconds() -> list[float]:
        each = rows(short)[0], rows(long)[0], rows(long, EncodeOptions())[0]
        return [row.phases["render"] + row.phases["verify"] for row in each]

    short, long = with_length(media, 8), with_length(media, 6400)
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_CPU", "5")  # one encoder with four threads uses no more
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_SEGMENTS_CPU", "5")
    before, calls = render_seconds(), rows(long)[1].call_seconds
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_CPU", "10")
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_SEGMENTS_CPU", "10")
    one_segment, many, automatic = render_seconds()
    assert one_segment == before[0]
    assert many == pytest.approx(before[1] / 2, rel=0.02)
    assert automatic == before[2]  # a GPU encodes all of it, in one piece
    assert calls / 2 < rows(long)[1].call_seconds < 0.6 * calls  # a fetch takes as long as before
    # Recorded jobs have used all cores.
    record_jobs(history, "T4", seconds_per_frame=0.3)
    assert rows(long)[0].call_seconds == pytest.approx(160_000 * 0.3, rel=0.01)


def test_estimate_rows_start_with_one_machine(media: MediaInfo, history: TimingHistory) -> None:
    expected = expected_overlay(media, history)
    one, two = expected.rows[:2]
    assert [row.workers for row in expected.rows] == list(range(1, 9))
    assert (one.seconds, one.dollars) == (pytest.approx(expected.seconds), expected.dollars)
    assert one.call_seconds == expected.work_seconds
    # A start and a fetch, then a start and four of eight calls, each with a fetch and 200 frames, then check and
    # publication. A fetch is a twentieth of the 450 s of one machine.
    assert two.seconds == pytest.approx(2 + 22.5 + (2 + 4 * (22.5 + 200 * 0.3 * 0.85)) + 22.5 + 22.5, rel=0.01)


def test_estimate_loads_the_network_in_each_call(media: MediaInfo, history: TimingHistory) -> None:
    """A container loads a network in 4.3 s, however few frames its call has."""
    request = UpscaleRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4", scale=2)
    rows = estimate(request, media, settings=MODAL, history=history).rows
    assert len(rows) == 15  # segments of four seconds
    assert all(each.call_seconds > 4.3 + each.phases["fetch"] for each in rows)
    assert rows[-1].phases["render"] == pytest.approx(26 + rows[-1].call_seconds)


def test_estimate_of_a_host_function_has_a_row_for_each_segment(media: MediaInfo, history: TimingHistory) -> None:
    record_jobs(history, "cpu", seconds_per_frame=0.3, function="tint")
    request = TintRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4")
    expected = estimate(request, media, settings=MODAL, history=history, functions={"tint": tint})
    assert [row.workers for row in expected.rows] == list(range(1, 9))


def test_estimate_reads_a_long_video_at_an_assumed_speed(media: MediaInfo, history: TimingHistory) -> None:
    def fetch_seconds() -> float:
        clip = with_length(media, 6000)
        expected = estimate(overlay(), clip, settings=MODAL, history=history)
        assert sum(expected.rows[1].phases.values()) == expected.rows[1].seconds
        return expected.rows[1].phases["fetch"]

    # A second, and the bytes of the file at 50 MB/s.
    assert fetch_seconds() == pytest.approx(1 + media.path.stat().st_size / 50e6)
    # Jobs that were recorded without the bytes of their transfers have only shares of the time.
    record_jobs(history, "cpu", seconds_per_frame=0.3)
    assert fetch_seconds() == pytest.approx(150_000 * 0.3 / 20, rel=0.02)


@pytest.mark.parametrize(
    ("seconds", "change"),
    [
        (8, {}),
        (60, {"codec": "vp9"}),
        (60, {"interlaced": True}),
        (60, {"breaks_off": True}),
        (60, {"format": "mpegts"}),
    ],
)
def test_estimate_output_in_one_piece_has_one_row(
    media: MediaInfo, history: TimingHistory, seconds: int, change: dict[str, object]
) -> None:
    expected = expected_overlay(replace(with_length(media, seconds), **change), history)  # type: ignore[arg-type]
    assert len(expected.rows) == 1


def test_estimate_request_in_one_piece_has_one_row(clips: Clips, media: MediaInfo, history: TimingHistory) -> None:
    def rows(request: object, clip: MediaInfo = media) -> int:
        return len(estimate(request, clip, settings=MODAL, history=history).rows)

    request = overlay()
    assert rows(request) == 8
    assert rows(overlay(output="out.mkv")) == 1
    assert rows(replace(request, encode=replace(request.encode, encoder="libx265"))) == 1
    assert rows(replace(request, rate="source"), replace(media, constant_rate=False)) == 1
    copied = replace(request, regions=splices.regions((1.0, 1.2)))
    assert rows(copied, with_length(probe(clips.get("no_b.mp4")), 60)) == 1
    # A GPU would render all frames of this one, but a coordinator has none, and copies.
    mostly = replace(request, regions=splices.regions((0.0, 20.0)), encode=replace(request.encode, encoder="auto"))
    elsewhere = replace(with_length(probe(clips.get("no_b.mp4")), 60), path=Path("elsewhere.mp4"))
    assert rows(mostly, elsewhere) == 1
    keys = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4", "store": GLOBAL}
    crops = [CropKeyframe(time_seconds=Fraction(time), x=time, y=0, width=90, height=160) for time in (0, 50)]
    moving = FramingRequest(**keys, crop=tuple(crops))  # type: ignore[arg-type]
    assert rows(moving, replace(media, path=clips.get("25.mp4"))) > 1
    trimmed = replace(moving, trim_end_seconds=Fraction(50))
    assert rows(trimmed, replace(media, path=clips.get("25.mp4"))) > 1
    assert rows(trimmed, replace(media, path=clips.get("25.mp4"), format="matroska,webm")) == 1
    still = replace(moving, crop=tuple(crops[:1]))
    assert rows(still, replace(media, path=clips.get("25.mp4"))) == 1


def test_estimate_local_job_uses_one_process(media: MediaInfo, history: TimingHistory) -> None:
    record_jobs(history, "local", seconds_per_frame=10)
    expected = estimate(overlay(), media, settings=Settings(), history=history)
    assert len(expected.rows) == 1
    assert expected.parallel(Parallel(deadline_seconds=1, max_usd=0.01)) == expected


def test_documentation_table_equals_the_prediction(
    media: MediaInfo, history: TimingHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_GPU", "none")
    # A clip that is not here: its bytes are those of 8 Mbit/s.
    ten_minutes = replace(with_length(media, 600), size=(1920, 1080), fps=Fraction(30), path=Path("elsewhere.mp4"))
    upscale = UpscaleRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4", scale=2)
    overlays, upscales = (
        {row.workers: row for row in estimate(request, ten_minutes, settings=MODAL, history=history).rows}
        for request in (overlay(preset="fast"), upscale)
    )
    for workers in (1, 4, 16, 64):
        one, other = overlays[workers], upscales[workers]
        figures = f"{one.seconds:,.0f} s, ${one.dollars:.3f} | {other.seconds:,.0f} s, ${other.dollars:.2f}"
        assert f"| {workers} | {figures} |" in DOCUMENTED.read_text(encoding="utf-8")
    assert min(row.workers for row in upscales.values() if row.call_seconds <= 0.8 * 900) == 9
