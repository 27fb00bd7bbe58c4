"""Highlights drawn on YUV planes, compared with a slow implementation in RGB."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.strategies import positions, radii

from reel_modal._rendering.overlay import OverlayRenderer
from reel_modal.errors import FrameError
from reel_modal.media.frames import PLANAR, ColorTags, PixelFormat, Planes, frame_bytes, plane_shapes, plane_views
from reel_modal.schema import Effect, HighlightKeyframe, HighlightRegion, OverlayRequest, OverlayStyle

SIZE = (192, 108)
WEIGHTS = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}


def region(x: float, y: float, rx: float, ry: float, name: str = "r", **fields: object) -> HighlightRegion:
    key = HighlightKeyframe(time_seconds=Fraction(0), x=x, y=y, radius_x=rx, radius_y=ry, **fields)  # type: ignore[arg-type]
    return HighlightRegion(id=name, start_seconds=Fraction(0), end_seconds=Fraction(1), keyframes=(key,))


def request(*regions: HighlightRegion, effect: Effect = "dark_overlay", **style: object) -> OverlayRequest:
    return OverlayRequest(
        job_id="j",
        user_id="u",
        input_key="i",
        output_key="o.mp4",
        regions=regions,
        effect=effect,
        style=OverlayStyle(**style),  # type: ignore[arg-type]
    )


def picture(size: tuple[int, int] = SIZE, seed: int = 1) -> np.ndarray:
    """Return smooth colors, as from a camera: neighboring chroma samples are similar."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]] / max(size)
    phase = seed * 1.7
    luma = 120 + 70 * np.sin(6 * x + phase) * np.cos(5 * y)
    u = (128 + 40 * np.sin(3 * x + 2 * y + phase))[::2, ::2]
    v = (128 + 40 * np.cos(4 * y - x + phase))[::2, ::2]
    return np.concatenate([np.rint(p).astype(np.uint8).ravel() for p in (luma, u, v)])


def drawn(
    overlay_request: OverlayRequest, data: np.ndarray, size: tuple[int, int] = SIZE, tags: ColorTags | None = None
) -> Planes:
    planes = plane_views(data.copy(), "yuv420p", size)
    OverlayRenderer(overlay_request, size, tags or ColorTags(matrix="bt709", range="tv")).render(planes, Fraction(0))
    return planes


def supersampled(x: float, y: float, rx: float, ry: float, size: tuple[int, int]) -> np.ndarray:
    """Return the covered share of each pixel, sampled at 8 x 8 points."""
    points = (np.arange(8) + 0.5) / 8
    px = (np.arange(size[0])[:, None] + points).ravel()
    py = (np.arange(size[1])[:, None] + points).ravel()
    inside = np.add.outer(((py - y) / ry) ** 2, ((px - x) / rx) ** 2) <= 1
    return inside.reshape(size[1], 8, size[0], 8).mean(axis=(1, 3))


def through_rgb(
    data: np.ndarray, mask: np.ndarray, outside: float, inside: float, matrix: str, full: bool
) -> list[np.ndarray]:
    """Convert YUV to RGB in floats, multiply by the light, and convert back: the reference for the effect."""
    luma, u, v = (plane.astype(float) for plane in plane_views(data, "yuv420p", SIZE))
    kr, kb = WEIGHTS[matrix]
    zero, span, chroma_span = (0, 255, 255) if full else (16, 219, 224)
    big_u, big_v = (np.repeat(np.repeat(plane, 2, 0), 2, 1) for plane in (u, v))
    y, cb, cr = (luma - zero) / span, (big_u - 128) / chroma_span, (big_v - 128) / chroma_span
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    light = outside + (inside - outside) * mask
    red, green, blue = red * light, green * light, blue * light
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
    small = [plane.reshape(54, 2, 96, 2).mean(axis=(1, 3)) for plane in (cb, cr)]
    return [zero + span * y, 128 + chroma_span * small[0], 128 + chroma_span * small[1]]


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "bt2020nc"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("effect", "outside", "inside"), [("dark_overlay", 0.4, 1.0), ("brightness_boost", 1.0, 1.3)]
)
def test_overlay_effects_equal_the_rgb_reference(
    matrix: str, full: bool, effect: Effect, outside: float, inside: float
) -> None:
    data = picture()
    shape = (90.3, 50.7, 40.2, 30.9)
    tags = ColorTags(matrix=matrix, range="pc" if full else "tv")
    rendered = drawn(request(region(*shape), effect=effect, boost_strength=0.3), data, tags=tags)
    wanted = through_rgb(data, supersampled(*shape, SIZE), outside, inside, matrix, full)
    for plane, golden in zip(rendered, wanted, strict=True):
        error = np.abs(plane.astype(float) - golden)
        assert error.mean() <= 1.0
        assert np.quantile(error, 0.98) <= 2.0  # larger errors are on the edge


