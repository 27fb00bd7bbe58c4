"""The position of a highlight over time: through its keyframes, within its bounds, for exactly its duration."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.strategies import regions, times

from reel_modal._rendering.region_track import EllipseState, RegionTrack
from reel_modal.schema import HighlightKeyframe, HighlightRegion, Interpolation, OverlayStyle

SIZE = (1920, 1080)


def keyframe(time: float, x: float, **fields: object) -> HighlightKeyframe:
    values = {"y": 10.0, "radius_x": 5.0, "radius_y": 5.0} | fields
    return HighlightKeyframe(time_seconds=Fraction(repr(time)), x=x, **values)  # type: ignore[arg-type]


def track(
    *keyframes: HighlightKeyframe, end: str = "10", style: OverlayStyle | None = None, **fields: object
) -> RegionTrack:
    region = HighlightRegion(
        id="r",
        start_seconds=Fraction(0),
        end_seconds=Fraction(end),
        keyframes=keyframes,
        **fields,  # type: ignore[arg-type]
    )
    return RegionTrack(region, SIZE, style or OverlayStyle())


def at(track: RegionTrack, seconds: float | Fraction) -> EllipseState:
    state = track.at(Fraction(repr(seconds)) if isinstance(seconds, float) else Fraction(seconds))
    assert state is not None
    return state


def test_track_linear_holds_first_and_last_keyframe() -> None:
    moving = track(keyframe(1.0, 100), keyframe(2.0, 200), keyframe(4.0, 300))
    assert [at(moving, t).center_x for t in (0, 1, 1.5, 2, 3, 4, 9)] == [100, 100, 150, 200, 250, 300, 300]


def test_track_spline_is_smooth_at_keyframes() -> None:
    style = OverlayStyle(interpolation="catmull_rom")
    smooth = track(keyframe(0.0, 0), keyframe(1.0, 100), keyframe(2.0, 100), keyframe(3.0, 0), style=style)
    # Uniform Catmull-Rom: halfway is (-p0 + 9 p1 + 9 p2 - p3) / 16, so (-0 + 900 + 900 - 0) / 16.
    assert at(smooth, 1.5).center_x == pytest.approx(112.5)
    before, after = at(smooth, 0.999).center_x, at(smooth, 1.001).center_x
    assert (100 - before) == pytest.approx(after - 100, rel=0.05)


def test_track_includes_start_and_end_only() -> None:
    still = track(keyframe(0.0, 1), end="2.017")
    assert still.at(Fraction("2.017")) is not None
    assert still.at(Fraction("2.0170001")) is None
    assert still.at(Fraction(-1, 1000)) is None


def test_track_keyframe_after_last_frame_keeps_linear_motion() -> None:
    moving = track(keyframe(0.0, 0), keyframe(2.017, 2017), end="2.017")
    steps = [at(moving, Fraction(n, 25)).center_x for n in range(51)]
    assert steps == pytest.approx([40.0 * n for n in range(51)])


def test_track_scales_coordinates_per_axis() -> None:
    state = at(track(keyframe(0.0, 100, y=100.0, radius_x=10.0, radius_y=20.0), video_size=(960, 270)), 0)
    assert (state.center_x, state.center_y, state.radius_x, state.radius_y) == (200, 400, 20, 80)


def test_track_disabled_region_is_never_shown() -> None:
    assert track(keyframe(0.0, 1), enabled=False).at(Fraction(0)) is None


def test_track_fades_in_and_out() -> None:
    fading = track(keyframe(0.0, 1), end="4", style=OverlayStyle(fade_seconds=Fraction(1)))
    assert [at(fading, t).strength for t in (0.25, 1, 2, 3, 3.75)] == [0.25, 1, 1, 1, 0.25]
    assert fading.at(Fraction(0)) is None


def test_track_color_is_that_of_the_previous_keyframe() -> None:
    colored = track(keyframe(0.0, 0, color="#ff0000"), keyframe(1.0, 0, color="#00ff00"))
    assert [at(colored, t).color for t in (0.0, 0.999, 1.0, 5.0)] == ["#ff0000", "#ff0000", "#00ff00", "#00ff00"]


@given(region=regions(), interpolation=st.sampled_from(["linear", "catmull_rom"]))
def test_track_passes_through_its_keyframes(region: HighlightRegion, interpolation: Interpolation) -> None:
    moving = RegionTrack(region, SIZE, OverlayStyle(interpolation=interpolation))
    width, height = region.video_size or SIZE
    for key in region.keyframes:
        state = moving.at(key.time_seconds)
        if state is not None:
            assert state.center_x == key.x * (SIZE[0] / width)
            assert state.center_y == key.y * (SIZE[1] / height)
            assert (state.fill_opacity, state.color) == (key.fill_opacity, key.color)
        else:
            inside = region.start_seconds <= key.time_seconds <= region.end_seconds
            assert not (region.enabled and inside)


@given(region=regions(), seconds=times, interpolation=st.sampled_from(["linear", "catmull_rom"]))
def test_track_any_region_stays_in_bounds(
    region: HighlightRegion, seconds: Fraction, interpolation: Interpolation
) -> None:
    state = RegionTrack(region, SIZE, OverlayStyle(interpolation=interpolation)).at(seconds)
    if state is None:
        return
    assert 0 <= state.fill_opacity <= 1
    assert 0 <= state.stroke_opacity <= 1
    assert 0 < state.strength <= 1
    assert state.radius_x > 0
    assert state.radius_y > 0
    assert math.isfinite(state.center_x + state.center_y)
    if interpolation == "linear":
        scale = SIZE[0] / (region.video_size or SIZE)[0]
        xs = [key.x * scale for key in region.keyframes]
        assert min(xs) - 1e-6 <= state.center_x <= max(xs) + 1e-6
