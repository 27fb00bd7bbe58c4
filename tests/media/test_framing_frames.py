"""Pixels of framed clips: subpixel crops, smooth motion, colours, and equal results from both engines."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.clips import Clips, ffmpeg, turned
from tests.media.framed import FAITHFUL, crops, framed, request_for, run, speeds

from reel_modal import FramePipe, FrameReader
from reel_modal._rendering.framing import CropTrack, FramingRenderer, Layout
from reel_modal.errors import RequestError
from reel_modal.functions.framing_plan import FramingPlan
from reel_modal.media import probe
from reel_modal.media.frames import ColorTags, Planes, frame_bytes, plane_views
from reel_modal.schema import FramingRequest

F = Fraction
SIZE = (640, 360)
FPS = 25
NEAR_PX = 0.25
Point = tuple[float, float]


def spot(center: Point, size: tuple[int, int], radius: float) -> np.ndarray:
    """Return a soft bright spot, 0..1."""
    across = np.exp(-(((np.arange(size[0]) + 0.5 - center[0]) / radius) ** 2) / 2)
    down = np.exp(-(((np.arange(size[1]) + 0.5 - center[1]) / radius) ** 2) / 2)
    return down[:, None] * across


def marked(center: Point, origin: Point = (0.5, 1.0)) -> Planes:
    """Return planes with a spot at `center`, in luma and in chroma; the first sample has the position `origin`."""
    luma = np.round(30 + 200 * spot(center, SIZE, 5)).astype(np.uint8)
    # Sample i has the position 2i + origin, and spot() puts it at i + 1/2.
    place = tuple((at - first) / 2 + 0.5 for at, first in zip(center, origin, strict=True))
    chroma = np.round(60 + 150 * spot(place, (SIZE[0] // 2, SIZE[1] // 2), 4)).astype(np.uint8)  # type: ignore[arg-type]
    return luma, chroma, chroma


def centers(planes: Planes) -> tuple[Point, Point]:
    """Return the position of the spot in luma and in chroma, both in luma pixels."""

    def center(plane: np.ndarray) -> Point:
        weight = plane.astype(float) - float(np.median(plane))
        weight[weight < 8] = 0
        across, down = (np.arange(length) + 0.5 for length in plane.shape[::-1])
        return float((weight.sum(0) * across).sum() / weight.sum()), float(
            (weight.sum(1) * down).sum() / weight.sum()
        )

    x, y = center(planes[1])
    return center(planes[0]), (2 * x - 0.5, 2 * y)


def marker(seconds: float) -> Point:
    """Return the position of the marker in the clip."""
    return 320 + 150 * math.sin(1.3 * seconds), 180 + 70 * math.cos(1.9 * seconds)


@pytest.fixture(scope="module")
def marker_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a clip of two seconds with a circling spot."""
    path = tmp_path_factory.mktemp("marker") / "marker.mp4"
    with FramePipe(
        path, size=SIZE, fps=FPS, pixel_format="yuv420p", encoder="libx264", quality=1, preset="ultrafast"
    ) as pipe:
        for number in range(2 * FPS):
            pipe.write(marked(marker(number / FPS)))
    return path


ZOOM = crops((0, 40.3, 10, 560, 315), ("0.8", 130, 50.5, 400, 225), (2, 60.7, 20.1, 500, 281.25))


@pytest.mark.parametrize(
    "fields",
    [
        {"crop": ZOOM, "output_size": (640, 360)},
        {"crop": ZOOM, "output_size": (320, 180)},
        {"crop": ZOOM, "output_size": (960, 540)},
        {"crop": ZOOM, "output_size": (640, 360), "interpolation": "catmull_rom"},
        {"crop": crops((0, 40.3, 10, 450, 320), (2, 180.9, 30, 450, 320)), "output_size": (450, 320)},
        {"crop": crops((0, 41.2, 11.3, 560, 315)), "output_size": (640, 360)},
        {"crop": crops((0, 40, 20, 560, 280)), "output_size": (840, 420)},
        {"output_size": (480, 270)},
    ],
    ids=["same", "smaller", "larger", "spline", "pan", "still", "graph", "whole-graph"],
)
def test_crop_marker_position_exact_in_luma_and_chroma(
    marker_clip: Path, tmp_path: Path, fields: dict[str, object]
) -> None:
    result, path = framed(marker_clip, tmp_path, encode=FAITHFUL, **fields)
    track = CropTrack(request_for(marker_clip, path, **fields), SIZE)
    seen = 0
    with FrameReader(path, pixel_format="yuv420p") as reader:
        for frame in reader:
            at = F(frame.index, FPS)
            crop, (x, y) = track.at(at), marker(float(at))
            scale = result.size[0] / crop.width
            expected = ((x - crop.left) * scale, (y - crop.top) * scale)
            margin = 25 * scale  # else a part of the spot is cut off
            if not all(margin < place < side - margin for place, side in zip(expected, result.size, strict=True)):
                continue
            seen += 1
            for found in centers(frame.planes):
                assert found == pytest.approx(expected, abs=NEAR_PX)
    assert seen > 25


