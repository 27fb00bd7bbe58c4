"""Images of layers: which files are accepted, and their pixels on the planes against a slow reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.media.layer_images import GRAY, RGB, ROTATED, chunk, png, png_of, random_image, reference, webp_of

from reel_modal._rendering.images import MOST_BYTES, decoded_image
from reel_modal._rendering.layers import LayerImage
from reel_modal._rendering.yuv import yuv_of
from reel_modal.errors import InvalidMediaError
from reel_modal.media.frames import ColorTags, frame_bytes, sample_views

BACKGROUND = (90, 110, 160)
FRAME = (48, 32)
BT601 = ColorTags(matrix="smpte170m", range="tv")


def drawn(
    rgba: np.ndarray,
    size: tuple[int, int],
    corner: tuple[int, int],
    *,
    strength: float = 1.0,
    deep: bool = False,
    color: ColorTags = BT601,
) -> list[np.ndarray]:
    """Return the planes of a flat frame with an image."""
    pixel_format, unit = ("yuv420p10le", 4) if deep else ("yuv420p", 1)
    planes = sample_views(np.empty(frame_bytes(pixel_format, FRAME), np.uint8), pixel_format, FRAME)
    for plane, value in zip(planes, BACKGROUND, strict=True):
        plane[:] = value * unit
    bgra = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]])
    image = LayerImage(bgra, size=size, corner=corner, frame_size=FRAME, color=color, pixel_format=pixel_format)
    image.draw(planes, strength)
    return list(planes)


def test_png_and_webp_have_the_same_pixels(tmp_path: Path) -> None:
    rgba = random_image((33, 21))
    rgba[rgba[..., 3] == 0] = 0  # WebP does not keep the color of transparent pixels
    expected = rgba[..., [2, 1, 0, 3]]
    np.testing.assert_array_equal(decoded_image(png_of(rgba)), expected)
    np.testing.assert_array_equal(decoded_image(webp_of(rgba, tmp_path / "a.webp")), expected)


def test_images_without_alpha_are_opaque() -> None:
    assert decoded_image(png((2, 1), kind=GRAY, rows=b"\0\x07\x09")).tolist() == [[[7, 7, 7, 255], [9, 9, 9, 255]]]
    assert decoded_image(png((1, 1), kind=RGB, rows=b"\0\x01\x02\x03")).tolist() == [[[3, 2, 1, 255]]]


PIXEL = png((1, 1), rows=b"\0\0\0\0\0")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a PNG or WebP"),
        (b"\xff\xd8\xff\xe0 a JPEG", "not a PNG or WebP"),
        (PIXEL[:-12], "damaged or incomplete"),
        (PIXEL[:40] + b"\xff" + PIXEL[41:], "damaged or incomplete"),
        (png((20, 20), rows=bytes(100)), "damaged"),
        (png((1, 1), bits=16, rows=bytes(9)), "16 bits per sample"),
        (png((60000, 60000)), "60000 x 60000 pixels"),
        (png((0, 1)), "0 x 1 pixels"),
        (png((1, 1), rows=bytes(5), extra=chunk(b"acTL", bytes(8))), "animated"),
        (png((1, 1), rows=bytes(5), extra=chunk(b"eXIf", ROTATED)), "EXIF orientation"),
        (png((1, 1), kind=GRAY, rows=bytes(2), extra=chunk(b"tRNS", bytes(2))), "transparent gray"),
        (b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\0\0\0\0\0\0", "animated"),
        (b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\x3f\xff\xff\x3f", "4194304 x 4194304 pixels"),
        (b"RIFF\x1e\0\0\0WEBPVP8X\xff\0\0\0", "incomplete"),
        (b"RIFF\x1e\0\0\0WEBP", "damaged or incomplete"),
        (bytes(MOST_BYTES + 1), "bytes; at most"),
    ],
)
def test_other_files_are_refused_with_their_problem(data: bytes, words: str) -> None:
    with pytest.raises(InvalidMediaError, match=words):
        decoded_image(data)


@given(st.integers(0, len(PIXEL) - 1), st.integers(0, 255))
def test_a_changed_byte_never_raises_another_error(at: int, value: int) -> None:
    data = bytearray(PIXEL)
    data[at] = value
    try:
        image = decoded_image(bytes(data))
    except InvalidMediaError:
        return
    assert image.shape == (1, 1, 4)


@pytest.mark.parametrize(("deep", "most"), [(False, 1.6), (True, 4.0)])
@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    half=st.tuples(st.integers(-8, 26), st.integers(-8, 18)),
    opacity=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_pixels_are_those_of_the_reference(
    deep: bool, most: float, size: tuple[int, int], half: tuple[int, int], opacity: float
) -> None:
    rgba = random_image(size, seed=size[0])
    corner = (2 * half[0], 2 * half[1])
    bits, unit = (10, 4) if deep else (8, 1)
    background = (BACKGROUND[0] * unit, BACKGROUND[1] * unit, BACKGROUND[2] * unit)
    expected = reference(background, FRAME, rgba, corner, opacity, bits)
    for plane, wanted in zip(drawn(rgba, size, corner, strength=opacity, deep=deep), expected, strict=True):
        assert np.abs(plane - wanted).max() <= most


def test_color_of_transparent_pixels_appears_nowhere() -> None:
    """An opaque red half beside a transparent green one, enlarged: only red is blended."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = 255, 0, 0, 255
    rgba[:, 4:] = 0, 255, 0, 0
    planes = drawn(rgba, (24, 24), (4, 4))
    for plane, red, below in zip(planes, yuv_of("#ff0000", BT601, FRAME[1]), BACKGROUND, strict=True):
        assert min(red, below) <= plane.min()
        assert plane.max() <= max(red, below)


def test_matrix_and_range_are_those_of_the_frame() -> None:
    green = np.full((8, 8, 4), (0, 200, 0, 255), np.uint8)
    for color in (BT601, ColorTags(matrix="bt709", range="pc"), ColorTags(matrix="bt2020nc", transfer="smpte2084")):
        deep = color.is_hdr
        planes = drawn(green, (8, 8), (8, 8), deep=deep, color=color)
        expected = yuv_of("#00c800", color, FRAME[1], 10 if deep else 8)
        middle = np.array([planes[0][12, 12], planes[1][6, 6], planes[2][6, 6]], int)
        assert np.abs(middle - expected).max() <= 1