def test_overlay_mask_is_anti_aliased_with_subpixel_positions() -> None:
    data = np.full(frame_bytes("yuv420p", SIZE), 128, np.uint8)
    rows = []
    for shift in (0.0, 0.25, 0.5, 0.75):
        luma = drawn(request(region(96 + shift, 54, 30, 30)), data)[0]
        golden = 16 + 112 * (0.4 + 0.6 * supersampled(96 + shift, 54, 30, 30, SIZE))
        assert np.abs(luma - golden).mean() < 0.35
        rows.append(luma[54].astype(float))
    centers = [float((row * np.arange(192)).sum() / row.sum()) for row in rows]
    assert all(after > before for before, after in itertools.pairwise(centers))


def test_overlay_inside_is_unchanged_and_outside_is_exact() -> None:
    data = picture()
    luma, u, v = drawn(request(region(96, 54, 40, 40)), data)
    before = plane_views(data, "yuv420p", SIZE)
    inside = supersampled(96, 54, 38, 38, SIZE) == 1
    outside = supersampled(96, 54, 42, 42, SIZE) == 0
    assert np.array_equal(luma[inside], before[0][inside])
    assert np.array_equal(luma[outside], np.rint(16 + 0.4 * (before[0][outside].astype(float) - 16)).astype(np.uint8))
    corner = np.rint(128 + 0.4 * (before[1][0, 0].astype(float) - 128))
    assert (u[0, 0], v[27, 48]) == (corner, before[2][27, 48])


def test_overlay_brightness_changes_nothing_outside() -> None:
    data = picture()
    rendered = drawn(request(region(96, 54, 20, 20), effect="brightness_boost"), data)
    outside = supersampled(96, 54, 22, 22, SIZE) == 0
    assert np.array_equal(rendered[0][outside], plane_views(data, "yuv420p", SIZE)[0][outside])


def test_overlay_original_effect_changes_no_sample() -> None:
    data = picture()
    overlay_request = request(
        region(96, 54, 20, 20, color="#ff0000", fill_opacity=1, stroke_opacity=1), effect="original"
    )
    assert not OverlayRenderer(overlay_request, SIZE, ColorTags()).active(Fraction(0))
    assert np.array_equal(np.concatenate([plane.ravel() for plane in drawn(overlay_request, data)]), data)


def test_overlay_overlapping_regions_are_a_union() -> None:
    data = picture()
    both = request(region(60, 54, 30, 30, "a"), region(100, 54, 30, 30, "b"))
    luma = drawn(both, data)[0]
    before = plane_views(data, "yuv420p", SIZE)[0]
    for x in (60, 80, 100):
        assert luma[54, x] == before[54, x]
    boosted = drawn(request(*both.regions, effect="brightness_boost"), data)[0]
    once = drawn(request(both.regions[0], effect="brightness_boost"), data)[0]
    assert boosted[54, 80] == once[54, 80]  # in the overlap, the light is applied once


def test_overlay_region_outside_of_picture_darkens_all() -> None:
    luma = drawn(request(region(-500, -500, 10, 10)), picture())[0]
    assert luma.max() < 130


def test_overlay_boosted_white_stays_in_legal_range() -> None:
    data = np.full(frame_bytes("yuv420p", SIZE), 128, np.uint8)
    data[: SIZE[0] * SIZE[1]] = 230
    luma = drawn(request(region(96, 54, 40, 40), effect="brightness_boost", boost_strength=1.0), data)[0]
    assert (int(luma.max()), int(luma[0, 0])) == (235, 230)


@pytest.mark.parametrize(
    ("tags", "yuv"),
    [
        (ColorTags(matrix="bt709", range="tv"), (63, 102, 240)),
        (ColorTags(matrix="smpte170m", range="pc"), (76, 85, 255)),
    ],
)
def test_overlay_tint_and_outline_use_the_frames_matrix(tags: ColorTags, yuv: tuple[int, int, int]) -> None:
    data = np.full(frame_bytes("yuv420p", SIZE), 128, np.uint8)
    filled = request(region(96, 54, 40, 40, color="#ff0000", fill_opacity=1.0), dim_strength=0)
    luma, u, v = drawn(filled, data, tags=tags)
    assert (luma[54, 96], u[27, 48], v[27, 48]) == yuv
    assert (luma[0, 0], u[0, 0]) == (128, 128)
    lined = request(
        region(96, 54, 40, 40, color="#ff0000", fill_opacity=0.0, stroke_opacity=1.0),
        dim_strength=0,
        stroke_width_px=40,
    )
    luma = drawn(lined, data, tags=tags)[0]
    assert luma[54, 96] == 128
    assert abs(int(luma[54, 96 + 40]) - yuv[0]) <= 2


def test_overlay_feather_is_soft_only_inside() -> None:
    data = np.full(frame_bytes("yuv420p", SIZE), 128, np.uint8)
    row = drawn(request(region(96, 54, 50, 50), feather=0.5), data)[0][54].astype(int)
    assert row[96] == 128
    assert row[96 + 52] == row[0]
    falling = row[96 + 25 : 96 + 50]
    assert all(after <= before for before, after in itertools.pairwise(falling))
    assert len(set(falling)) > 15


