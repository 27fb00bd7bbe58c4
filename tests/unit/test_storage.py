"""Storage keys stay below their root, and objects are published completely or not at all."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import pytest

from reel_modal.errors import (
    ConfigError,
    InvalidKeyError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
)
from reel_modal.storage import FolderStorage, PathStorage, Storage, check_key, publish_file, staging_name

BAD_KEYS = [
    *("../out.mp4", "a/../../out.mp4", "a/..", "./a.mp4", "a/./b.mp4"),
    *("/etc/passwd", "//host/a.mp4", "C:/clip.mp4", "c:clip.mp4", "a\\..\\b.mp4"),
    *("", "/", "a//b.mp4", "a/", "None", "users/None/a.mp4", "users/null/a.mp4", "undefined/a.mp4"),
    *("a\x00.mp4", "a\nb.mp4", "a\x1b[31m.mp4", "a\x7f.mp4", "a\ud800.mp4"),
]
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def new_file(tmp_path: Path) -> Path:
    """A finished file on the file system of the store."""
    path = tmp_path / "made.mp4"
    path.write_bytes(b"new")
    return path


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system, from which a rename into the store fails."""
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        yield Path(folder)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("key", BAD_KEYS)
def test_storage_invalid_key_is_refused_without_side_effects(key: str, root: Path, new_file: Path) -> None:
    storage = FolderStorage(root)
    with pytest.raises(InvalidKeyError) as fetching:
        storage.fetch(key, root)
    with pytest.raises(InvalidKeyError) as publishing:
        storage.publish(new_file, key)
    assert repr(key) in str(fetching.value)
    assert repr(key) in str(publishing.value)
    assert files(root.parent) == ["made.mp4"]


@pytest.mark.parametrize(
    "key", ["a.mp4", "users/7/reel.mp4", "..a/b..mp4", ".hidden", "a b/ü.mp4", "Nonesuch/null.mp4"]
)
def test_check_key_accepts_plain_relative_paths(key: str, root: Path) -> None:
    check_key(key)
    assert FolderStorage(root).path(key) == root / key


def test_check_key_limits_length_in_bytes() -> None:
    check_key("/".join(["a" * 203] * 5 + ["aaaa"]))
    for key in ("/".join(["b" * 203] * 5 + ["bbbbb"]), "/".join(["ü" * 100] * 5 + ["ü" * 10])):
        with pytest.raises(InvalidKeyError, match=f"{key[:40]}.*1024 bytes"):
            check_key(key)


def test_check_key_part_leaves_room_for_the_staging_name(root: Path, new_file: Path) -> None:
    storage = FolderStorage(root)
    longest = "a" * 236 + ".mp4"
    storage.publish(new_file, f"users/{longest}")
    staging_name(storage.path(f"users/{longest}")).write_bytes(b"as long as a name can be")
    for key in (f"users/a{longest}", "ü" * 121, f"{'a' * 300}/a.mp4"):
        with pytest.raises(InvalidKeyError, match="longer than 240"):
            storage.fetch(key, root)


def test_storage_link_may_not_leave_the_store(root: Path, new_file: Path) -> None:
    (root / "real").mkdir()
    (root / "inside").symlink_to(root / "real")
    (root / "outside").symlink_to(root.parent)
    storage = FolderStorage(root)
    with pytest.raises(InvalidKeyError, match=r"outside/made\.mp4"):
        storage.fetch("outside/made.mp4", root)
    with pytest.raises(InvalidKeyError, match=r"outside/x\.mp4"):
        storage.publish(new_file, "outside/x.mp4")
    storage.publish(new_file, "inside/a.mp4")
    assert (root / "real" / "a.mp4").read_bytes() == b"new"


def test_storage_loop_of_links_is_refused(root: Path, new_file: Path) -> None:
    (root / "one").symlink_to(root / "two")
    (root / "two").symlink_to(root / "one")
    for key in ("one/a.mp4", "one"):
        with pytest.raises(InvalidKeyError, match=f"'{key}' leads into a loop"):
            FolderStorage(root).fetch(key, root)
        with pytest.raises(InvalidKeyError, match=f"'{key}' leads into a loop"):
            FolderStorage(root).publish(new_file, key)
    assert new_file.read_bytes() == b"new"
    with pytest.raises(ConfigError, match="one"):
        FolderStorage(root / "one")