def position_errors(
    start: tuple[float, ...], end: tuple[float, ...], size: tuple[int, int], steps: int = 150
) -> np.ndarray:
    """Return the position errors of a spot, (steps, 4), while the crop moves slowly from `start` to `end`."""
    request = request_for(Path("in.mp4"), Path("out.mp4"), crop=crops((0, *start), (1, *end)), output_size=size)  # type: ignore[arg-type]
    track = CropTrack(request, SIZE)
    framing = FramingRenderer(track, Layout(F(1), size, "cover"), "blur", ColorTags(), (0.5, 1.0))
    place = (300.3, 170.7)
    planes, output = marked(place), np.empty(frame_bytes("yuv420p", size), np.uint8)
    errors = []
    for step in range(steps):
        at = F(step, steps)
        framing.render(planes, at, output)
        crop = track.at(at)
        expected = (place[0] - crop.left) * size[0] / crop.width, (place[1] - crop.top) * size[1] / crop.height
        found = centers(plane_views(output, "yuv420p", size))
        errors.append([found[0][0] - expected[0], found[0][1] - expected[1]])
        errors[-1] += [found[1][0] - expected[0], found[1][1] - expected[1]]
    return np.array(errors)


@pytest.mark.parametrize(
    ("start", "end", "size"),
    [
        ((100, 40, 360, 240), (104, 41, 360, 240), (360, 240)),
        ((100, 40, 360, 240), (104, 41, 360, 240), (180, 120)),
        ((100, 40, 360, 240), (104, 41, 360, 240), (720, 480)),
        ((100, 40, 363, 242), (101.5, 41, 357, 238), (360, 240)),
        ((100, 40, 363, 242), (101.5, 41, 357, 238), (120, 80)),
        ((100, 40, 363, 242), (101.5, 41, 357, 238), (720, 480)),
    ],
)
def test_crop_slow_pan_or_zoom_moves_smoothly(
    start: tuple[float, ...], end: tuple[float, ...], size: tuple[int, int]
) -> None:
    """Whole pixels would cause jumps of up to a pixel; resizing tends to stand still at a zoom factor of 1."""
    errors = position_errors(start, end, size)
    assert float(np.abs(errors).max()) < 0.1
    assert float(np.abs(np.diff(errors, axis=0)).max()) < 0.06


@pytest.mark.parametrize(
    ("turn", "filters"),
    [
        ((0, False), ()),
        ((0, True), ("hflip",)),
        ((90, False), ("transpose=cclock",)),
        ((180, False), ("hflip", "vflip")),
        ((270, False), ("transpose=clock",)),
        ((90, True), ("hflip", "transpose=cclock")),
    ],
)
@pytest.mark.parametrize("shift", [0, 1e-9])
def test_crop_rotated_source_keeps_chroma_aligned(
    marker_clip: Path, tmp_path: Path, turn: tuple[int, bool], filters: tuple[str, ...], shift: float
) -> None:
    """The picture is stored rotated, with the usual chroma positions, and turned upright by its matrix."""
    stored = tmp_path / "stored.mp4"
    words = ",".join(["format=yuv444p", *filters, "scale=out_h_chr_pos=0:out_v_chr_pos=128", "format=yuv420p"])
    lossless = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "1")
    ffmpeg("-i", marker_clip, "-frames:v", "3", "-vf", f"scale=in_h_chr_pos=0,{words}", *lossless, stored)
    source = turned(stored, tmp_path / "turned.mp4", turn[0], mirrored=turn[1])
    crop = crops((0, 80, 40, 480, 300), (9, 80 + shift, 40, 480, 300))
    result, path = framed(source, tmp_path, crop=crop, output_size=(768, 480), encode=FAITHFUL)
    assert result.engine == ("opencv-yuv420p" if shift else "ffmpeg-graph")
    with FrameReader(path, pixel_format="yuv420p") as reader:
        luma, chroma = centers(next(iter(reader)).planes)
    x, y = marker(0)
    assert luma == pytest.approx(((x - 80) * 1.6, (y - 40) * 1.6), abs=NEAR_PX)
    assert chroma == pytest.approx(luma, abs=0.2)


def pictures(path: Path) -> list[np.ndarray]:
    with FrameReader(path, pixel_format="yuv420p") as reader:
        return [frame.data.astype(np.int16) for frame in reader]


