"""Resampling a rectangle of a plane to any size with one filter, rounded once."""

from __future__ import annotations

import numpy as np
import pytest

from reel_modal._rendering.resampling import Rect, resample, resample_unrounded

NOISE = np.random.default_rng(1).integers(0, 256, (67, 91), dtype=np.uint8)

DEEP = NOISE.astype(np.uint16) * 4 + NOISE[::-1, ::-1] % 4


def resampled(plane: np.ndarray, window: Rect, size: tuple[int, int]) -> np.ndarray:
    target = np.empty(size[::-1], plane.dtype)
    resample(plane, window, target)
    return target


def by_definition(plane: np.ndarray, window: Rect, size: tuple[int, int]) -> np.ndarray:
    """Lanczos with three lobes, sample by sample, with repeated edges; neither rounded nor clipped."""

    def weights(start: float, length: float, count: int, target_count: int) -> np.ndarray:
        step = length / target_count
        wide = max(1.0, step)
        matrix = np.zeros((target_count, count))
        for row in range(target_count):
            middle = start + (row + 0.5) * step - 0.5
            for tap in range(int(middle - 3 * wide) - 2, int(middle + 3 * wide) + 3):
                away = (tap - middle) / wide
                if abs(away) < 3:
                    matrix[row, min(max(tap, 0), count - 1)] += np.sinc(away) * np.sinc(away / 3)
        return matrix / matrix.sum(axis=1, keepdims=True)

    down = weights(window.top, window.height, plane.shape[0], size[1])
    across = weights(window.left, window.width, plane.shape[1], size[0])
    return down @ plane.astype(float) @ across.T


windows = pytest.mark.parametrize(
    ("window", "size"),
    [
        (Rect(10.37, 5.81, 40.5, 30.25), (54, 40)),
        (Rect(10.37, 5.81, 40.5, 30.25), (40, 31)),
        (Rect(0, 0, 91, 67), (30, 20)),
        (Rect(0.4, 0.3, 90.2, 66.1), (7, 3)),
        (Rect(12, 7.5, 33, 21), (33, 80)),
        (Rect(-0.25, -0.5, 91, 67), (91, 67)),
        (Rect(-7, 50, 20, 30), (40, 25)),
        (Rect(45.2, 33.3, 1, 1), (100, 50)),
        (Rect(20, 10, 16, 17), (16, 17)),
        (Rect(-40, -30, 160, 120), (1100, 300)),
        (Rect(-90, 120, 60, 40), (30, 50)),
    ],
)


@windows
def test_resample_is_lanczos_rounded_once(window: Rect, size: tuple[int, int]) -> None:
    exact = by_definition(NOISE, window, size).clip(0, 255)
    assert float(np.abs(resampled(NOISE, window, size) - exact).max()) < 0.501


@windows
def test_resample_ten_bits_is_lanczos_rounded_once(window: Rect, size: tuple[int, int]) -> None:
    exact = by_definition(DEEP, window, size).clip(0, 1023)
    assert float(np.abs(resampled(DEEP, window, size) - exact).max()) < 0.503


@windows
def test_resample_unrounded_is_lanczos(window: Rect, size: tuple[int, int]) -> None:
    below_zero = NOISE.astype(np.float32) - 128
    exact = by_definition(below_zero, window, size)
    np.testing.assert_allclose(resample_unrounded(below_zero, window, size), exact, atol=0.001)


def test_resample_aligned_rect_of_same_size_copies() -> None:
    assert np.array_equal(resampled(NOISE, Rect(13, 9, 50, 40), (50, 40)), NOISE[9:49, 13:63])
    assert np.array_equal(resampled(NOISE, Rect(0, 0, 91, 67), (91, 67)), NOISE)


@pytest.mark.parametrize("level", [0, 16, 77, 255])
@pytest.mark.parametrize("size", [(50, 40), (91, 67), (300, 9)])
def test_resample_flat_plane_stays_flat(level: int, size: tuple[int, int]) -> None:
    flat = np.full_like(NOISE, level)
    assert np.array_equal(np.unique(resampled(flat, Rect(3.3, -0.5, 61.7, 48.1), size)), [level])


def test_resample_strided_source_equals_its_copy() -> None:
    part, window = NOISE[::2, 3:50], Rect(2.5, 1.25, 30, 20)
    assert np.array_equal(resampled(part, window, (45, 30)), resampled(part.copy(), window, (45, 30)))


def test_resample_fills_part_of_larger_array() -> None:
    window, larger = Rect(2.5, 1.25, 30, 20), np.full((50, 60), 7, np.uint8)
    resample(NOISE, window, larger[10:40, 5:50])
    assert np.array_equal(larger[10:40, 5:50], resampled(NOISE, window, (45, 30)))
    larger[10:40, 5:50] = 7
    assert np.unique(larger).tolist() == [7]


@pytest.mark.parametrize(
    ("setting", "value"), [("_MAX_MULTIPLICATIONS", 1), ("_MATRICES_ACROSS", 1), ("_MATRICES_DOWN", 1)]
)
def test_resample_in_pieces_is_equal(setting: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of products and blocks must not affect the result."""
    window = Rect(3.3, 1.7, 70.5, 60.2)
    whole = resampled(NOISE, window, (120, 90))
    monkeypatch.setattr(f"reel_modal._rendering.resampling.{setting}", value)
    assert np.array_equal(resampled(NOISE, window, (120, 90)), whole)
