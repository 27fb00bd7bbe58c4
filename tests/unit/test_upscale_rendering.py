"""Upscaling pictures with a network: tiles, borders, sizes, chroma and color, on real pictures."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.networks import model, repeating
from tests.unit.picture import picture

from reel_modal._rendering.tiles import Samples, TilePlan, enlarged
from reel_modal._rendering.upscale import SamplePlanes, UpscaleRenderer
from reel_modal._rendering.yuv import RgbConversion, at_luma, from_luma, resized_chroma
from reel_modal._upscaling.model import UpscaleModel
from reel_modal._upscaling.session import UpscaleSession
from reel_modal.media.frames import CHROMA_ORIGIN, ColorTags
from reel_modal.settings import BUNDLED_MODELS


@cache
def session(name: str, bits: int = 8) -> UpscaleSession:
    return UpscaleSession(UpscaleModel.load(name), provider="cpu", bits=bits, threads=1)


def run_whole(name: str, plane: Samples, bits: int = 8) -> Samples:
    used = session(name, bits)
    manifest = used.model.manifest
    plan = TilePlan.of((plane.shape[1], plane.shape[0]), manifest.halo, 10**9)
    assert len(plan.corners) == 1
    return enlarged([plane[None]], plan, manifest.scale, used.run)[0][0]


sides = st.integers(1, 200)


@given(sides, sides, st.integers(0, 40), st.integers(1, 60_000))
def test_tile_plan_covers_the_picture_within_the_budget(w: int, h: int, halo: int, budget: int) -> None:
    plan = TilePlan.of((w, h), halo, budget)
    across, down = plan.inside
    seen = np.zeros((h, w), int)
    for left, top in plan.corners:
        assert 0 <= left <= w - across
        assert 0 <= top <= h - down
        seen[top : top + down, left : left + across] += 1
    assert seen.min() >= 1
    assert plan.tile_shape == (down + 2 * halo, across + 2 * halo)
    smallest = (min(max(1, halo), w) + 2 * halo) * (min(max(1, halo), h) + 2 * halo)
    assert plan.tile_shape[0] * plan.tile_shape[1] <= max(budget, smallest)


def test_tile_plan_small_picture_is_one_tile() -> None:
    assert TilePlan.of((640, 360), 8, 656 * 376).corners == ((0, 0),)


def test_tile_plan_full_hd_wastes_less_than_15_percent() -> None:
    plan = TilePlan.of((1920, 1080), 10, 512 * 512)
    computed = len(plan.corners) * plan.tile_shape[0] * plan.tile_shape[1]
    assert computed < 1.15 * 1920 * 1080


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_upscale_in_tiles_equals_the_whole(name: str) -> None:
    plane, used = picture()[:120, :200], session(name)
    manifest = used.model.manifest
    plan = TilePlan.of((200, 120), manifest.halo, 4000)
    assert len(plan.corners) > 8
    tiled = enlarged([plane[None]], plan, manifest.scale, used.run, batch=3)[0][0]
    assert np.abs(tiled.astype(int) - run_whole(name, plane)).max() <= 1


def test_upscale_with_too_small_halo_differs_from_the_whole() -> None:
    plane, used = picture()[:120, :200], session("small-x2")
    plan = TilePlan.of((200, 120), 1, 4000)
    tiled = enlarged([plane[None]], plan, 2, used.run)[0][0]
    assert np.abs(tiled.astype(int) - run_whole("small-x2", plane)).max() > 2


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_upscale_borders_are_reflected(name: str) -> None:
    plane, used = picture()[:60, :80], session(name)
    scale, halo = used.model.manifest.scale, used.model.manifest.halo
    wide = np.pad(plane, halo, mode="reflect")
    expected = used.run(wide[None, None])[0, 0][scale * halo : -scale * halo, scale * halo : -scale * halo]
    np.testing.assert_array_equal(run_whole(name, plane), expected)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_upscale_solid_picture_keeps_its_level(name: str, bits: int) -> None:
    steps = {"small-x2": (1, 13)}.get(name, (5, 33))
    for level in range(0, 1 << bits, steps[bits == 10]):
        plane = np.full((9, 12), level, np.uint8 if bits == 8 else np.uint16)
        large = run_whole(name, plane, bits)
        assert large.min() == large.max() == level


@given(st.integers(1, 23), st.integers(1, 23))
def test_upscale_odd_and_tiny_sizes_keep_the_mean(width: int, height: int) -> None:
    plane = picture()[:height, 100 : 100 + width]
    large = run_whole("small-x2", plane)
    assert large.shape == (2 * height, 2 * width)
    # Averaged over each source pixel, the enlargement is close to the source.
    means = large.reshape(height, 2, width, 2).mean((1, 3))
    assert np.abs(means - plane).mean() < 12


def test_upscale_ten_bits_uses_full_precision() -> None:
    deep = picture()[:80, :120].astype(np.uint16) * 4 + 2
    large = run_whole("small-x2", deep, 10)
    shallow = run_whole("small-x2", picture()[:80, :120])
    assert large.dtype == np.uint16
    assert np.abs(large.astype(int) - (shallow.astype(int) * 4 + 2)).max() <= 6
    assert len(np.unique(large % 4)) == 4


def test_upscale_limited_range_offset_makes_no_difference() -> None:
    limited = (16 + picture()[:80, :120].astype(int) // 2).astype(np.uint8)
    shifted = run_whole("small-x2", limited + 90).astype(int) - 90
    assert np.abs(shifted - run_whole("small-x2", limited)).max() <= 1


def ramp(width: int, height: int, origin: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Return a slope at the sample positions of a plane: 1 per luma pixel to the right and 1/2 downwards."""
    x, y = 2 * np.arange(width) + origin[0], 2 * np.arange(height) + origin[1]
    return x[None] + 0.5 * y[:, None] + 80


