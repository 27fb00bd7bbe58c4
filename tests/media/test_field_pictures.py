"""Clips whose fields are coded apart (PAFF): a packet may hold half a picture, and is no picture of its own."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import ffmpeg
from tests.media import field_pictures as coded
from tests.media.rendered import rendered

from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.media import probe
from reel_modal.media.probing import picture_shown_at
from reel_modal.media.second_fields import SecondFields
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest, OverlayRequest, UpscaleRequest

COUNT = 50
FRAME = Fraction(1, coded.RATE)
FULL = EncodeOptions(smart=False, preset="ultrafast", quality=4)
CROP = {"y": 0, "width": 96, "height": 64}
MOVING = (CropKeyframe(time_seconds=0, x=0, **CROP), CropKeyframe(time_seconds=9, x=1e-9, **CROP))  # type: ignore[arg-type]
EDITS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "overlay": (OverlayRequest, {"regions": (), "encode": FULL}),
    "smart": (OverlayRequest, {"regions": ()}),
    "source": (OverlayRequest, {"regions": (), "encode": FULL, "rate": "source"}),
    "graph": (FramingRequest, {"output_size": (48, 32), "encode": FULL}),
    "moving": (FramingRequest, {"output_size": (96, 64), "crop": MOVING, "encode": FULL}),
    "upscale": (UpscaleRequest, {"scale": 2, "encode": FULL}),
}


def h264(path: Path, order: coded.Order = "tff", *, together: bool = False) -> Path:
    return coded.write(path, coded.h264(COUNT, order), together=together)


def mpeg2(path: Path) -> Path:
    """MPEG-2, of which libav's parser puts the two fields into one packet."""
    clip = coded.write(path.with_suffix(".mov"), coded.mpeg2(COUNT), together=True, raw_format="m2v")
    if path.suffix != ".mov":
        ffmpeg("-i", clip, "-c", "copy", path)
    return path


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mov", ".mkv"])
def test_pictures_of_two_packets_are_counted_once(suffix: str, together: bool, tmp_path: Path) -> None:
    media = probe(h264(tmp_path / f"in{suffix}", together=together), scan=True)
    assert media.scan is not None
    assert (media.interlaced, media.constant_rate, media.fps) == (True, True, coded.RATE)
    assert (media.scan.frame_count, media.scan.duration_seconds) == (COUNT, COUNT * FRAME)
    assert media.frame_count == COUNT
    moment = media.start_seconds + 10 * FRAME
    assert picture_shown_at(media, moment + FRAME * 3 / 4) == moment


@pytest.mark.parametrize("suffix", [".ts", ".mov", ".mkv", ".mpg"])
def test_pictures_of_mpeg2_are_counted_once(suffix: str, tmp_path: Path) -> None:
    media = probe(mpeg2(tmp_path / f"in{suffix}"), scan=True)
    assert media.scan is not None
    assert (media.interlaced, media.fps, media.scan.frame_count) == (True, coded.RATE, COUNT)


@pytest.mark.parametrize("suffix", [".ts", ".mp4"])
@pytest.mark.parametrize("edit", EDITS)
def test_fields_of_two_packets_become_one_picture(edit: str, suffix: str, tmp_path: Path) -> None:
    kind, fields = EDITS[edit]
    result = rendered(kind, h264(tmp_path / f"in{suffix}"), tmp_path / "out.mp4", **fields)
    made = probe(tmp_path / "out.mp4", scan=True)
    assert made.scan is not None
    assert (result.frames, result.fps, made.scan.frame_count) == (COUNT, coded.RATE, COUNT)
    assert made.scan.duration_seconds == COUNT * FRAME
    assert "deinterlaced" in {note.code for note in result.degraded}


@pytest.mark.parametrize("suffix", [".ts", ".mov"])
def test_fields_of_mpeg2_become_one_picture(suffix: str, tmp_path: Path) -> None:
    result = rendered(OverlayRequest, mpeg2(tmp_path / f"in{suffix}"), tmp_path / "out.mp4", regions=())
    assert (result.frames, result.fps, result.duration_seconds) == (COUNT, coded.RATE, COUNT * FRAME)
    assert "deinterlaced" in {note.code for note in result.degraded}


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("name", ["h264.ts", "h264.mp4", "mpeg2.mov"])
def test_each_field_becomes_a_picture_in_its_order(name: str, order: coded.Order, tmp_path: Path) -> None:
    if name == "mpeg2.mov":
        source = coded.write(tmp_path / name, coded.mpeg2(COUNT, order), together=True, raw_format="m2v")
    else:
        source = h264(tmp_path / name, order)
    places, times = [], []
    with FrameReader(source, pixel_format="gray8", deinterlace="field", decoder="in_process") as reader:
        for frame in reader:
            lit = frame.image[coded.HEIGHT // 2] > 128
            places.append(int(np.flatnonzero(lit & ~np.roll(lit, 1))[0]))
            times.append(frame.pts_seconds)
    assert len(places) == 2 * COUNT
    assert {round(float(later - time), 3) for time, later in pairwise(times)} == {0.02}
    steps = set((np.diff(places) % coded.WIDTH).tolist())
    assert steps <= ({0, 8, 16} if name == "mpeg2.mov" else {5, 6, 7})  # blocks of MPEG-2 are flat


@pytest.mark.parametrize("suffix", [".ts", ".mp4", ".mkv"])
def test_frames_and_fields_in_turns_are_evenly_spaced(suffix: str, tmp_path: Path) -> None:
    frames = coded.h264(COUNT, whole=lambda number: number % 5 == 2)
    media = probe(coded.write(tmp_path / f"in{suffix}", frames, together=False), scan=True)
    assert media.scan is not None
    assert (media.fps, media.constant_rate, media.scan.frame_count) == (coded.RATE, True, COUNT)
    result = rendered(OverlayRequest, media.path, tmp_path / "out.mp4", regions=())
    assert (result.frames, result.duration_seconds) == (COUNT, COUNT * FRAME)


def test_trim_of_fields_begins_with_a_picture(tmp_path: Path) -> None:
    kept = {"trim_start_seconds": Fraction("0.4"), "trim_end_seconds": Fraction("1.2"), "output_size": (96, 64)}
    result = rendered(FramingRequest, h264(tmp_path / "in.ts"), tmp_path / "out.mp4", encode=FULL, **kept)
    assert (result.frames, result.duration_seconds) == (20, Fraction("0.8"))


def test_field_rate_of_an_output_is_twice_the_rate(tmp_path: Path) -> None:
    encode = EncodeOptions(deinterlace="field", preset="ultrafast")
    result = rendered(OverlayRequest, h264(tmp_path / "in.ts"), tmp_path / "out.mp4", regions=(), encode=encode)
    assert (result.frames, result.fps) == (2 * COUNT, 2 * coded.RATE)


@given(record=st.binary(max_size=80), packets=st.lists(st.binary(max_size=80), max_size=5), cut=st.integers(0, 60))
def test_damaged_headers_are_no_fields(record: bytes, packets: list[bytes], cut: int) -> None:
    first, second = coded.h264(1)[0]
    fields = SecondFields(record)
    for data in (*packets, first[:cut], b"\0\0\1" + record):
        assert fields.take(memoryview(data)) in {True, False}
    known = SecondFields(b"")
    assert [known.take(memoryview(data)) for data in (first, second, second, first)] == [False, True, False, True]
