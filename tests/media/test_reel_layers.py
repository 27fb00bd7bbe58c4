"""Layers of reels: the right pixels on the right frames, and nothing published if an image is not accepted."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.clips import ffmpeg
from tests.media.layer_images import ROTATED, chunk, png, png_of, random_image, reference, webp_of
from tests.media.reels import assemble, lumas, numbered, reel_request

from reel_modal import FrameReader, estimate, probe
from reel_modal.errors import InvalidMediaError, ObjectNotFoundError, RequestError
from reel_modal.functions.builtin import assemble_reel
from reel_modal.functions.inputs import media_of
from reel_modal.functions.runner import run_job
from reel_modal.media.frames import U8Array
from reel_modal.schema import ReelRequest
from reel_modal.settings import Settings

SIZE = (64, 48)
CLIPS = [{"input_key": "a.mp4"}, {"input_key": "b.mp4"}]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder with two clips of ten frames, which name their frames by their luma, and a logo of 20 x 14 pixels."""
    numbered(tmp_path / "a.mp4", 20, 10)
    numbered(tmp_path / "b.mp4", 60, 10)
    (tmp_path / "logo.png").write_bytes(png_of(random_image((20, 14))))
    return tmp_path


def with_layers(*layers: dict[str, Any], **fields: Any) -> ReelRequest:
    return reel_request(CLIPS, layers=[{"input_key": "logo.png", **layer} for layer in layers], **fields)


def frames(path: Path) -> list[tuple[U8Array, ...]]:
    with FrameReader(path, pixel_format="yuv420p") as reader:
        return [tuple(plane.copy() for plane in frame.planes) for frame in reader]


def visible(folder: Path) -> list[bool]:
    """Return whether each frame has more than one luma, as the frames of the clips do not."""
    return [bool(np.ptp(planes[0]) > 0) for planes in frames(folder / "reel.mp4")]


def test_pixels_and_fades_are_those_of_the_reference(store: Path) -> None:
    layer = {"width": 20 / 64, "anchor": "center", "x": 0.5, "y": 0.5, "start": "0.2", "end": "0.6", "opacity": 0.8}
    assemble(store, with_layers({**layer, "fade_in": "0.12", "fade_out": "0.08"}))
    rendered = frames(store / "reel.mp4")
    assert len(rendered) == 20
    rgba = random_image((20, 14))
    shares = {5: 0.25, 6: 0.5, 7: 0.75, 13: 2 / 3, 14: 1 / 3} | dict.fromkeys(range(8, 13), 1.0)
    for number, planes in enumerate(rendered):
        luma = 20 + number if number < 10 else 50 + number
        expected = reference((luma, 128, 128), SIZE, rgba, (22, 16), 0.8 * shares.get(number, 0.0))
        for plane, wanted in zip(planes, expected, strict=True):
            assert np.abs(plane - wanted).max() <= 1.6


def test_layer_of_no_end_lasts_and_repeated_frames_get_it_once(store: Path) -> None:
    """At twice the rate each source frame is shown twice; a layer drawn in place would darken the second one."""
    once = {"width": 20 / 64, "opacity": 0.5}
    assemble(store, with_layers({**once, "start": "0.4"}, rate=50))
    assert visible(store) == [False] * 20 + [True] * 20
    for number, planes in enumerate(frames(store / "reel.mp4")[20:]):
        expected = reference((60 + number // 2, 128, 128), SIZE, random_image((20, 14)), (0, 0), 0.5)
        assert all(np.abs(plane - wanted).max() <= 1.6 for plane, wanted in zip(planes, expected, strict=True))


@pytest.mark.parametrize(
    ("place", "box"),
    [
        ({"anchor": "top_left"}, (0, 0, 20, 14)),
        ({"anchor": "bottom_right"}, (44, 34, 64, 48)),
        ({"anchor": "top"}, (22, 0, 42, 14)),
        ({"anchor": "right", "x": 0.75}, (28, 16, 48, 30)),
        ({"anchor": "center", "x": 1, "y": 0}, (54, 0, 64, 6)),
        ({"anchor": "left", "width": 0.625}, (0, 10, 40, 38)),
    ],
)
def test_anchor_place_and_size(store: Path, place: dict[str, Any], box: tuple[int, int, int, int]) -> None:
    (store / "logo.png").write_bytes(png_of(np.full((14, 20, 4), 255, np.uint8)))
    assemble(store, with_layers({"width": 20 / 64, **place}))
    expected = np.full((48, 64), 20, np.uint8)
    expected[box[1] : box[3], box[0] : box[2]] = 235
    np.testing.assert_array_equal(frames(store / "reel.mp4")[0][0], expected)


def test_later_layers_are_above_earlier_ones_and_webp_is_read(store: Path) -> None:
    (store / "logo.png").write_bytes(png_of(np.full((4, 4, 4), 255, np.uint8)))
    webp_of(np.full((4, 4, 4), (0, 0, 0, 255), np.uint8), store / "black.webp")
    assemble(store, with_layers({"width": 0.5}, {"input_key": "black.webp", "width": 0.25}))
    luma = frames(store / "reel.mp4")[0][0]
    assert (luma[0, 0], luma[0, 20], luma[0, 40]) == (16, 235, 20)


def test_transition_is_below_the_layer(store: Path) -> None:
    (store / "logo.png").write_bytes(png_of(np.full((4, 4, 4), 255, np.uint8)))
    fade = {"kind": "fade_black", "duration": "0.2"}
    assemble(store, reel_request(CLIPS, fade, layers=[{"input_key": "logo.png"}]))
    assert {int(planes[0][0, 0]) for planes in frames(store / "reel.mp4")} == {235}


def test_deep_frames_keep_ten_bits(store: Path) -> None:
    ffmpeg(
        *("-i", store / "a.mp4", "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast"),
        *("-x265-params", "log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"),
        *("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc"),
        *("-tag:v", "hvc1", store / "hdr.mp4"),
    )
    (store / "logo.png").write_bytes(png_of(np.full((4, 4, 4), 255, np.uint8)))
    encode = {"encoder": "libx265", "quality": 0, "preset": "ultrafast", "hdr": "keep"}
    request = reel_request([{"input_key": "hdr.mp4"}], encode=encode, layers=[{"input_key": "logo.png"}])
    result = assemble(store, request)
    assert result.engine == "opencv-yuv420p10le"
    with FrameReader(store / "reel.mp4", pixel_format="yuv420p10le") as reader:
        luma = next(iter(reader)).deep_planes[0]
    # Graphics white, 203 cd/m2, is 58 % of the PQ signal (ITU-R BT.2408).
    assert abs(int(luma[4, 4]) - (64 + 0.58 * 876)) <= 3


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"text", "not a PNG or WebP image"),
        (png((1, 1), bits=16, rows=bytes(9)), "16 bits"),
        (png((1, 1), rows=bytes(5), extra=chunk(b"acTL", bytes(8))), "animated"),
        (png((1, 1), rows=bytes(5), extra=chunk(b"eXIf", ROTATED)), "EXIF"),
        (png((50000, 50000)), "50000 x 50000 pixels"),
        (bytes((32 << 20) + 1), "33554433 bytes; at most"),
    ],
)
def test_bad_image_is_named_and_nothing_published(store: Path, data: bytes, words: str) -> None:
    (store / "bad.png").write_bytes(data)
    with pytest.raises(InvalidMediaError, match=rf"^layers\[2\] \('bad.png'\): .*{words}"):
        assemble(store, with_layers({}, {}, {"input_key": "bad.png"}))
    assert not (store / "reel.mp4").exists()
    assert list((store / "work").iterdir()) == []


