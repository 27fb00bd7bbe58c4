"""One filter from the samples of a plane to those of a part of it, in any size: what comes out is rounded once."""

from __future__ import annotations

import numpy as np
import pytest

from reel_modal.rendering.resampling import Window, resample, resample_unrounded

NOISE = np.random.default_rng(1).integers(0, 256, (67, 91), dtype=np.uint8)

DEEP = NOISE.astype(np.uint16) * 4 + NOISE[::-1, ::-1] % 4


def resampled(plane: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    target = np.empty(size[::-1], plane.dtype)
    resample(plane, window, target)
    return target


def by_definition(plane: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Lanczos with three lobes, sample by sample, the edges repeated; not rounded, nor clipped."""

    def weights(start: float, length: float, count: int, target_count: int) -> np.ndarray:
        step = length / target_count
        wide = max(1.0, step)
        found = np.zeros((target_count, count))
        for row in range(target_count):
            middle = start + (row + 0.5) * step - 0.5
            for tap in range(int(middle - 3 * wide) - 2, int(middle + 3 * wide) + 3):
                away = (tap - middle) / wide
                if abs(away) < 3:
                    found[row, min(max(tap, 0), count - 1)] += np.sinc(away) * np.sinc(away / 3)
        return found / found.sum(axis=1, keepdims=True)

    down = weights(window.top, window.height, plane.shape[0], size[1])
    across = weights(window.left, window.width, plane.shape[1], size[0])
    return down @ plane.astype(float) @ across.T


windows = pytest.mark.parametrize(
    ("window", "size"),
    [
        (Window(10.37, 5.81, 40.5, 30.25), (54, 40)),
        (Window(10.37, 5.81, 40.5, 30.25), (40, 31)),
        (Window(0, 0, 91, 67), (30, 20)),
        (Window(0.4, 0.3, 90.2, 66.1), (7, 3)),
        (Window(12, 7.5, 33, 21), (33, 80)),
        (Window(-0.25, -0.5, 91, 67), (91, 67)),
        (Window(-7, 50, 20, 30), (40, 25)),
        (Window(45.2, 33.3, 1, 1), (100, 50)),
        (Window(20, 10, 16, 17), (16, 17)),
        (Window(-40, -30, 160, 120), (1100, 300)),
        (Window(-90, 120, 60, 40), (30, 50)),
    ],
)


@windows
def test_it_is_lanczos_rounded_once(window: Window, size: tuple[int, int]) -> None:
    exact = by_definition(NOISE, window, size).clip(0, 255)
    assert float(np.abs(resampled(NOISE, window, size) - exact).max()) < 0.501


@windows
def test_resample_ten_bits_is_lanczos_rounded_once(window: Window, size: tuple[int, int]) -> None:
    exact = by_definition(DEEP, window, size).clip(0, 1023)
    assert float(np.abs(resampled(DEEP, window, size) - exact).max()) < 0.503


@windows
def test_resample_unrounded_is_lanczos(window: Window, size: tuple[int, int]) -> None:
    below_zero = NOISE.astype(np.float32) - 128
    exact = by_definition(below_zero, window, size)
    np.testing.assert_allclose(resample_unrounded(below_zero, window, size), exact, atol=0.001)


def test_whole_samples_stay_as_they_are() -> None:
    assert np.array_equal(resampled(NOISE, Window(13, 9, 50, 40), (50, 40)), NOISE[9:49, 13:63])
    assert np.array_equal(resampled(NOISE, Window(0, 0, 91, 67), (91, 67)), NOISE)


@pytest.mark.parametrize("level", [0, 16, 77, 255])
@pytest.mark.parametrize("size", [(50, 40), (91, 67), (300, 9)])
def test_what_is_flat_stays_flat(level: int, size: tuple[int, int]) -> None:
    flat = np.full_like(NOISE, level)
    assert np.array_equal(np.unique(resampled(flat, Window(3.3, -0.5, 61.7, 48.1), size)), [level])


def test_a_part_of_a_larger_array_will_do() -> None:
    part, window = NOISE[::2, 3:50], Window(2.5, 1.25, 30, 20)
    assert np.array_equal(resampled(part, window, (45, 30)), resampled(part.copy(), window, (45, 30)))


def test_resample_fills_part_of_larger_array() -> None:
    window, larger = Window(2.5, 1.25, 30, 20), np.full((50, 60), 7, np.uint8)
    resample(NOISE, window, larger[10:40, 5:50])
    assert np.array_equal(larger[10:40, 5:50], resampled(NOISE, window, (45, 30)))
    larger[10:40, 5:50] = 7
    assert np.unique(larger).tolist() == [7]


@pytest.mark.parametrize(
    ("setting", "value"), [("_MAX_MULTIPLICATIONS", 1), ("_MATRICES_ACROSS", 1), ("_MATRICES_DOWN", 1)]
)
def test_a_large_plane_is_the_same_in_pieces(setting: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products and blocks are kept small; how small must not show."""
    window = Window(3.3, 1.7, 70.5, 60.2)
    whole = resampled(NOISE, window, (120, 90))
    monkeypatch.setattr(f"reel_modal.rendering.resampling.{setting}", value)
    assert np.array_equal(resampled(NOISE, window, (120, 90)), whole)
