"""A function of a host that draws on each frame: its long outputs are stored in segments."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
from tests.clips import ffmpeg
from tests.media import segmented_jobs
from tests.media.segmented_jobs import Jobs, check_leftovers
from tests.own_video import TintRequest, drawn

from reel_modal._segments import SegmentStore
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.functions.catalog import MODULES_VARIABLE
from reel_modal.functions.context import JobContext
from reel_modal.functions.declaration import render_function
from reel_modal.functions.frame_function import render_frames
from reel_modal.functions.runner import run_job
from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, RenderResult
from reel_modal.settings import Settings

__all__ = ["check_leftovers"]

LOSSLESS = EncodeOptions(encoder="libx264", preset="ultrafast", quality=0)
GAPS = ("-vf", "select='mod(n,7)*mod(n,5)'", "-fps_mode", "passthrough")


@pytest.fixture(autouse=True)
def own_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODULES_VARIABLE, "tests.own_video")


def jobs_on(folder: Path, *options: str, seconds: int = 30) -> Jobs:
    clip = folder / "in.mp4"
    source = ("-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=10:duration={seconds}")
    sound = ("-f", "lavfi", "-i", f"sine=duration={seconds}", "-c:a", "aac")
    x264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "30", "-pix_fmt", "yuv420p")
    ffmpeg(*source, *sound, *options, *x264, clip)
    return Jobs(folder, clip, TintRequest, encode=LOSSLESS)


def pictures(path: Path, *, drawn_on: bool = False, fps: Fraction | None = None) -> list[str]:
    """Return a hash of each frame, after drawing on it."""
    request = TintRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4")
    hashes, start_seconds = [], probe(path).start_seconds
    with FrameReader(path, pixel_format="yuv420p", fps=fps) as reader:
        for frame in reader:
            if drawn_on:
                drawn(request, frame, frame.pts_seconds - start_seconds)
            hashes.append(hashlib.md5(frame.data, usedforsecurity=False).hexdigest())
    return hashes


@pytest.mark.parametrize("rate", ["constant", Fraction(25)])
def test_frame_function_draws_each_frame_once_and_resumes(tmp_path: Path, rate: object) -> None:
    jobs = jobs_on(tmp_path)
    digest, result = jobs.run(rate=rate)
    assert (result.function, result.engine, result.plan) == ("tint", "tint 1", "full")
    assert jobs.rendered == [0, 1, 2, 3]
    assert pictures(jobs.output) == pictures(jobs.clip, drawn_on=True, fps=result.fps)
    assert len(probe(jobs.output).audio) == 1
    jobs.segments[2].unlink()
    assert jobs.run(rate=rate)[0] == digest
    assert jobs.rendered == [2]
    assert jobs.run(rate=rate, level=41)[0] != digest


def test_frame_function_keeps_the_times_of_a_variable_rate(tmp_path: Path) -> None:
    jobs = jobs_on(tmp_path, *GAPS)
    jobs.run(rate="source")
    assert pictures(jobs.output) == pictures(jobs.clip, drawn_on=True)
    times = []
    for path in (jobs.clip, jobs.output):
        with FrameReader(path, pixel_format="gray8") as reader:
            times.append([frame.pts_seconds - probe(path).start_seconds for frame in reader])
    assert times[0] == times[1]
    assert not (jobs.store.root / "users").exists()


def test_frame_function_of_changed_code_finds_no_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "tinting.py").write_text("LEVEL = 1\n")
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.setattr(segmented_jobs, "SegmentStore", partial(SegmentStore, package="tinting"))
    jobs = jobs_on(tmp_path)
    jobs.run()
    jobs.run()
    assert jobs.rendered == []
    (code / "tinting.py").write_text("LEVEL = 2\n")
    jobs.run()
    assert len(jobs.rendered) == 4


def test_segments_name_the_package_of_the_function(tmp_path: Path) -> None:
    jobs = jobs_on(tmp_path, seconds=1)
    packages: list[str] = []

    def body(request: TintRequest, context: JobContext) -> RenderResult:
        assert context.segments is not None
        packages.append(context.segments.package)
        return render_frames(request, context, lambda *_: None, engine="none")

    function = render_function(
        name="named", request=TintRequest, result=RenderResult, cpu=1, memory_mb=512, timeout_seconds=60
    )(body)
    jobs.store.publish(jobs.clip, "users/u/in.mp4")
    request = TintRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4", encode=LOSSLESS)
    settings = Settings(store_url=jobs.store.root.as_uri())
    run_job(function, request.to_dict(), settings=settings, send=lambda _: None)
    assert packages == ["tests"]