def test_missing_image_is_named(store: Path) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"layers\[1\] \('none.png'\)"):
        assemble(store, with_layers({}, {"input_key": "none.png"}))
    assert not (store / "reel.mp4").exists()


@pytest.mark.parametrize(
    ("layer", "path", "words"),
    [
        ({"start": 1}, "layers[1].start_seconds", "the reel ends at 0.8"),
        ({"anchor": "left", "x": 1}, "layers[1].x", "outside of the frame"),
        ({"anchor": "bottom", "y": 0, "width": 20 / 64}, "layers[1].y", "outside of the frame"),
        ({"fade_in": "0.5", "fade_out": "0.4"}, "layers[1].fade_out_seconds", "shown for 0.8 s"),
        ({"input_key": "tall.png"}, "layers[1].width", "130 pixels high"),
    ],
)
def test_layer_that_does_not_fit_is_refused(store: Path, layer: dict[str, Any], path: str, words: str) -> None:
    (store / "tall.png").write_bytes(png_of(np.full((200, 20, 4), 255, np.uint8)))
    with pytest.raises(RequestError, match=words) as caught:
        assemble(store, with_layers({}, layer))
    assert caught.value.path == path
    assert not (store / "reel.mp4").exists()


def test_layers_that_cover_more_than_eight_frames_are_refused(store: Path) -> None:
    (store / "logo.png").write_bytes(png_of(np.full((3, 4, 4), 255, np.uint8)))
    full = {"width": 1}
    assemble(store, with_layers(*[full] * 8))
    with pytest.raises(RequestError, match=r"layers\[8\]\.width: makes the layers larger than 8 frames"):
        assemble(store, with_layers(*[full] * 9, output_key="other.mp4"))


def test_estimate_probes_only_the_clips(store: Path) -> None:
    request = with_layers({})
    assert list(request.input_keys().values()) == ["a.mp4", "b.mp4", "logo.png"]
    assert list(request.clip_keys().values()) == ["a.mp4", "b.mp4"]
    expected = estimate(request, [probe(store / key) for key in request.clip_keys().values()])
    assert expected.frames == 20
    headers = media_of(request, lambda key: probe(store / key))
    assert isinstance(headers, tuple)
    assert [media.path.name for media in headers] == ["a.mp4", "b.mp4"]


def test_reel_without_visible_layer_has_the_same_frames(store: Path) -> None:
    assemble(store, with_layers({"opacity": 0}))
    assert lumas(store / "reel.mp4") == [*range(20, 30), *range(60, 70)]


def test_moments_are_rounded_to_the_nearest_frame(store: Path) -> None:
    assemble(store, with_layers({"start": Fraction(9, 100), "end": Fraction(22, 100)}))
    assert visible(store) == [2 <= number < 6 for number in range(20)]


def test_reuse_notices_a_change_of_an_image(store: Path) -> None:
    request = with_layers({}, store={"input_scope": "global", "output_scope": "global", "existing": "reuse"})

    def made_from(job_id: str) -> object:
        payload = replace(request, job_id=job_id).to_dict()
        return run_job(assemble_reel, payload, settings=Settings(store_url=store.as_uri()), send=lambda _: None)[
            "reused_from"
        ]

    assert (made_from("j1"), made_from("j2")) == (None, "j1")
    (store / "logo.png").write_bytes(png_of(random_image((24, 10), seed=1)))
    assert made_from("j3") is None
