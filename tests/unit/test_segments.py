"""Segments of long outputs: the grid, the hash of what determines their bytes, and how they are stored."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.jobs import overlay

from reel_modal._segments import KEPT, Rendering, Segment, SegmentStore, folders_with_segments, segment_grid
from reel_modal.cli import main
from reel_modal.errors import StorageUnavailableError
from reel_modal.schema import EncodeOptions
from reel_modal.storage import FolderStorage, Storage

RENDERING = "a" * 64
FIRST, SECOND = Segment(0, 200), Segment(200, 400)
RATES = st.sampled_from([Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(120)]) | st.fractions(
    Fraction(1, 10), 240
)


@given(st.integers(1, 100_000), RATES, st.fractions(1, 20))
@example(241, Fraction(30), Fraction(8))
@example(3, Fraction(1, 10), Fraction(8))
def test_segment_grid_covers_each_frame_once(frames: int, fps: Fraction, seconds: Fraction) -> None:
    grid = segment_grid(frames, fps, seconds)
    assert (grid[0].first, grid[-1].end) == (0, frames)
    assert [each.end for each in grid[:-1]] == [each.first for each in grid[1:]]
    if len(grid) > 1:
        assert len({each.frames for each in grid[:-1]}) == 1
        assert grid[-1].frames >= max(2, fps)
        assert grid[-1].frames < grid[0].frames + max(2, fps)
        assert abs(grid[0].frames - seconds * fps) <= Fraction(1, 2) or grid[0].frames == 2


@given(st.integers(1, 5000), st.integers(0, 5000), RATES)
def test_segment_grid_of_longer_output_begins_equal(frames: int, more: int, fps: Fraction) -> None:
    shorter, longer = segment_grid(frames, fps), segment_grid(frames + more, fps)
    assert longer[: len(shorter) - 1] == shorter[:-1]


@pytest.mark.parametrize(("frames", "count"), [(150, 1), (269, 1), (270, 2), (480, 2), (509, 2), (510, 3)])
def test_segment_grid_short_rest_belongs_to_neighbor(frames: int, count: int) -> None:
    assert len(segment_grid(frames, Fraction(30))) == count


def rendering(**changes: object) -> Rendering:
    made = Rendering(
        source="users/user/in.mp4 1",
        request=overlay(),
        function="render_overlay",
        engine="opencv-yuv420p",
        encoding=("-c:v", "libx264"),
        ffmpeg="9.0 d4b9bbd1",
        code="0123456789ab",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "users/user/in.mp4 2"},
        {"request": replace(overlay(), regions=())},
        {"request": replace(overlay(), encode=EncodeOptions(quality=20))},
        {"function": "apply_upscale"},
        {"engine": "opencv-yuv420p10le"},
        {"encoding": ("-c:v", "libx264", "-threads:v", "2")},
        {"ffmpeg": "9.1 d4b9bbd1"},
        {"code": "ba9876543210"},
    ],
)
def test_rendering_hash_changes_with_each_cause(changes: dict[str, object]) -> None:
    assert rendering(**changes).hash() != rendering().hash()


def test_rendering_hash_is_independent_of_ids_and_keys() -> None:
    other = replace(overlay("another"), user_id="else", output_key="out/other.mp4", input_key="copy.mp4")
    assert rendering(request=other).hash() == rendering().hash()


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "memory":
        return Storage.from_url(f"memory://segments-{tmp_path.name}")
    (tmp_path / "store").mkdir()
    return FolderStorage(tmp_path / "store")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A finished segment."""
    path = tmp_path / "0-200.mp4"
    path.write_bytes(os.urandom(3 << 20))
    return path


def store_of(storage: Storage, user_id: str = "7") -> SegmentStore:
    return SegmentStore(storage, user_id=user_id, source="in.mp4 1")


def keys(storage: Storage, user_id: str = "7") -> list[str]:
    return [each.key for each in storage.list_folder(f"users/{user_id}/segments").objects]


def test_segment_store_finds_written_segment(storage: Storage, made: Path, tmp_path: Path) -> None:
    data = made.read_bytes()
    store_of(storage).write(RENDERING, FIRST, made)
    assert made.read_bytes() == data
    again = store_of(storage)
    assert again.sealed(RENDERING) == {FIRST}
    assert again.sealed("b" * 64) == frozenset()
    work = tmp_path / "work"
    work.mkdir()
    assert again.fetch(RENDERING, FIRST, work / "found.mp4")
    assert [path.name for path in work.iterdir()] == ["found.mp4"]
    assert (work / "found.mp4").read_bytes() == data
    assert not again.fetch(RENDERING, SECOND, work / "missing.mp4")
    assert store_of(storage, "8").sealed(RENDERING) == frozenset()


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return bytes([*data[:1000], data[1000] ^ 1, *data[1001:]])