@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4"])
@pytest.mark.parametrize("size", [(120, 96), (150, 120), (200, 160), (320, 256)])
def test_engines_same_edit_make_same_pictures(clips: Clips, tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    """The same edit twice: a crop that moves by a billionth of a pixel is cropped frame by frame."""
    segments = speeds(("0.2", "0.6", "0.5"), ("0.6", "1.2", 2))
    edit = {"segments": segments, "trim_start_seconds": F("0.113"), "trim_end_seconds": F("1.3")}
    outputs = []
    for shift in (0, 1e-9):
        crop = crops((0, 8, 6, 150, 120), (9, 8 + shift, 6, 150, 120))
        result, path = framed(
            clips.get(name), tmp_path, crop=crop, output_size=size, audio=False, encode=FAITHFUL, **edit
        )
        outputs.append((result.engine, pictures(path)))
    (one, first), (other, second) = outputs
    assert (one, other) == ("ffmpeg-graph", "opencv-yuv420p")
    assert len(first) == len(second)
    differences = [np.abs(a - b) for a, b in zip(first, second, strict=True)]
    assert max(float(difference.mean()) for difference in differences) < 2
    assert max(float(np.percentile(difference, 99)) for difference in differences) < 16


def test_result_names_engine_chosen_by_plan(clips: Clips) -> None:
    def engine(name: str, **fields: object) -> str:
        from reel_modal.settings import Settings

        request = request_for(clips.get(name), Path("/out.mp4"), **fields)
        return FramingPlan.of(request, probe(clips.get(name)), Settings.from_env()).engine

    still = crops((0, 20, 10, 90, 160))
    slowed = speeds((0, 1, "0.5"))
    assert engine("25.mp4", crop=still) == "ffmpeg-graph"
    assert engine("25.mp4", crop=still, segments=slowed) == "ffmpeg-graph"
    assert engine("25.mp4", crop=still, segments=slowed, slow_motion="blend") == "opencv-yuv420p"
    assert engine("25.mp4", crop=crops((0, 20, 10, 90, 160), (1, 30, 10, 90, 160))) == "opencv-yuv420p"
    assert engine("25.mp4", crop=crops((0, 20.5, 10.5, 90, 160))) == "opencv-yuv420p"
    assert engine("25.mp4", crop=still, fit="contain", output_size=(200, 160)) == "opencv-yuv420p"
    assert engine("stream.ts", crop=still) == "opencv-yuv420p"  # its times may jump


@pytest.mark.parametrize("background", ["blur", "#ff0000"])
def test_contain_shows_whole_crop_on_background(marker_clip: Path, tmp_path: Path, background: str) -> None:
    fields = {"crop": crops((0, 0, 0, 640, 360)), "fit": "contain", "background": background}
    result, path = framed(marker_clip, tmp_path, output_size=(360, 640), encode=FAITHFUL, **fields)
    assert result.size == (360, 640)
    with FrameReader(path, pixel_format="yuv420p") as reader:
        luma, *chroma = (plane.copy() for plane in next(iter(reader)).planes)
    # 640 x 360 becomes 360 x 202, centered at an even row.
    top, bottom = 218, 420
    shown = (luma[top:bottom], *(plane[top // 2 : bottom // 2] for plane in chroma))
    assert centers(shown)[0] == pytest.approx([marker(0)[0] * 360 / 640, marker(0)[1] * 202 / 360], abs=NEAR_PX)
    beside = [plane[: top // 2 - 4] for plane in (luma[::2, ::2], *chroma)]
    if background == "#ff0000":
        assert [float(plane.mean()) for plane in beside] == pytest.approx([81, 90, 240], abs=2)  # red in BT.601
    else:  # the crop, enlarged to fill the height and blurred
        assert [float(plane.mean()) for plane in beside] == pytest.approx([30, 60, 60], abs=2)
        assert float(np.abs(np.diff(luma[: top - 8].astype(float), axis=0)).max()) < 4


def test_crop_outside_frame_moved_with_note_or_refused(marker_clip: Path, tmp_path: Path) -> None:
    outside = crops((0, 600, -20, 100, 100), (1, 10, 10, 9000, 9000))
    result, _ = framed(marker_clip, tmp_path, crop=outside, output_size=(64, 64))
    (note,) = result.degraded
    assert note.code == "crop_moved"
    assert str(note) == "2 of 2 crops extended beyond the 640x360 frame and were moved inside"
    request = request_for(marker_clip, tmp_path / "refused.mp4", crop=outside, outside="refuse")
    with pytest.raises(RequestError, match=r"^crop\[0\].x: extends from 600 to 700; the frame is 640 pixels wide"):
        run(request, tmp_path / "work")
    assert not (tmp_path / "refused.mp4").exists()


def numbered(folder: Path, frames: int = 50, fps: int = 25) -> Path:
    """Make a clip that encodes the number of each picture in its brightness."""
    path = folder / "numbered.mp4"
    with FramePipe(path, size=(32, 32), fps=fps, pixel_format="gray8", encoder="libx264", quality=1) as pipe:
        for number in range(frames):
            pipe.write(np.full((32, 32), 16 + 4 * number, np.uint8))
    return path


def numbers(path: Path) -> list[float]:
    with FrameReader(path, pixel_format="gray8") as reader:
        return [(float(frame.image.mean()) - 16) / 4 for frame in reader]


@pytest.mark.parametrize("shift", [0, 1e-9])
@pytest.mark.parametrize(
    ("segments", "start", "end"),
    [
        ([(0, 1, "0.5"), (1, 2, 2)], 0, None),
        ([("0.2", "0.4", "0.25"), ("0.4", "0.6", 4), ("1.1", "1.4", "0.1")], "0.12", "1.88"),
        ([(0, 2, 10)], 0, None),
        ([(0, "0.2", "0.1")], 0, "0.2"),
    ],
)
def test_segment_borders_lose_or_repeat_no_picture(
    tmp_path: Path, segments: list[tuple[object, object, object]], start: object, end: object, shift: float
) -> None:
    source = numbered(tmp_path)
    fields = {
        "segments": speeds(*segments),
        "trim_start_seconds": F(str(start)),
        "trim_end_seconds": None if end is None else F(str(end)),
        "crop": crops((0, 0, 0, 30, 30), (9, shift, 0, 30, 30)),
        "output_size": (32, 32),
    }
    result, path = framed(source, tmp_path, encode=FAITHFUL, **fields)
    assert result.engine == ("opencv-yuv420p" if shift else "ffmpeg-graph")
    line = request_for(source, path, **fields).timeline(F(2))
    # Each frame shows the last picture whose nearest frame is at or before it.
    first_frames = [line.first_frame(F(number, 25), F(25)) for number in range(50)]
    shown = [max(n for n in range(50) if first_frames[n] <= frame) for frame in range(result.frames)]
    assert [round(number) for number in numbers(path)] == shown
    assert result.frames == round(line.duration_seconds * 25)


def test_blend_mixes_both_neighbor_pictures(tmp_path: Path) -> None:
    source = numbered(tmp_path)
    slowed = speeds((0, 1, "0.25"))
    request = request_for(
        source,
        tmp_path / "out.mp4",
        segments=slowed,
        slow_motion="blend",
        output_size=(32, 32),
        encode=FAITHFUL,
    )
    run(request, tmp_path / "work")
    levels = numbers(tmp_path / "out.mp4")
    assert levels[:96] == pytest.approx([n / 4 for n in range(96)], abs=0.3)
    assert all(after > before for before, after in pairwise(levels[:96]))
    repeated = dataclasses.replace(request, slow_motion="repeat")
    run(repeated, tmp_path / "work")
    assert [round(number) for number in numbers(tmp_path / "out.mp4")][2:10] == [0, 0, 1, 1, 1, 1, 2, 2]


def test_rotate_rotated_source_adds_up(marker_clip: Path, tmp_path: Path) -> None:
    x, y = marker(0)
    for degrees, size, place in ((90, (360, 640), (360 - y, x)), (180, SIZE, (640 - x, 360 - y))):
        for crop in ((), crops((0, 0, 0, *size), (9, 0, 0, size[0], size[1] - 1e-9))):
            fields = {"rotation_degrees": degrees, "output_size": size, "crop": crop}
            _, path = framed(marker_clip, tmp_path, encode=FAITHFUL, **fields)
            with FrameReader(path, pixel_format="yuv420p") as reader:
                for found in centers(next(iter(reader)).planes):
                    assert found == pytest.approx(place, abs=NEAR_PX)


def test_app_request_gives_requested_size(marker_clip: Path, tmp_path: Path) -> None:
    def size(**fields: object) -> tuple[int, int]:
        return framed(marker_clip, tmp_path, trim_end_seconds=F(1, 5), **fields)[0].size

    assert size() == (810, 1440)
    assert size(aspect=F(9, 16)) == (202, 360)
    assert size(aspect=F(9, 16), fit="contain") == (640, 1138)
    assert size(output_size=(16, 16), crop=crops((0, 5, 5, 3, 3))) == (16, 16)
    assert isinstance(
        FramingRequest.parse({**request_for(marker_clip, tmp_path / "out.mp4").to_dict()}), FramingRequest
    )
