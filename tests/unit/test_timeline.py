"""The timeline of an edit: exact in both directions, without gaps; retimed highlights stay on their frames."""

from __future__ import annotations

import dataclasses
import time
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.unit.framing_strategies import framing_requests, rates
from tests.unit.strategies import regions, times

from reel_modal._rendering.region_track import RegionTrack, Timeline
from reel_modal.errors import RequestError
from reel_modal.schema import (
    FramingRequest,
    HighlightKeyframe,
    HighlightRegion,
    OverlayRequest,
    OverlayStyle,
    Piece,
    SpeedSegment,
)
from reel_modal.schema.interpolation import Interpolation, KeyframeTrack

F = Fraction
SIZE = (1920, 1080)


def framing(
    *segments: tuple[object, object, object], start: object = 0, end: object = None, **fields: object
) -> FramingRequest:
    return FramingRequest(
        job_id="j",
        user_id="u",
        input_key="i",
        output_key="o.mp4",
        trim_start_seconds=F(str(start)),
        trim_end_seconds=None if end is None else F(str(end)),
        segments=tuple(
            SpeedSegment(start_seconds=F(str(a)), end_seconds=F(str(b)), speed=F(str(v))) for a, b, v in segments
        ),
        **fields,  # type: ignore[arg-type]
    )


def test_timeline_between_segments_has_normal_speed() -> None:
    line = framing((1, 2, "0.5"), (3, 5, 4), start="0.5", end=6).timeline()
    assert line.pieces == (
        Piece(F(1, 2), F(1), F(1), F(0)),
        Piece(F(1), F(2), F(1, 2), F(1, 2)),
        Piece(F(2), F(3), F(1), F(5, 2)),
        Piece(F(3), F(5), F(4), F(7, 2)),
        Piece(F(5), F(6), F(1), F(4)),
    )
    assert (line.duration_seconds, line.untouched) == (5, False)
    moments = (F(1, 2), F(1), F(3, 2), F(4), F(6))
    assert [line.to_output(moment) for moment in moments] == [0, F(1, 2), F(3, 2), F(15, 4), 5]


def test_timeline_adjacent_pieces_of_one_speed_are_merged() -> None:
    assert framing((1, 2, 1), (2, 3, 1)).timeline(F(5)).pieces == (Piece(F(0), F(5), F(1), F(0)),)
    assert len(framing((0, 2, "0.5"), (2, 5, "0.5")).timeline(F(5)).pieces) == 1


@pytest.mark.parametrize(
    ("edit", "untouched"),
    [
        (framing(), True),
        (framing(end=3), True),
        (framing((1, 2, 1)), True),
        (framing((7, 8, 2)), True),
        (framing(start="0.1"), False),
        (framing((1, 2, 2)), False),
    ],
)
def test_timeline_untouched_if_nothing_moves(edit: FramingRequest, untouched: bool) -> None:
    assert edit.timeline(F(5)).untouched is untouched


def test_timeline_with_open_end_has_no_duration() -> None:
    with pytest.raises(RequestError, match="the timeline has an open end"):
        _ = framing().timeline().duration_seconds


def test_timeline_empty_or_overlapping_is_refused() -> None:
    with pytest.raises(RequestError, match="nothing is kept between 2 and 2 s"):
        Timeline.of(F(2), F(2))
    with pytest.raises(RequestError, match=r"a segment begins at 1\.5 s, before the previous one ends"):
        Timeline.of(F(0), F(4), [(F(1), F(2), F(2)), (F(3, 2), F(3), F(1))])


def test_timeline_frame_count_equals_shown_frames() -> None:
    # 100 frames at 25 fps, the middle two seconds at a quarter of their speed.
    line = framing((1, 3, "0.25")).timeline(F(4))
    assert line.frame_count(F(25)) == 250
    firsts = [line.first_frame(F(n, 25), F(25)) for n in range(100)]
    assert (firsts[0], firsts[-1]) == (0, 249)
    assert [b - a for a, b in pairwise(firsts)] == [1] * 25 + [4] * 50 + [1] * 24


def test_timeline_rounded_container_times_lose_no_frame() -> None:
    """Matroska stores milliseconds: 0.033, 0.067, 0.100 for 30 frames per second."""
    line = framing().timeline(F(10))
    firsts = [line.first_frame(F(round(n * 1000 / 30), 1000), F(30)) for n in range(300)]
    assert firsts == list(range(300))


