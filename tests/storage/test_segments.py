"""Segments of long jobs in a real S3 server."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from tests.object_store import ObjectStore

from reel_modal._segments import Segment, SegmentStore, folders_with_segments, list_segments, remove_old
from reel_modal.storage import Storage

RENDERING = "a" * 64
SEGMENT = Segment(0, 200)


def test_segments_in_s3_are_found_and_removed(s3: ObjectStore, tmp_path: Path) -> None:
    storage = Storage.from_url(s3.url("segments"))
    made, found = tmp_path / "made.mp4", tmp_path / "found.mp4"
    made.write_bytes(os.urandom(9 << 20))  # in two parts
    SegmentStore(storage, user_id="7", source="in.mp4 1").write(RENDERING, SEGMENT, made)
    job = SegmentStore(storage, user_id="7", source="in.mp4 1")
    assert job.sealed(RENDERING) == {SEGMENT}
    assert job.fetch(RENDERING, SEGMENT, found)
    assert found.read_bytes() == made.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"made.mp4", "found.mp4"}
    (folder,) = folders_with_segments(storage)
    listed = list_segments(storage, folder)
    assert [Path(each.key).suffix for each in listed] == [".json", ".mp4"]
    assert remove_old(storage, listed, timedelta(hours=1)) == []
    job.discard()
    assert list_segments(storage, folder) == []
