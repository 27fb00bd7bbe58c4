"""Peak memory of framing, in Python and its ffmpeg processes, is independent of the clip's length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.clips import made_clip
from tests.local_files import key_of

SIZE = (640, 360)
SHORT_SECONDS, LONG_SECONDS = 3, 9  # 75 and 225 frames, more than any encoder buffers
# The 150 additional frames of the long clip would take 52 MB if they were kept, their audio 2 MB.
MOST_MORE_MB = 25

# One process for each clip, because a peak never decreases. That of the children is the largest ffmpeg's.
PROGRAM = """
import json, resource, sys
from pathlib import Path
from reel_modal import FramingRequest
from reel_modal.functions.context import JobContext
from reel_modal.storage import FolderStorage
from tests.run_function import run_function

asked, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
result = run_function(FramingRequest.parse(asked), JobContext(storage=FolderStorage(Path("/")), workdir=folder))
peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([result.engine, result.frames, *peaks]))
"""

STILL = [{"time": 0, "x": 200, "y": 0, "width": 202, "height": 360}]
MOVING = [{"time": at, "x": 100.5 + 20 * at, "y": 0, "width": 202.5, "height": 360} for at in (0, LONG_SECONDS)]


class Framed(NamedTuple):
    """The output of PROGRAM: the peaks in MB, of Python and of its largest ffmpeg."""

    engine: str
    frames: int
    peak: float
    peak_of_ffmpeg: float


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("memory")
    return [
        made_clip(folder / f"{seconds}.mp4", size=SIZE, seconds=seconds, audio_seconds=seconds)
        for seconds in (SHORT_SECONDS, LONG_SECONDS)
    ]


def frame(clip: Path, folder: Path, crop: list[dict[str, float]], speed: float | None) -> Framed:
    request_fields: dict[str, object] = {
        "jobId": "j",
        "userId": "u",
        "inputKey": key_of(clip),
        "outputKey": key_of(folder / "out.mp4"),
        "cropKeyframes": crop,
        "outputWidth": 404,
        "outputHeight": 720,
        "encode": {"encoder": "libx264", "preset": "ultrafast"},
    }
    if speed is not None:
        request_fields["segments"] = [{"start": 0.5, "end": int(clip.stem) - 0.5, "speed": speed}]
    command = [sys.executable, "-c", PROGRAM, json.dumps(request_fields), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Framed(*json.loads(done.stdout))


@pytest.mark.parametrize(
    ("crop", "speed", "engine"),
    [(STILL, None, "ffmpeg-graph"), (MOVING, None, "opencv-yuv420p"), (MOVING, 1.5, "opencv-yuv420p")],
    ids=["still", "moving", "retimed"],
)
def test_framing_long_clip_uses_no_more_memory_than_short(
    clips: list[Path], tmp_path: Path, crop: list[dict[str, float]], speed: float | None, engine: str
) -> None:
    short, long = (frame(clip, tmp_path, crop, speed) for clip in clips)
    assert short.engine == long.engine == engine
    assert long.frames > 150
    assert long.peak - short.peak < MOST_MORE_MB
    assert long.peak_of_ffmpeg - short.peak_of_ffmpeg < MOST_MORE_MB
