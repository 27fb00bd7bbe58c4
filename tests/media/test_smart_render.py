"""Splices on real files: what is copied is bit for bit the source's, what is new is what the renderer draws."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clips import REAL, Clips
from tests.media.splices import RecordingPipe, check, render
from tests.media.test_frame_pipe import children

from reel_modal.smart_render import windows


@pytest.fixture(autouse=True)
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = children()
    monkeypatch.setattr(windows, "FramePipe", RecordingPipe)
    yield
    assert children() == before


@pytest.mark.parametrize(
    "name",
    [
        *REAL,
        *("spliced.mp4", "gop12.mp4", "gop48.mp4", "no_b.mp4", "no_pyramid.mp4", "pyramid.mp4", "intra.mp4"),
        *("sixteen_references.mp4", "one_reference.mp4", "baseline.mp4", "main.mp4", "sliced.mp4", "ntsc.mp4"),
        *("fps50.mp4", "fps59_94.mp4", "stereo.mp4", "uneven.mp4", "cut.mp4", "late.mp4", "rotated_90.mp4"),
        *("rotated_180.mp4", "mirrored_turned.mp4", "fragmented.mp4", "quicktime.mov", "matroska.mkv", "ntsc.mkv"),
        *("other_ids.mp4", "repeated_sets.mp4", "avc3.mp4", "anamorphic_spliced.mp4", "full_range_spliced.mp4"),
        *("gop250.mp4", "open_gop.mp4", "refreshed.mp4"),
    ],
)
def test_every_structure_is_spliced(clips: Clips, tmp_path: Path, name: str) -> None:
    check(render(clips.get(name), tmp_path, (1.3, 1.6)))
