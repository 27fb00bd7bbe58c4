"""Edits of single clips in a reel: crop, speed, rotation and highlights, by the kernels of the other functions."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from tests.clips import Clips
from tests.media.beats import BRIGHT, DARK, make_beats
from tests.media.reels import LOSSLESS, RATE_HZ, assemble, lumas, numbered, reel_request, samples_of
from tests.run_function import run_function

from reel_modal import FrameReader
from reel_modal.functions.context import JobContext
from reel_modal.media.frames import U8Array
from reel_modal.schema import FramingRequest, OverlayRequest
from reel_modal.schema.requests import Request
from reel_modal.storage import Storage

F = Fraction
KEYS = {
    "job_id": "j",
    "user_id": "u",
    "input_key": "a.mp4",
    "store": {"input_scope": "global", "output_scope": "global"},
    "encode": LOSSLESS,
}
MOVING = [
    {"time": 0, "x": 0, "y": 0, "width": 160, "height": 90},
    {"time": 1, "x": 140, "y": 60, "width": 120, "height": 100},
]
SLOW = [{"start": "0.2", "end": "0.6", "speed": "0.5"}]
REGION = {
    "id": "r",
    "startTime": "0.3",
    "endTime": "0.7",
    "keyframes": [
        {"time": "0.3", "x": 100, "y": 90, "radiusX": 50, "radiusY": 40},
        {"time": "0.7", "x": 200, "y": 80, "radiusX": 50, "radiusY": 40},
    ],
}


def frames(path: Path) -> list[U8Array]:
    with FrameReader(path, pixel_format="yuv420p") as reader:
        return [frame.data.copy() for frame in reader]


def rendered(folder: Path, request: Request[object]) -> list[U8Array]:
    """Return the frames that another function makes."""
    workdir = folder / "work"
    workdir.mkdir(exist_ok=True)
    run_function(request, JobContext(storage=Storage.from_url(folder.as_uri()), workdir=workdir))
    return frames(folder / request.output_key)


def equal(one: list[U8Array], other: list[U8Array]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_crop_speed_and_rotation_are_those_of_process_framing(clips: Clips, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    edit = {"crop": MOVING, "segments": SLOW, "slow_motion": "blend", "rotation_degrees": 180, "trim_start": "0.1"}
    size = {"output_width": 96, "output_height": 64}
    expected = rendered(tmp_path, FramingRequest.parse({**KEYS, **edit, **size, "output_key": "framed.mp4"}))
    plain = {"input_key": "a.mp4", "trim_end": "0.2"}
    result = assemble(tmp_path, reel_request([plain, {"input_key": "a.mp4", **edit}], **size))
    assert (len(expected), result.frames) == (32, 37)
    assert equal(frames(tmp_path / "reel.mp4")[5:], expected)


def test_highlights_are_those_of_render_overlay_and_follow_speeds(clips: Clips, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    expected = rendered(tmp_path, OverlayRequest.parse({**KEYS, "regions": [REGION], "output_key": "overlaid.mp4"}))
    drawn = {"input_key": "a.mp4", "regions": [REGION]}
    assemble(tmp_path, reel_request([{"input_key": "a.mp4"}, drawn]))
    reel = frames(tmp_path / "reel.mp4")
    assert equal(reel[25:], expected)
    assert not equal(reel[:25], expected)
    slow = {**drawn, "segments": [{"start": 0, "end": 1, "speed": "0.5"}]}
    result = assemble(tmp_path, reel_request([slow], output_key="slow.mp4"))
    assert equal(frames(tmp_path / "slow.mp4")[::2], expected)
    assert not [note for note in result.degraded if note.code == "regions_not_drawn"]


def test_region_outside_of_kept_part_is_reported(clips: Clips, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    result = assemble(tmp_path, reel_request([{"input_key": "a.mp4", "trim_end": "0.3", "regions": [REGION]}]))
    assert [str(note) for note in result.degraded if note.code == "regions_not_drawn"] == [
        "clips[0] ('a.mp4'): regions outside of the kept part were not drawn: 'r'"
    ]


def test_size_is_that_of_the_turned_crop_of_the_first_clip(tmp_path: Path) -> None:
    numbered(tmp_path / "a.mp4", 20, 5)
    crop = [{"time": 0, "x": 8, "y": 4, "width": 32, "height": 56}]
    result = assemble(tmp_path, reel_request([{"input_key": "a.mp4", "rotation_degrees": 90, "crop": crop}]))
    assert result.size == (32, 56)
    turned = assemble(tmp_path, reel_request([{"input_key": "a.mp4", "rotation_degrees": 90}], output_key="b.mp4"))
    assert turned.size == (48, 64)


def test_sound_of_a_slowed_clip_stays_with_its_frames(tmp_path: Path) -> None:
    make_beats(tmp_path / "a.mp4", F(25), seconds=2)
    slow = {"input_key": "a.mp4", "segments": [{"start": 0, "end": 2, "speed": "0.5"}]}
    fade = {"kind": "crossfade", "duration": "0.2"}
    assemble(tmp_path, reel_request([{"input_key": "a.mp4"}, slow], fade))
    bright = np.array(lumas(tmp_path / "reel.mp4")) > (DARK + BRIGHT) // 2
    flashes = [number / 25 for number in range(1, len(bright)) if bright[number] and not bright[number - 1]]
    loud = np.convolve(np.abs(samples_of(tmp_path / "reel.mp4")), np.ones(96) / 96, "same") > 0.12
    begins = np.flatnonzero(loud[1:] & ~loud[:-1]) / RATE_HZ
    assert len(flashes) == 4
    for flash in flashes:
        assert np.abs(begins - flash).min() <= 0.02