@pytest.mark.parametrize("suffix", [".mp4", ".json"])
@pytest.mark.parametrize("damage", [cut, flipped, lambda _: b"", lambda _: b"{}", lambda _: b"\xff[" * 99])
def test_segment_store_damaged_segment_does_not_count(
    storage: Storage, made: Path, tmp_path: Path, damage: Callable[[bytes], bytes], suffix: str
) -> None:
    store_of(storage).write(RENDERING, FIRST, made)
    (key,) = (key for key in keys(storage) if key.endswith(suffix))
    data = storage.read_bytes(key)
    if suffix == ".json" and damage is flipped:
        data = data.ljust(2000)
    storage.write_bytes(key, damage(data))
    assert not store_of(storage).fetch(RENDERING, FIRST, tmp_path / "found.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".json"])
def test_segment_store_half_written_segment_does_not_count(
    storage: Storage, made: Path, tmp_path: Path, suffix: str
) -> None:
    store_of(storage).write(RENDERING, FIRST, made)
    (key,) = (key for key in keys(storage) if key.endswith(suffix))
    storage.delete(key)
    assert not store_of(storage).fetch(RENDERING, FIRST, tmp_path / "found.mp4")


class SealFails(FolderStorage):
    """A store that becomes unreachable between a segment and its seal."""

    def write_bytes(self, key: str, data: bytes) -> None:
        del key, data
        raise StorageUnavailableError("the store does not answer")


def test_segment_store_writes_data_before_seal(made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SealFails(tmp_path)
    segments = store_of(store)
    with caplog.at_level(logging.WARNING):
        segments.write(RENDERING, FIRST, made)
        segments.write(RENDERING, SECOND, made)
    assert [message for message in caplog.messages if "the store does not answer" in message] == caplog.messages
    assert len(caplog.messages) == 1
    assert [Path(key).suffix for key in keys(store)] == [".mp4"]
    assert store_of(store).sealed(RENDERING) == frozenset()


def test_segment_store_discard_removes_what_the_job_used(storage: Storage, made: Path, tmp_path: Path) -> None:
    store_of(storage).write(RENDERING, FIRST, made)
    store_of(storage).write("b" * 64, FIRST, made)
    job = store_of(storage)
    assert job.fetch(RENDERING, FIRST, tmp_path / "found.mp4")
    job.write(RENDERING, SECOND, made)
    job.discard()
    assert {Path(key).name[:1] for key in keys(storage)} == {"b"}


def test_segment_store_sweeps_what_is_older_than_a_day(made: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    storage = FolderStorage(tmp_path / "store")
    for name in (RENDERING, "b" * 64):
        store_of(storage).write(name, FIRST, made)
    store_of(storage, "8").write(RENDERING, FIRST, made)
    own = tmp_path / "store/users/7/segments/own.mp4"
    own.write_bytes(b"not a segment")
    old = time.time() - KEPT.total_seconds() - 60
    for path in (own, *(tmp_path / "store/users").rglob(f"{RENDERING}*")):
        os.utime(path, (old, old))
    assert store_of(storage).sealed("b" * 64) == {FIRST}
    assert {Path(key).name[:1] for key in keys(storage)} == {"b", "o"}
    assert len(keys(storage, "8")) == 2
    assert folders_with_segments(storage) == ["users/7/segments", "users/8/segments"]


def test_segment_store_unreachable_store_is_logged_once(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    segments = store_of(FolderStorage(folder))
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert segments.sealed(RENDERING) == frozenset()
        segments.write(RENDERING, FIRST, made)
        assert not segments.fetch(RENDERING, FIRST, tmp_path / "found.mp4")
        segments.discard()
    assert len(caplog.messages) == 1


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["segments", *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_segments_command_lists_and_prunes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    monkeypatch.setenv("REEL_MODAL_STORE_URL", root.as_uri())
    assert run_command(capsys, "list") == (0, "", "")
    for user_id in ("7", "8"):
        store_of(FolderStorage(root), user_id).write(RENDERING, FIRST, made)
    two_hours_ago = time.time() - 2 * 3600 - 60
    for path in (root / "users/8/segments").iterdir():
        os.utime(path, (two_hours_ago, two_hours_ago))
    status, out, _ = run_command(capsys, "list")
    assert (status, len(out.splitlines())) == (0, 4)
    assert "2.0 h" in out
    listed = json.loads(run_command(capsys, "list", "--json")[1])
    assert [each["bytes"] for each in listed if each["key"].endswith(".mp4")] == [3 << 20] * 2
    assert run_command(capsys, "prune")[:2] == (0, "")
    status, out, err = run_command(capsys, "prune", "--hours", "1.5", "--json")
    assert {Path(each["key"]).parts[1] for each in json.loads(out)} == {"8"}
    assert (status, "2 objects removed" in err, "2 objects remain" in err) == (0, True, True)
    assert len(keys(FolderStorage(root))) == 2
    assert keys(FolderStorage(root), "8") == []


@pytest.mark.parametrize("hours", ["-1", "nan", "inf", "x"])
def test_segments_command_refuses_invalid_hours(hours: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["segments", "prune", "--hours", hours])


def test_segments_command_without_store_is_not_configured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REEL_MODAL_STORE_URL", raising=False)
    status, _, err = run_command(capsys, "list")
    assert (status, "REEL_MODAL_STORE_URL" in err) == (3, True)


def test_call_is_claimed_by_one_of_two(tmp_path: Path) -> None:
    storage, run = FolderStorage(tmp_path), Segment(0, 80)
    coordinator, first, second = (store_of(storage) for _ in range(3))
    assert first.claim("job", run, "call-1")
    assert first.claim("job", run, "call-1")
    assert not second.claim("job", run, "call-2")
    assert second.claim("other job", run, "call-2")
    assert coordinator.calls("job") == {run: "call-1"}
    coordinator.forget_call("job", run)
    assert coordinator.calls("job") == {}
    coordinator.note_call("job", run, "call-3")
    assert not first.claim("job", run, "call-1")
    assert first.claim("job", run, "call-3")
    for store in (coordinator, second):
        store.discard()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