@given(edit=framing_requests(), length=times.filter(bool), moments=st.lists(times, min_size=2, max_size=8))
def test_timeline_is_monotone_and_invertible(edit: FramingRequest, length: Fraction, moments: list[Fraction]) -> None:
    assume(edit.trim_start_seconds < length)
    line = edit.timeline(length)
    outputs = [line.to_output(moment) for moment in sorted(moments)]
    assert all(a < b for (a, b), (s, t) in zip(pairwise(outputs), pairwise(sorted(moments)), strict=True) if s < t)
    for moment in moments:
        assert line.to_source(line.to_output(moment)) == moment
        assert line.to_output(line.to_source(moment)) == moment


@given(edit=framing_requests(), length=times.filter(bool), fps=rates)
def test_timeline_pieces_are_adjacent_and_complete(edit: FramingRequest, length: Fraction, fps: Fraction) -> None:
    assume(edit.trim_start_seconds < length)
    line = edit.timeline(length)
    end = length if edit.trim_end_seconds is None else min(length, edit.trim_end_seconds)
    assert (line.source_start, line.source_end) == (edit.trim_start_seconds, end)
    for before, after in pairwise(line.pieces):
        assert before.source_end == after.source_start
        assert before.output_end == after.output_start
        assert before.speed != after.speed
    assert line.to_output(end) == line.duration_seconds
    assert line.frame_count(fps) == max(1, round(line.duration_seconds * fps))
    # The expected duration: each segment's length over its speed, plus the rest.
    spent = cut = F(0)
    for segment in edit.segments:
        within = min(segment.end_seconds, end) - max(segment.start_seconds, edit.trim_start_seconds)
        if within > 0:
            spent, cut = spent + within / segment.speed, cut + within
    assert line.duration_seconds == spent + (end - edit.trim_start_seconds) - cut


@given(edit=framing_requests(), length=times.filter(bool), fps=rates, moment=times)
def test_timeline_shows_each_picture_within_half_a_frame(
    edit: FramingRequest, length: Fraction, fps: Fraction, moment: Fraction
) -> None:
    assume(edit.trim_start_seconds < length)
    line = edit.timeline(length)
    assert abs(line.first_frame(moment, fps) / fps - line.to_output(moment)) <= F(1, 2) / fps


def request(*highlights: HighlightRegion, interpolation: Interpolation = "linear") -> OverlayRequest:
    return OverlayRequest(
        job_id="j",
        user_id="u",
        input_key="i",
        output_key="o.mp4",
        regions=highlights,
        style=OverlayStyle(interpolation=interpolation),
    )


def moving_region(
    *keyframes: tuple[object, float], start: object = 0, end: object = 10, **fields: object
) -> HighlightRegion:
    return HighlightRegion(
        id="r",
        start_seconds=F(str(start)),
        end_seconds=F(str(end)),
        keyframes=tuple(
            HighlightKeyframe(time_seconds=F(str(time)), x=x, y=5, radius_x=2, radius_y=3) for time, x in keyframes
        ),
        **fields,  # type: ignore[arg-type]
    )


@given(
    edit=framing_requests(),
    region=regions(),
    moments=st.lists(times, min_size=1, max_size=10),
    interpolation=st.sampled_from(["linear", "catmull_rom"]),
)
def test_retimed_highlight_keeps_its_frames_and_positions(
    edit: FramingRequest, region: HighlightRegion, moments: list[Fraction], interpolation: Interpolation
) -> None:
    overlay = request(region, interpolation=interpolation)
    line, moved = edit.timeline(), overlay.retimed(edit)
    end = line.source_end
    before = RegionTrack(region, SIZE, overlay.style)
    after = [RegionTrack(one, SIZE, moved.style) for one in moved.regions]
    scale = max(1, SIZE[0] / (region.video_size or SIZE)[0], SIZE[1] / (region.video_size or SIZE)[1])
    for moment in [*moments, region.start_seconds, region.end_seconds, *(k.time_seconds for k in region.keyframes)]:
        if moment < line.source_start or (end is not None and moment >= end):
            continue
        was = before.at(moment)
        now = after[0].at(line.to_output(moment)) if after else None
        assert (was is None) == (now is None)
        if was is not None and now is not None:
            assert now.color == was.color
            geometry = (was.center_x, was.center_y, was.radius_x, was.radius_y)
            near = pytest.approx(geometry, abs=0.06 * scale, rel=1e-9)
            assert (now.center_x, now.center_y, now.radius_x, now.radius_y) == near
            assert (now.fill_opacity, now.stroke_opacity) == pytest.approx(
                (was.fill_opacity, was.stroke_opacity), abs=0.002
            )