def test_overlay_planes_of_another_size_are_refused() -> None:
    small = plane_views(picture((96, 54)), "yuv420p", (96, 54))
    with pytest.raises(FrameError, match="they must have the shapes"):
        OverlayRenderer(request(region(1, 1, 1, 1)), SIZE, ColorTags()).render(small, Fraction(0))


@given(
    x=positions,
    y=positions,
    rx=radii,
    ry=radii,
    feather=st.sampled_from([0.0, 0.3]),
    effect=st.sampled_from(["dark_overlay", "brightness_boost"]),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_overlay_any_ellipse_stays_within_its_planes(
    x: float, y: float, rx: float, ry: float, feather: float, effect: Effect, size: tuple[int, int]
) -> None:
    guard = np.full(frame_bytes("yuv420p", size) + 64, 77, np.uint8)
    planes = plane_views(guard[32:-32], "yuv420p", size)
    overlay_request = request(
        region(x, y, rx, ry, color="#123456", stroke_opacity=0.5), effect=effect, feather=feather
    )
    OverlayRenderer(overlay_request, size, ColorTags()).render(planes, Fraction(0))
    assert (guard[:32] == 77).all()
    assert (guard[-32:] == 77).all()


@pytest.mark.parametrize("effect", ["dark_overlay", "brightness_boost"])
@pytest.mark.parametrize("tags", [ColorTags(matrix="bt709", range="tv"), ColorTags(matrix="bt709", range="pc")])
@pytest.mark.parametrize("pixel_format", PLANAR)
def test_overlay_every_planar_format_is_drawn_alike(
    pixel_format: PixelFormat, tags: ColorTags, effect: Effect
) -> None:
    """The result equals that of 8-bit 4:2:0, up to one step of the coarser format."""
    overlay_request = request(
        region(90, 50, 40, 30, color="#e04020", fill_opacity=0.4, stroke_opacity=0.6), effect=effect
    )
    flat = np.full(frame_bytes("yuv420p", SIZE), 140, np.uint8)
    wanted = drawn(overlay_request, flat, tags=tags)
    bits, step = PLANAR[pixel_format].bits, PLANAR[pixel_format].step
    kind = np.uint8 if bits == 8 else np.uint16
    planes = tuple(np.full(shape, 140 << (bits - 8), kind) for shape in plane_shapes(pixel_format, SIZE))
    OverlayRenderer(overlay_request, SIZE, tags, pixel_format).render(planes, Fraction(0))
    for number, (plane, old) in enumerate(zip(planes, wanted, strict=True)):
        assert len(np.unique(plane)) > 3
        down, across = (2 // step[1], 2 // step[0]) if number else (1, 1)
        level = plane.astype(float) / (1 << (bits - 8))
        mean = level.reshape(old.shape[0], down, old.shape[1], across).mean(axis=(1, 3))
        off = np.abs(mean - old)
        # Edges of a coarser grid are softer; a 4:2:0 sample is at the left of the cells that it covers in 4:4:4.
        assert np.median(off) <= 0.5
        assert np.percentile(off, 97) <= (1 if number == 0 else 12)
        assert off.max() <= (3 if number == 0 else 60)  # each of four steps rounds


@pytest.mark.parametrize(("pixel_format", "kind"), [("yuv420p", np.uint16), ("yuv420p10le", np.uint8)])
def test_overlay_samples_of_another_depth_are_refused(
    pixel_format: PixelFormat, kind: type[np.uint8 | np.uint16]
) -> None:
    planes = tuple(np.zeros(shape, kind) for shape in plane_shapes(pixel_format, SIZE))
    with pytest.raises(FrameError, match="they must have the shapes"):
        OverlayRenderer(request(region(1, 1, 1, 1)), SIZE, ColorTags(), pixel_format).render(planes, Fraction(0))


@pytest.mark.parametrize("pixel_format", PLANAR)
def test_overlay_chroma_is_lit_at_its_sample_positions(pixel_format: PixelFormat) -> None:
    """Area and center of the lit chroma are those of the ellipse, in pixels of the picture."""
    (across, down), bits = PLANAR[pixel_format].step, PLANAR[pixel_format].bits
    kind = np.uint8 if bits == 8 else np.uint16
    planes = tuple(np.full(shape, 200 << (bits - 8), kind) for shape in plane_shapes(pixel_format, SIZE))
    overlay_request = request(region(61, 51, 50, 40), dim_strength=1.0)
    OverlayRenderer(overlay_request, SIZE, ColorTags(), pixel_format).render(planes, Fraction(0))
    left, up = {(2, 2): (0.5, 1), (2, 1): (0.5, 0.5), (1, 2): (0.5, 0.5), (1, 1): (0.5, 0.5)}[across, down]
    y, x = np.mgrid[0 : planes[1].shape[0], 0 : planes[1].shape[1]]
    for plane in planes[1:]:
        lit = (plane / (1 << (bits - 8)) - 128) / 72
        assert lit.sum() * across * down == pytest.approx(np.pi * 50 * 40, rel=0.02)
        assert (lit * (x * across + left)).sum() / lit.sum() == pytest.approx(61, abs=0.1)
        assert (lit * (y * down + up)).sum() / lit.sum() == pytest.approx(51, abs=0.1)
