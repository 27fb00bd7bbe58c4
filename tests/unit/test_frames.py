"""Memory layout of raw frames, and refused frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reel_modal.errors import ConfigError, FrameError, FrameTypeError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.media.frames import (
    BT709,
    ColorTags,
    Frame,
    PixelFormat,
    U8Array,
    fit_edges,
    frame_bytes,
    frame_rate,
    matrix_or_assumed,
    plane_shapes,
    plane_views,
    raw_bytes,
)
from reel_modal.testing import make_clip

FORMATS: list[PixelFormat] = ["bgr24", "rgb24", "yuv420p", "gray8"]


def flat(pixel_format: PixelFormat, size: tuple[int, int]) -> U8Array:
    """Return a frame whose bytes count up."""
    return np.arange(frame_bytes(pixel_format, size), dtype=np.uint8)


def joined(chunks: list[memoryview]) -> bytes:
    return b"".join(chunks)


@pytest.mark.parametrize(
    ("pixel_format", "size", "shapes"),
    [
        ("bgr24", (6, 4), [(4, 6, 3)]),
        ("rgb24", (5, 3), [(3, 5, 3)]),
        ("gray8", (5, 3), [(3, 5)]),
        ("yuv420p", (6, 4), [(4, 6), (2, 3), (2, 3)]),
        ("yuv420p", (5, 3), [(3, 5), (2, 3), (2, 3)]),
        ("yuv420p", (1, 1), [(1, 1), (1, 1), (1, 1)]),
    ],
)
def test_plane_shapes_round_chroma_up(
    pixel_format: PixelFormat, size: tuple[int, int], shapes: list[tuple[int, ...]]
) -> None:
    assert plane_shapes(pixel_format, size) == shapes
    assert frame_bytes(pixel_format, size) == sum(math.prod(shape) for shape in shapes)


def test_unknown_pixel_format_error_lists_known_ones() -> None:
    calls: list[Callable[[PixelFormat], object]] = [
        lambda name: frame_bytes(name, (4, 4)),
        lambda name: plane_shapes(name, (4, 4)),
        lambda name: plane_views(np.zeros(24, np.uint8), name, (4, 4)),
        lambda name: raw_bytes(np.zeros((6, 4), np.uint8), name, (4, 4), 0),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r"'nv12'.*bgr24, rgb24, yuv420p, gray8"):
            call("nv12")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-4, 4), (-4, -4), (4.0, 4), (4,), (4, 4, 3)])
def test_frame_bytes_invalid_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError) as caught:
        frame_bytes("bgr24", size)
    assert f"size {size!r} must be (width, height)" in str(caught.value)


def test_frame_bytes_accepts_numpy_integers() -> None:
    width, height = np.array([5, 3])
    assert frame_bytes("yuv420p", (width, height)) == 27


@pytest.mark.parametrize("size", [(6, 4), (5, 3)])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_plane_views_cover_the_frame_once(pixel_format: PixelFormat, size: tuple[int, int]) -> None:
    data = flat(pixel_format, size)
    planes = plane_views(data, pixel_format, size)
    assert [plane.shape for plane in planes] == plane_shapes(pixel_format, size)
    assert b"".join(plane.tobytes() for plane in planes) == data.tobytes()
    for value, plane in enumerate(planes):
        assert np.shares_memory(plane, data)
        plane[...] = value
    assert data.tobytes() == b"".join(bytes([value]) * plane.size for value, plane in enumerate(planes))


def test_frame_drawing_changes_it_but_not_its_copy() -> None:
    frame = Frame(flat("bgr24", (4, 2)), (4, 2), "bgr24", Fraction(1, 30), 1)
    copied = frame.copy()
    frame.image[1, 2] = (7, 8, 9)
    assert frame.data[18:21].tolist() == [7, 8, 9]
    assert copied.data.tobytes() == flat("bgr24", (4, 2)).tobytes()
    assert (copied.size, copied.pixel_format, copied.pts_seconds, copied.index) == (
        (4, 2),
        "bgr24",
        Fraction(1, 30),
        1,
    )


def test_frame_image_of_planar_frame_names_planes() -> None:
    frame = Frame(flat("yuv420p", (4, 2)), (4, 2), "yuv420p", Fraction(0), 0)
    with pytest.raises(ConfigError, match=r"frame\.planes"):
        _ = frame.image


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_raw_bytes_every_form_gives_equal_bytes_without_copy(pixel_format: PixelFormat) -> None:
    size = (5, 3)
    data = flat(pixel_format, size)
    planes = plane_views(data, pixel_format, size)
    whole = data if pixel_format == "yuv420p" else planes[0]
    for form in (Frame(data, size, pixel_format, Fraction(0), 0), planes, data, whole, data.data):
        chunks = raw_bytes(form, pixel_format, size, 0)
        assert joined(chunks) == data.tobytes()
        assert all(np.shares_memory(np.frombuffer(chunk, np.uint8), data) for chunk in chunks)
    assert joined(raw_bytes(data.tobytes(), pixel_format, size, 0)) == data.tobytes()


def test_raw_bytes_accepts_even_yuv_as_one_tall_array() -> None:
    data = flat("yuv420p", (6, 4))
    assert joined(raw_bytes(data.reshape(6, 6), "yuv420p", (6, 4), 0)) == data.tobytes()


def test_raw_bytes_checks_frame_data_like_an_array() -> None:
    def written(data: object) -> bytes:
        frame = Frame(data, (4, 2), "bgr24", Fraction(0), 0)  # type: ignore[arg-type]
        return joined(raw_bytes(frame, "bgr24", (4, 2), 3))

    data = flat("bgr24", (4, 2))
    assert written(data[::-1]) == data[::-1].tobytes()
    for other in (data[:23], np.zeros(25, np.uint8), data.reshape(2, 4, 3)):
        with pytest.raises(FrameError, match=r"frame 3 has shape .*; it must be \(24,\)"):
            written(other)
    with pytest.raises(FrameTypeError, match="frame 3 is an array of float64"):
        written(data.astype(np.float64))
    with pytest.raises(FrameTypeError, match="frame 3 is a bytes, not a uint8 array"):
        written(data.tobytes())


def test_raw_bytes_strided_view_is_written_in_its_order() -> None:
    image = flat("bgr24", (4, 2)).reshape(2, 4, 3)
    for view in (image[:, ::-1], image[..., ::-1], np.asfortranarray(image)):
        assert not view.flags.c_contiguous
        assert joined(raw_bytes(view, "bgr24", (4, 2), 0)) == view.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "int8", "bool"])
def test_raw_bytes_other_dtype_is_refused_with_the_cure(dtype: str) -> None:
    with pytest.raises(FrameTypeError, match=f"frame 12 is an array of {dtype}; it must be uint8 .*by 255"):
        raw_bytes(np.zeros((2, 4, 3), dtype), "bgr24", (4, 2), 12)


@pytest.mark.parametrize("shape", [(4, 2, 3), (2, 4), (2, 4, 4), (1, 2, 4, 3), (3, 2, 4), (23,)])
def test_raw_bytes_other_shape_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(FrameError) as caught:
        raw_bytes(np.zeros(shape, np.uint8), "bgr24", (4, 2), 12)
    assert f"frame 12 has shape {shape}; it must be (2, 4, 3) or (24,) (height first)" in str(caught.value)


def test_raw_bytes_wrong_or_missing_planes_are_refused() -> None:
    y, u, v = plane_views(flat("yuv420p", (5, 3)), "yuv420p", (5, 3))
    with pytest.raises(FrameError, match=r"has shape \(1, 3\); it must be \(2, 3\)"):
        raw_bytes((y, u, v[:1]), "yuv420p", (5, 3), 0)
    with pytest.raises(FrameTypeError, match="frame 0 is a bytes, not a uint8 array"):
        raw_bytes((y.tobytes(), u.tobytes(), v.tobytes()), "yuv420p", (5, 3), 0)  # type: ignore[arg-type]
    with pytest.raises(FrameError, match="has 2 planes; yuv420p of 5x3 has 3"):
        raw_bytes((y, u), "yuv420p", (5, 3), 0)
    with pytest.raises(FrameError, match=r"has shape \(4, 5\); it must be \(27,\)"):
        raw_bytes(np.zeros((4, 5), np.uint8), "yuv420p", (5, 3), 0)


def test_raw_bytes_other_pixel_format_or_size_is_refused() -> None:
    frame = Frame(flat("rgb24", (4, 2)), (4, 2), "rgb24", Fraction(0), 0)
    with pytest.raises(FrameError, match="frame 3 is rgb24 of 4x2; it must be bgr24 of 4x2"):
        raw_bytes(frame, "bgr24", (4, 2), 3)
    assert joined(raw_bytes(frame, "rgb24", [4, 2], 3)) == frame.data.tobytes()  # type: ignore[arg-type]
    with pytest.raises(FrameError, match="frame 3 is rgb24 of 4x2; it must be rgb24 of 2x4"):
        raw_bytes(frame, "rgb24", (2, 4), 3)


def test_raw_bytes_wrong_length_or_type_is_refused() -> None:
    with pytest.raises(FrameError, match="frame 3 has 23 bytes; bgr24 of 4x2 has 24"):
        raw_bytes(bytes(23), "bgr24", (4, 2), 3)
    for thing in ("text", [1, 2, 3], None):
        with pytest.raises(FrameTypeError, match=f"frame 3 is a {type(thing).__name__}, not a uint8 array or bytes"):
            raw_bytes(thing, "bgr24", (4, 2), 3)  # type: ignore[arg-type]


def test_raw_bytes_strided_or_wide_memoryview_is_refused() -> None:
    view = memoryview(bytes(48))[::2]
    with pytest.raises(FrameError, match="frame 3 is a memoryview with strides"):
        raw_bytes(view, "bgr24", (4, 2), 3)
    with pytest.raises(FrameTypeError, match="frame 3 is a memoryview of 8-byte items, not of bytes"):
        raw_bytes(np.zeros(3, np.float64).data, "bgr24", (4, 2), 3)


def test_fit_edges_repeats_last_row_and_column() -> None:
    data = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    grown = joined(fit_edges(raw_bytes(data, "gray8", (3, 2), 0), "gray8", (3, 2), (4, 3)))
    assert list(grown) == [1, 2, 3, 3, 4, 5, 6, 6, 4, 5, 6, 6]
    cut = joined(fit_edges(raw_bytes(data, "gray8", (3, 2), 0), "gray8", (3, 2), (2, 1)))
    assert list(cut) == [1, 2]


@pytest.mark.parametrize("pixel_format", FORMATS)
@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), more=st.tuples(st.integers(0, 1), st.integers(0, 1)))
def test_fit_edges_grown_then_cut_frame_is_unchanged(
    pixel_format: PixelFormat, size: tuple[int, int], more: tuple[int, int]
) -> None:
    larger = (size[0] + more[0], size[1] + more[1])
    data = flat(pixel_format, size)
    grown = fit_edges(raw_bytes(data, pixel_format, size, 0), pixel_format, size, larger)
    assert len(joined(grown)) == frame_bytes(pixel_format, larger)
    assert joined(fit_edges(grown, pixel_format, larger, size)) == data.tobytes()


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        (29.97, Fraction(30000, 1001)),
        (29.97002997, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        (30.0, Fraction(30)),
        (24, Fraction(24)),
        (12.5, Fraction(25, 2)),
        (0.1, Fraction(1, 10)),
        (0.004, Fraction(1, 250)),
        (0.001, Fraction(1, 1000)),
        (np.float64(12.5), Fraction(25, 2)),
        (np.float64(29.97), Fraction(30000, 1001)),
        (np.float32(25), Fraction(25)),
        (np.float32(29.97), Fraction(30000, 1001)),
        (np.float32(12.1), Fraction(121, 10)),
        (np.int64(24), Fraction(24)),
        (Decimal("12.5"), Fraction(25, 2)),
        (Decimal("29.97"), Fraction(30000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        ("23.976", Fraction(24000, 1001)),
        ("59.94", Fraction(60000, 1001)),
        ("119.88", Fraction(120000, 1001)),
        ("25", Fraction(25)),
        ("30000/1001", Fraction(30000, 1001)),
        ("2997/100", Fraction(2997, 100)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (Fraction(2997, 100), Fraction(2997, 100)),
        (Fraction(23040000, 767849), Fraction(818861, 27290)),
        (Fraction(1, 1_001_000), Fraction(1, 1_001_000)),
    ],
)
def test_frame_rate_becomes_the_exact_fraction(value: Fraction | float, rate: Fraction) -> None:
    assert frame_rate(value) == rate
    assert isinstance(frame_rate(value), Fraction)


@pytest.mark.parametrize("value", [29.97, "29.97", Decimal("29.97"), "30000/1001"])
def test_frame_rate_is_parsed_equally_by_pipe_and_reader(tmp_path: Path, value: Any) -> None:
    assert FramePipe(tmp_path / "out.mp4", size=(64, 48), fps=value).fps == Fraction(30000, 1001)
    clip = make_clip(tmp_path / "in.mp4", size=(64, 48), seconds=0.2, fps=value)
    with FrameReader(clip, fps=value) as reader:
        assert reader.fps == Fraction(30000, 1001)


NO_RATES = [
    *(math.nan, math.inf, -math.inf, 0, 0.0, -25, -29.97, Fraction(0), -0.004, 2_000_000, Fraction(1, 2_000_000)),
    *(
        np.float64("nan"),
        np.float32("inf"),
        Decimal("nan"),
        "fast",
        "1e4000000",
        "30/0",
        Decimal("1e4000000"),
        None,
        25j,
    ),
]


@pytest.mark.parametrize("value", NO_RATES, ids=repr)
def test_frame_rate_invalid_value_is_refused(value: Fraction | float) -> None:
    with pytest.raises(ConfigError) as caught:
        frame_rate(value)
    assert str(caught.value).startswith("frame rate ")


def test_matrix_or_assumed_untagged_depends_on_height() -> None:
    assert matrix_or_assumed(ColorTags(), 719) == "smpte170m"
    assert matrix_or_assumed(ColorTags(), 720) == "bt709"
    assert matrix_or_assumed(BT709, 240) == "bt709"


def deep_planes(width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shapes = ((height, width), ((height + 1) // 2, (width + 1) // 2), ((height + 1) // 2, (width + 1) // 2))
    draw = np.random.default_rng(3)
    y, u, v = (draw.integers(0, 1024, shape).astype(np.uint16) for shape in shapes)
    return y, u, v


def test_ten_bit_frame_has_two_bytes_per_sample() -> None:
    assert frame_bytes("yuv420p10le", (6, 4)) == 2 * (24 + 6 + 6)
    assert plane_shapes("yuv420p10le", (5, 3)) == [(3, 5), (2, 3), (2, 3)]


def test_ten_bit_planes_survive_writing_and_viewing() -> None:
    planes = deep_planes(6, 4)
    chunks = raw_bytes(planes, "yuv420p10le", (6, 4), 0)
    data = np.frombuffer(b"".join(chunks), np.uint8)
    frame = Frame(data, (6, 4), "yuv420p10le", Fraction(0), 0)
    for plane, viewed in zip(planes, frame.deep_planes, strict=True):
        np.testing.assert_array_equal(plane, viewed)
    flat = np.concatenate([plane.ravel() for plane in planes])
    assert b"".join(raw_bytes(flat, "yuv420p10le", (6, 4), 0)) == data.tobytes()
    assert b"".join(raw_bytes(frame, "yuv420p10le", (6, 4), 0)) == data.tobytes()
    with pytest.raises(ConfigError, match="has planes, not a single image"):
        _ = frame.image


def test_planes_of_other_bit_depth_are_refused() -> None:
    shallow = tuple(plane.astype(np.uint8) for plane in deep_planes(6, 4))
    with pytest.raises(FrameTypeError, match=r"uint8; it must be uint16 .* by 1023"):
        raw_bytes(shallow, "yuv420p10le", (6, 4), 0)
    with pytest.raises(FrameTypeError, match=r"uint16; it must be uint8 .* by 255"):
        raw_bytes(deep_planes(6, 4), "yuv420p", (6, 4), 0)
    frame = Frame(np.zeros(36, np.uint8), (6, 4), "yuv420p", Fraction(0), 0)
    with pytest.raises(ConfigError, match="8-bit samples"):
        _ = frame.deep_planes


def test_fit_edges_ten_bit_repeats_whole_samples() -> None:
    planes = deep_planes(5, 3)
    chunks = fit_edges(raw_bytes(planes, "yuv420p10le", (5, 3), 0), "yuv420p10le", (5, 3), (6, 4))
    frame = Frame(np.frombuffer(b"".join(chunks), np.uint8), (6, 4), "yuv420p10le", Fraction(0), 0)
    np.testing.assert_array_equal(frame.deep_planes[0], np.pad(planes[0], ((0, 1), (0, 1)), mode="edge"))
    np.testing.assert_array_equal(frame.deep_planes[1], planes[1])