def test_retimed_highlight_has_keyframe_at_speed_change() -> None:
    moved = request(moving_region((0, 0), (4, 400))).retimed(framing((2, 4, "0.5"), end=4))
    (region,) = moved.regions
    assert [(key.time_seconds, key.x) for key in region.keyframes] == [(0, 0), (2, 200), (6, 400)]
    assert (region.start_seconds, region.end_seconds) == (0, 18)


def test_retimed_highlight_is_trimmed_and_shifted() -> None:
    gone = dataclasses.replace(moving_region((0, 1), start=0, end="0.5"), id="gone")
    (region,) = request(moving_region((0, 0), (4, 400), start=1, end=3), gone).retimed(framing(start=2)).regions
    assert (region.start_seconds, region.end_seconds) == (0, 1)
    assert [(key.time_seconds, key.x) for key in region.keyframes] == [(0, 200), (2, 400)]
    # A region that ends at the first kept moment shows for one frame; one that starts at the end never shows.
    assert len(request(moving_region((0, 1), start=0, end=2)).retimed(framing(start=2)).regions) == 1
    assert request(moving_region((0, 1), start=3, end=4)).retimed(framing(end=3)).regions == ()


def test_retimed_spline_is_kept_if_speed_is_constant() -> None:
    overlay = request(moving_region((1, 0), (2, 100), (3, 50)), interpolation="catmull_rom")
    scaled = overlay.retimed(framing((1, 3, 2), start="0.5"))
    assert scaled.style.interpolation == "catmull_rom"
    assert [key.time_seconds for key in scaled.regions[0].keyframes] == [F(1, 2), F(1), F(3, 2)]
    for cut in (framing((0, "1.5", 2)), framing(start=2), framing(start="1.5")):
        lines = overlay.retimed(cut)
        assert lines.style.interpolation == "linear"
        assert len(lines.regions[0].keyframes) > 4


def test_retimed_by_untouched_timeline_is_equal() -> None:
    overlay = request(moving_region((1, 0), (2, 100), (3, 50), label="No. 9", video_size=(10, 10)))
    assert overlay.retimed(framing()) == overlay


def test_polyline_of_spline_is_within_tolerance() -> None:
    track = KeyframeTrack([F(0), F(1), F(2), F(3)], [(0.0,), (100.0,), (100.0,), (0.0,)], "catmull_rom")
    for tolerance in (2.0, 0.1):
        moments = track.to_polyline(track.steps((tolerance,)))
        lines = KeyframeTrack(moments, [track.at(moment) for moment in moments], "linear")
        worst = max(abs(track.at(F(n, 500))[0] - lines.at(F(n, 500))[0]) for n in range(1501))
        assert tolerance / 8 < worst <= tolerance


@given(region=regions())
def test_retimed_any_region_by_no_edit_is_equal(region: HighlightRegion) -> None:
    assert request(region).retimed(framing()).regions == (region,)


def spiral(count: int) -> HighlightRegion:
    """Return a region whose spline jumps across the picture at each keyframe."""
    keyframes = tuple(
        HighlightKeyframe(time_seconds=F(index), x=(-1) ** index * 1e6, y=0, radius_x=1, radius_y=1)
        for index in range(count)
    )
    return HighlightRegion(id="wild", start_seconds=F(0), end_seconds=F(count), keyframes=keyframes)


def test_retimed_wild_spline_is_refused_early() -> None:
    overlay, edit = request(spiral(400), interpolation="catmull_rom"), framing((0.5, 1.5, "0.5"))
    started = time.thread_time()
    with pytest.raises(RequestError, match="regions: need more than 10000 keyframes at another speed"):
        overlay.retimed(edit)
    assert time.thread_time() - started < 0.5
    assert len(request(spiral(20), interpolation="catmull_rom").retimed(edit).regions[0].keyframes) > 5_000


def test_retimed_by_many_odd_speeds_has_valid_times() -> None:
    primes = [n for n in range(101, 2000) if all(n % d for d in range(2, 50))]
    edit = framing(*((index, index + 1, f"{prime}/500") for index, prime in enumerate(primes)))
    keyframe = HighlightKeyframe(time_seconds=F(0), x=0, y=0, radius_x=1, radius_y=1)
    end = dataclasses.replace(keyframe, time_seconds=F(len(primes)))
    region = HighlightRegion(id="a", start_seconds=F(0), end_seconds=F(10_000_000), keyframes=(keyframe, end))
    retimed = request(region).retimed(edit)
    assert OverlayRequest.parse(retimed.to_dict()) == retimed
    exact = edit.timeline().to_output(F(len(primes)))
    assert exact.denominator > 10**300
    assert abs(retimed.regions[0].keyframes[-1].time_seconds - exact) < F(1, 10**150)
    assert retimed.regions[0].end_seconds <= 10_000_000
