"""A long upscale in segments: the same bytes whatever was finished before."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clips import made_clip
from tests.media.segmented_jobs import Jobs
from tests.networks import repeating
from tests.processes import children

from reel_modal.errors import JobCancelledError
from reel_modal.media import probe
from reel_modal.schema import UpscaleRequest

FRAMES = 140
SEGMENTS = 4
"""Three of 40 frames, and one of 20."""


@pytest.fixture(autouse=True)
def check_leftovers() -> Iterator[None]:
    before = children()
    yield
    assert children() == before
    assert not {"reel_modal-decode", "reel_modal-infer"} & {thread.name for thread in threading.enumerate()}


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    clip = made_clip(tmp_path / "in.mp4", size=(48, 32), fps=10, seconds=14, audio_seconds=14)
    return Jobs(tmp_path, clip, UpscaleRequest, scale=2, provider="cpu")


def test_upscale_in_segments_resumes_with_the_same_bytes(jobs: Jobs) -> None:
    expected, result = jobs.run(stored=False)
    assert (result.frames, result.size, result.degraded) == (FRAMES, (96, 64), ())
    assert jobs.run()[0] == expected
    assert jobs.rendered == list(range(SEGMENTS))
    for number in range(SEGMENTS):
        jobs.segments[number].unlink()
        assert jobs.run()[0] == expected
        assert jobs.rendered == [number]
    media = probe(jobs.output, scan=True)
    assert media.scan is not None
    assert (media.scan.frame_count, media.fps, media.duration_seconds) == (FRAMES, 10, 14)


def test_upscale_that_was_cancelled_finds_its_segments(jobs: Jobs) -> None:
    with pytest.raises(JobCancelledError):
        jobs.run(cancel_at=80)
    assert jobs.rendered == [0, 1]
    cut = jobs.run()[0]
    assert jobs.rendered == [2, 3]
    assert jobs.run(stored=False)[0] == cut


def test_upscale_with_another_network_finds_no_segment(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tmp_path / "repeating.onnx"
    network.write_bytes(repeating(1).SerializeToString())
    entry = {"source": str(network), "sha256": hashlib.sha256(network.read_bytes()).hexdigest()}
    monkeypatch.setenv("REEL_MODAL_MODELS", json.dumps({"repeating": entry}))
    jobs.run()
    jobs.run(model="repeating")
    assert len(jobs.rendered) == SEGMENTS