INSIDE = np.s_[8:-8, 8:-8]


@pytest.mark.parametrize("location", CHROMA_ORIGIN)
@pytest.mark.parametrize("target", [(160, 96), (320, 192), (200, 110)])
def test_resized_chroma_keeps_its_position(location: str, target: tuple[int, int]) -> None:
    origin, size = CHROMA_ORIGIN[location], (80, 48)
    slope = np.rint(4 * ramp(40, 24, origin)).astype(np.uint16)
    large = resized_chroma(slope, origin, size, target)
    # The new samples are left-aligned; in the source picture, they are nearer to the edge by the scale factor.
    x = (2 * np.arange(target[0] // 2) + 0.5) * size[0] / target[0]
    y = (2 * np.arange(target[1] // 2) + 1.0) * size[1] / target[1]
    expected = 4 * (x[None] + 0.5 * y[:, None] + 80)
    # Rounding is off by an eighth of a luma pixel, the filter by a sixteenth, a wrong origin by half.
    assert np.abs(large - expected)[INSIDE].max() <= 0.75
    assert abs((large - expected)[INSIDE].mean()) <= 0.05


@pytest.mark.parametrize("location", CHROMA_ORIGIN)
def test_chroma_to_luma_positions_and_back_is_equal(location: str) -> None:
    origin = CHROMA_ORIGIN[location]
    dense = at_luma(ramp(40, 24, origin).astype(np.float32), origin, (80, 48))
    expected = (np.arange(80) + 0.5)[None] + 0.5 * (np.arange(48) + 0.5)[:, None] + 80
    assert np.abs(dense - expected)[INSIDE].max() < 0.07
    assert np.abs(from_luma(dense) - ramp(40, 24, CHROMA_ORIGIN["left"]))[4:-4, 4:-4].max() < 0.01


TAGS = {
    "601 limited": ColorTags(matrix="smpte170m", range="tv"),
    "709 limited": ColorTags(matrix="bt709", range="tv"),
    "709 full": ColorTags(matrix="bt709", range="pc"),
    "2020 limited": ColorTags(matrix="bt2020nc", range="tv"),
    "not said": ColorTags(),
}


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("tags", TAGS)
def test_rgb_conversion_round_trip_is_within_one_level(tags: str, bits: int) -> None:
    convert = RgbConversion(TAGS[tags], 480, bits, CHROMA_ORIGIN["left"])
    unit, kind = 1 << (bits - 8), np.uint8 if bits == 8 else np.uint16
    for y, u, v in ((126, 128, 128), (81, 95, 170), (145, 80, 100), (60, 150, 120), (200, 120, 140)):
        planes = [np.full(shape, unit * level, kind) for shape, level in (((6, 8), y), ((3, 4), u), ((3, 4), v))]
        round_trip = convert.from_rgb(convert.to_rgb(*planes))
        for plane, converted in zip(planes, round_trip, strict=True):
            assert converted.shape == plane.shape
            assert np.abs(converted.astype(int) - plane).max() <= 1


def test_rgb_conversion_of_red_equals_the_standards() -> None:
    """Red of 75 %: ITU-R BT.471's color bars, with the values of SMPTE EG 1 and RP 219."""
    for tags, (y, u, v) in ((TAGS["601 limited"], (65, 100, 212)), (TAGS["709 limited"], (51, 109, 212))):
        red = np.zeros((3, 4, 4), np.uint8)
        red[0] = 191
        planes = RgbConversion(tags, 480, 8, CHROMA_ORIGIN["left"]).from_rgb(red)
        assert [int(plane[0, 0]) for plane in planes] == [y, u, v]


def renderer(
    used: UpscaleSession, size: tuple[int, int], target: tuple[int, int], color: ColorTags, bits: int = 8
) -> UpscaleRenderer:
    manifest = used.model.manifest
    return UpscaleRenderer(
        used.run, kind=manifest.kind, scale=manifest.scale, halo=manifest.halo, size=size, target=target, color=color,
        bits=bits, budget_pixels=20_000,
    )  # fmt: skip


def planes(width: int, height: int, levels: tuple[int, int, int], bits: int = 8) -> SamplePlanes:
    kind, chroma = np.uint8 if bits == 8 else np.uint16, ((height + 1) // 2, (width + 1) // 2)
    y, u, v = (
        np.full(shape, level, kind) for shape, level in zip(((height, width), chroma, chroma), levels, strict=True)
    )
    return y, u, v


@pytest.mark.parametrize("tags", TAGS)
@pytest.mark.parametrize("kind", ["luma", "rgb"])
def test_upscale_solid_frame_keeps_its_color(kind: str, tags: str) -> None:
    used = UpscaleSession(model(repeating(1 if kind == "luma" else 3)), provider="cpu", threads=1)
    used_renderer = renderer(used, (21, 13), (42, 26), TAGS[tags])
    frame = planes(21, 13, (145, 80, 100))
    (detail,) = used_renderer.detail([frame])
    large = used_renderer.finished(detail, frame)
    assert [plane.shape for plane in large] == [(26, 42), (13, 21), (13, 21)]
    for plane, level in zip(large, (145, 80, 100), strict=True):
        assert np.abs(plane.astype(int) - level).max() <= (0 if kind == "luma" else 1)


@pytest.mark.parametrize("target", [(160, 90), (200, 100), (258, 146), (320, 180)])
def test_upscale_reaches_any_target_size(target: tuple[int, int]) -> None:
    used_renderer = renderer(session("small-x2"), (100, 60), target, ColorTags())
    frame = planes(100, 60, (77, 90, 170))
    (detail,) = used_renderer.detail([frame])
    large = used_renderer.finished(detail, frame)
    chroma = ((target[1] + 1) // 2, (target[0] + 1) // 2)
    assert [plane.shape for plane in large] == [(target[1], target[0]), chroma, chroma]
    assert [(plane.min(), plane.max()) for plane in large] == [(77, 77), (90, 90), (170, 170)]


def test_upscale_repeating_network_shows_no_shift() -> None:
    used_renderer = renderer(
        UpscaleSession(model(repeating(1)), provider="cpu", threads=1), (640, 272), (1280, 544), ColorTags()
    )
    frame = (picture(), *planes(640, 272, (0, 128, 128))[1:])
    (detail,) = used_renderer.detail([frame])
    np.testing.assert_array_equal(detail[0], picture().repeat(2, 0).repeat(2, 1))


def test_upscale_batch_equals_single_frames() -> None:
    manifest = session("small-x2").model.manifest
    used_renderer = UpscaleRenderer(
        session("small-x2").run, kind="luma", scale=2, halo=manifest.halo, size=(100, 60), target=(200, 120),
        color=ColorTags(), budget_pixels=30_000, batch=3,
    )  # fmt: skip
    frames = [(picture()[at : at + 60, :100], *planes(100, 60, (0, 128, 128))[1:]) for at in (0, 40, 90, 150)]
    together = used_renderer.detail(frames)
    for frame, detail in zip(frames, together, strict=True):
        np.testing.assert_array_equal(detail[0], run_whole("small-x2", frame[0]))


def test_upscale_tiles_stay_within_the_pixel_budget() -> None:
    given_pixels: list[int] = []

    def watched(samples: Samples) -> Samples:
        given_pixels.append(samples.size)
        return session("small-x2").run(samples)

    used_renderer = UpscaleRenderer(
        watched, kind="luma", scale=2, halo=8, size=(640, 272), target=(1280, 544), color=ColorTags(),
        budget_pixels=10_000, batch=2,
    )  # fmt: skip
    used_renderer.detail([(picture(), *planes(640, 272, (0, 128, 128))[1:])])
    assert max(given_pixels) <= 10_000