def test_storage_published_object_is_fetched_in_place(root: Path, new_file: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    workdir.mkdir()
    storage = FolderStorage(root)
    assert storage.publish(new_file, "users/7/reel.mp4") == 3
    fetched = storage.fetch("users/7/reel.mp4", workdir)
    assert fetched.read_bytes() == b"new"
    assert files(tmp_path) == ["store/users/7/reel.mp4"]


def test_storage_publish_replaces_and_keeps_open_readers(root: Path, new_file: Path) -> None:
    (root / "a.mp4").write_bytes(b"former")
    with (root / "a.mp4").open("rb") as reader:
        FolderStorage(root).publish(new_file, "a.mp4")
        assert reader.read() == b"former"
    assert (root / "a.mp4").read_bytes() == b"new"
    assert files(root) == ["a.mp4"]


@pytest.mark.parametrize("key", ["missing.mp4", "users/7"])
def test_storage_fetch_missing_object_names_the_key(root: Path, key: str) -> None:
    (root / "users" / "7").mkdir(parents=True)
    with pytest.raises(ObjectNotFoundError, match=key):
        FolderStorage(root).fetch(key, root)


def test_storage_publish_below_a_file_is_a_storage_error(root: Path, new_file: Path) -> None:
    (root / "users").write_bytes(b"a file")
    with pytest.raises(StorageError, match=r"users/7/reel\.mp4"):
        FolderStorage(root).publish(new_file, "users/7/reel.mp4")
    assert new_file.read_bytes() == b"new"
    assert files(root) == ["users"]


def test_storage_publish_onto_folder_is_refused(root: Path, new_file: Path) -> None:
    (root / "a.mp4").mkdir()
    with pytest.raises(StorageError, match=r"a\.mp4.*could not be published"):
        FolderStorage(root).publish(new_file, "a.mp4")
    assert new_file.read_bytes() == b"new"
    assert [path.name for path in root.iterdir()] == ["a.mp4"]


def test_publish_file_below_a_file_is_a_storage_error(root: Path, new_file: Path) -> None:
    (root / "file").write_bytes(b"a file")
    with pytest.raises(StorageError, match=r"file/x.*could not be published"):
        publish_file(new_file, root / "file" / "x")
    with pytest.raises(ObjectNotFoundError, match="file/x"):
        FolderStorage(root).fetch("file/x", root)
    assert new_file.read_bytes() == b"new"
    assert files(root) == ["file"]


def test_publish_file_missing_source_keeps_the_old_object(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"former")
    with pytest.raises(StorageError, match=r"a\.mp4"):
        publish_file(root / "nothing.mp4", root / "a.mp4")
    assert (root / "a.mp4").read_bytes() == b"former"
    assert files(root) == ["a.mp4"]


def test_publish_file_moves_across_file_systems(root: Path, other_file_system: Path) -> None:
    source = other_file_system / "made.mp4"
    source.write_bytes(b"new")
    assert publish_file(source, root / "a.mp4") == 3
    assert (root / "a.mp4").read_bytes() == b"new"
    assert not source.exists()
    assert files(root) == ["a.mp4"]


def test_publish_file_failed_cross_move_leaves_no_copy(root: Path, other_file_system: Path) -> None:
    source = other_file_system / "made.mp4"
    source.write_bytes(b"new")
    (root / "a.mp4").mkdir()
    with pytest.raises(StorageError, match=r"a\.mp4"):
        publish_file(source, root / "a.mp4")
    assert source.read_bytes() == b"new"
    assert [path.name for path in root.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("name", ["a" * 250, "file/x"])
def test_publish_file_invalid_target_is_a_storage_error(root: Path, other_file_system: Path, name: str) -> None:
    (root / "file").write_bytes(b"a file")
    source = other_file_system / "made.mp4"
    source.write_bytes(b"new")
    with pytest.raises(StorageError, match="could not be published"):
        publish_file(source, root / name)
    assert source.read_bytes() == b"new"
    assert files(root) == ["file"]


def test_publish_file_interrupted_copy_keeps_the_source(
    root: Path, other_file_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        assert len(files(root)) == 1
        raise KeyboardInterrupt

    source = other_file_system / "made.mp4"
    source.write_bytes(b"new")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish_file(source, root / "a.mp4")
    assert source.read_bytes() == b"new"
    assert files(root) == []


def test_publish_file_source_not_removable_is_logged(
    root: Path, other_file_system: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    source = other_file_system / "made.mp4"
    source.write_bytes(b"new")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        assert publish_file(source, root / "a.mp4") == 3
    assert (root / "a.mp4").read_bytes() == b"new"
    assert f"{source} could not be removed: Permission denied" in caplog.text


def test_publish_file_reader_never_sees_partial_content(root: Path, other_file_system: Path) -> None:
    target, size_bytes = root / "a.mp4", 3 << 20
    whole = {letter * size_bytes for letter in (b"a", b"b")}
    target.write_bytes(b"a" * size_bytes)
    published = threading.Event()

    def publish() -> None:
        try:
            for letter in (b"b", b"a") * 10:
                (other_file_system / "made.mp4").write_bytes(letter * size_bytes)
                publish_file(other_file_system / "made.mp4", target)
        finally:
            published.set()

    writer = threading.Thread(target=publish)
    writer.start()
    while not published.is_set():
        assert target.read_bytes() in whole
    writer.join()
    assert files(root) == ["a.mp4"]


def test_staging_name_is_hidden_unique_and_in_same_folder(root: Path) -> None:
    first, second = staging_name(root / "a.mp4"), staging_name(root / "a.mp4")
    assert first != second
    assert first.parent == root
    assert first.name.startswith(".")
    assert first.suffix == ".mp4"


def test_path_storage_keys_are_paths(new_file: Path, tmp_path: Path) -> None:
    storage = PathStorage()
    target = tmp_path / "out.mp4"
    assert storage.publish(new_file, str(target)) == 3
    assert storage.fetch(str(target), tmp_path) == target
    with pytest.raises(ObjectNotFoundError, match=r"made\.mp4"):
        storage.fetch(str(new_file), tmp_path)


@pytest.mark.parametrize("path", ["", "a\0.mp4", "a\ud800.mp4"])
def test_path_storage_invalid_path_is_refused(path: str, new_file: Path) -> None:
    with pytest.raises(InvalidKeyError, match="path"):
        PathStorage().publish(new_file, path)
    with pytest.raises(InvalidKeyError, match="path"):
        PathStorage().fetch(path, new_file.parent)


def test_path_storage_too_long_name_is_a_storage_error(new_file: Path) -> None:
    with pytest.raises(StorageError, match=r"(?i)name too long"):
        PathStorage().publish(new_file, str(new_file.parent / ("a" * 256)))
    with pytest.raises(StorageError, match=r"(?i)name too long"):
        PathStorage().fetch(str(new_file.parent / ("a" * 256)), new_file.parent)


@pytest.mark.parametrize("target", [".", "/"])
def test_publish_file_onto_existing_folder_is_refused(target: str, new_file: Path) -> None:
    with pytest.raises(StorageError, match="could not be published"):
        publish_file(new_file, Path(target))
    assert new_file.read_bytes() == b"new"


def test_path_storage_missing_folder_is_a_storage_error(new_file: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/out\.mp4"):
        PathStorage().publish(new_file, str(tmp_path / "nowhere" / "out.mp4"))
    assert files(tmp_path) == ["made.mp4"]


def test_storage_from_file_url_is_that_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my clips"
    folder.mkdir()
    storage = Storage.from_url(f"file://{tmp_path}/my%20clips")
    assert isinstance(storage, FolderStorage)
    assert storage.root == folder.resolve()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://host/folder", "'ftp'.*use file:///folder"),
        ("/srv/media", "scheme ''.*use file:///folder"),
        ("file://srv/media", "'srv'.*three slashes"),
        ("file:///nowhere/at/all", "/nowhere/at/all.*create it"),
        ("file://", "three slashes"),
        ("file:", "three slashes"),
        ("file:tests", "three slashes"),
        ("file:/tmp", "three slashes"),
        ("file:///tmp?region=eu", "query.*%3F"),
        ("file:///tmp?", "query.*%3F"),
        ("file:///tmp#top", "fragment.*%23"),
        ("file://[x", "not a valid URL.*use file:///folder"),
        (f"file:///{'a' * 300}", "not found"),
        ("file:///tmp%00", "not found"),
    ],
)
def test_storage_from_invalid_url_is_refused_with_the_cure(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Storage.from_url(url)


def test_storage_publish_existing_refuse_keeps_both(root: Path, new_file: Path, other_file_system: Path) -> None:
    (root / "a.mp4").write_bytes(b"former")
    far = other_file_system / "made.mp4"
    far.write_bytes(b"new")
    for source in (new_file, far):
        with pytest.raises(ObjectExistsError, match=r"a\.mp4.*must not be replaced"):
            FolderStorage(root).publish(source, "a.mp4", existing="refuse")
        assert (source.read_bytes(), (root / "a.mp4").read_bytes()) == (b"new", b"former")
        assert FolderStorage(root).publish(source, f"{source.parent.name}.mp4", existing="refuse") == 3
        assert not source.exists()
    assert sorted(files(root)) == sorted(["a.mp4", f"{new_file.parent.name}.mp4", f"{far.parent.name}.mp4"])


def test_publish_file_target_created_during_cross_move_is_kept(
    root: Path, other_file_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, copy = other_file_system / "made.mp4", root / "a.mp4", shutil.copyfileobj
    source.write_bytes(b"new")

    def copy_slowly(reader: BinaryIO, writer: BinaryIO, length: int) -> None:
        copy(reader, writer, length)
        target.write_bytes(b"former")

    monkeypatch.setattr(shutil, "copyfileobj", copy_slowly)
    with pytest.raises(ObjectExistsError, match=r"a\.mp4.*must not be replaced"):
        publish_file(source, target, existing="refuse")
    assert (source.read_bytes(), target.read_bytes()) == (b"new", b"former")
    assert files(root) == ["a.mp4"]


def test_storage_check_unwritable_folder_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write in every folder
    with pytest.raises(StorageAccessError, match="change its permissions"):
        FolderStorage(root).check()
