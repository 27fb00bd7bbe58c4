"""Peak memory of upscaling is independent of the clip's length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.clips import made_clip
from tests.networks import repeating

SHORT_SECONDS, LONG_SECONDS = 0.4, 1.4  # 10 and 35 frames
# The 25 additional frames of the long clip would take 35 MB at 1280x720 if they were kept.
MOST_MORE_MB = 15

# A separate process, because earlier tests have set the peak of this one. The short clip runs first, so that one-time
# allocations are not counted.
PROGRAM = """
import hashlib, resource, sys
from pathlib import Path
from reel_modal import ModelSource, Settings, UpscaleRequest, EncodeOptions
from reel_modal.functions.context import JobContext
from reel_modal.storage import FolderStorage
from tests.run_function import run_function

model, folder, *clips = sys.argv[1:]
source = ModelSource(model, hashlib.sha256(Path(model).read_bytes()).hexdigest())
settings = Settings(models={"repeating": source})
for clip in clips:
    request = UpscaleRequest(
        job_id="j", user_id="u", input_key=clip[1:], output_key=clip[1:] + ".large.mp4", scale=2, model="repeating",
        provider="cpu", encode=EncodeOptions(encoder="libx264", preset="slow"),  # slower than the network
    )
    result = run_function(request, JobContext(storage=FolderStorage(Path("/")), workdir=Path(folder), settings=settings))
    print(result.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_upscale_long_clip_uses_no_more_memory_than_short(tmp_path: Path) -> None:
    network = tmp_path / "repeating.onnx"  # far faster than the encoder, so that frames would accumulate
    network.write_bytes(repeating(1).SerializeToString())
    clips = [
        str(made_clip(tmp_path / f"{seconds}.mp4", size=(640, 360), seconds=seconds))
        for seconds in (SHORT_SECONDS, LONG_SECONDS)
    ]
    command = [sys.executable, "-c", PROGRAM, str(network), str(tmp_path), *clips]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (short, at_first), (long, at_last) = (map(float, line.split()) for line in done.stdout.splitlines())
    assert (short, long) == (10, 35)
    assert at_last - at_first < MOST_MORE_MB
