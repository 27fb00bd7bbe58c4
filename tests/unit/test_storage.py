"""Keys stay below their root, and an object is put in place whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

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
def made(tmp_path: Path) -> Path:
    """A finished file, on the file system of the store."""
    path = tmp_path / "made.mp4"
    path.write_bytes(b"new")
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder of another file system, from which nothing can be renamed into the store."""
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        yield Path(folder)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_is_no_plain_path_is_refused_by_name_and_touches_nothing(key: str, root: Path, made: Path) -> None:
    storage = FolderStorage(root)
    with pytest.raises(InvalidKeyError) as fetching:
        storage.fetch(key, root)
    with pytest.raises(InvalidKeyError) as publishing:
        storage.publish(made, key)
    assert repr(key) in str(fetching.value)
    assert repr(key) in str(publishing.value)
    assert files(root.parent) == ["made.mp4"]


@pytest.mark.parametrize(
    "key", ["a.mp4", "users/7/reel.mp4", "..a/b..mp4", ".hidden", "a b/ü.mp4", "Nonesuch/null.mp4"]
)
def test_a_plain_relative_path_is_a_key(key: str) -> None:
    check_key(key)


def test_a_key_is_measured_in_bytes_and_a_longer_one_is_refused_by_its_beginning() -> None:
    check_key("/".join(["a" * 203] * 5 + ["aaaa"]))
    for key in ("/".join(["b" * 203] * 5 + ["bbbbb"]), "/".join(["ü" * 100] * 5 + ["ü" * 10])):
        with pytest.raises(InvalidKeyError, match=f"{key[:40]}.*1024 bytes"):
            check_key(key)


def test_a_part_of_a_key_leaves_room_for_the_name_of_half_done_work(root: Path, made: Path) -> None:
    storage = FolderStorage(root)
    longest = "a" * 236 + ".mp4"
    storage.publish(made, f"users/{longest}")
    staging_name(storage.path(f"users/{longest}")).write_bytes(b"as long as a name can be")
    for key in (f"users/a{longest}", "ü" * 121, f"{'a' * 300}/a.mp4"):
        with pytest.raises(InvalidKeyError, match="longer than 240"):
            storage.fetch(key, root)


def test_a_link_may_lead_within_the_store_and_not_out_of_it(root: Path, made: Path) -> None:
    (root / "real").mkdir()
    (root / "inside").symlink_to(root / "real")
    (root / "outside").symlink_to(root.parent)
    storage = FolderStorage(root)
    with pytest.raises(InvalidKeyError, match=r"outside/made\.mp4"):
        storage.fetch("outside/made.mp4", root)
    with pytest.raises(InvalidKeyError, match=r"outside/x\.mp4"):
        storage.publish(made, "outside/x.mp4")
    storage.publish(made, "inside/a.mp4")
    assert (root / "real" / "a.mp4").read_bytes() == b"new"


def test_a_loop_of_links_is_no_place_for_an_object(root: Path, made: Path) -> None:
    (root / "one").symlink_to(root / "two")
    (root / "two").symlink_to(root / "one")
    for key in ("one/a.mp4", "one"):
        with pytest.raises(InvalidKeyError, match=f"'{key}' leads into a loop"):
            FolderStorage(root).fetch(key, root)
        with pytest.raises(InvalidKeyError, match=f"'{key}' leads into a loop"):
            FolderStorage(root).publish(made, key)
    assert made.read_bytes() == b"new"
    with pytest.raises(ConfigError, match="one"):
        FolderStorage(root / "one")


def test_a_published_object_is_fetched_where_it_lies(root: Path, made: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    workdir.mkdir()
    storage = FolderStorage(root)
    assert storage.publish(made, "users/7/reel.mp4") == 3
    fetched = storage.fetch("users/7/reel.mp4", workdir)
    assert fetched.read_bytes() == b"new"
    assert files(tmp_path) == ["store/users/7/reel.mp4"]


def test_publishing_replaces_and_leaves_a_reader_its_former_object(root: Path, made: Path) -> None:
    (root / "a.mp4").write_bytes(b"former")
    with (root / "a.mp4").open("rb") as reader:
        FolderStorage(root).publish(made, "a.mp4")
        assert reader.read() == b"former"
    assert (root / "a.mp4").read_bytes() == b"new"
    assert files(root) == ["a.mp4"]


@pytest.mark.parametrize("key", ["missing.mp4", "users/7"])
def test_fetching_what_is_no_object_names_the_key(root: Path, key: str) -> None:
    (root / "users" / "7").mkdir(parents=True)
    with pytest.raises(ObjectNotFoundError, match=key):
        FolderStorage(root).fetch(key, root)


def test_a_folder_that_cannot_be_made_is_a_storage_error_with_the_key(root: Path, made: Path) -> None:
    (root / "users").write_bytes(b"a file")
    with pytest.raises(StorageError, match=r"users/7/reel\.mp4"):
        FolderStorage(root).publish(made, "users/7/reel.mp4")
    assert made.read_bytes() == b"new"
    assert files(root) == ["users"]


def test_a_target_that_is_a_folder_stays_and_nothing_is_left(root: Path, made: Path) -> None:
    (root / "a.mp4").mkdir()
    with pytest.raises(StorageError, match=r"a\.mp4.*could not be put in place"):
        FolderStorage(root).publish(made, "a.mp4")
    assert made.read_bytes() == b"new"
    assert [path.name for path in root.iterdir()] == ["a.mp4"]


def test_a_target_below_a_file_is_a_storage_error_that_names_it(root: Path, made: Path) -> None:
    (root / "file").write_bytes(b"a file")
    with pytest.raises(StorageError, match=r"file/x.*could not be put in place"):
        publish_file(made, root / "file" / "x")
    with pytest.raises(ObjectNotFoundError, match="file/x"):
        FolderStorage(root).fetch("file/x", root)
    assert made.read_bytes() == b"new"
    assert files(root) == ["file"]


def test_a_missing_source_leaves_the_former_object(root: Path) -> None:
    (root / "a.mp4").write_bytes(b"former")
    with pytest.raises(StorageError, match=r"a\.mp4"):
        publish_file(root / "nothing.mp4", root / "a.mp4")
    assert (root / "a.mp4").read_bytes() == b"former"
    assert files(root) == ["a.mp4"]


def test_a_file_moves_in_from_another_file_system(root: Path, elsewhere: Path) -> None:
    source = elsewhere / "made.mp4"
    source.write_bytes(b"new")
    assert publish_file(source, root / "a.mp4") == 3
    assert (root / "a.mp4").read_bytes() == b"new"
    assert not source.exists()
    assert files(root) == ["a.mp4"]


def test_a_failed_move_from_another_file_system_leaves_no_copy(root: Path, elsewhere: Path) -> None:
    source = elsewhere / "made.mp4"
    source.write_bytes(b"new")
    (root / "a.mp4").mkdir()
    with pytest.raises(StorageError, match=r"a\.mp4"):
        publish_file(source, root / "a.mp4")
    assert source.read_bytes() == b"new"
    assert [path.name for path in root.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("name", ["a" * 250, "file/x"])
def test_a_place_that_takes_no_copy_is_a_storage_error(root: Path, elsewhere: Path, name: str) -> None:
    (root / "file").write_bytes(b"a file")
    source = elsewhere / "made.mp4"
    source.write_bytes(b"new")
    with pytest.raises(StorageError, match="could not be put in place"):
        publish_file(source, root / name)
    assert source.read_bytes() == b"new"
    assert files(root) == ["file"]


def test_an_interrupted_copy_leaves_the_source_alone(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        assert len(files(root)) == 1
        raise KeyboardInterrupt

    source = elsewhere / "made.mp4"
    source.write_bytes(b"new")
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish_file(source, root / "a.mp4")
    assert source.read_bytes() == b"new"
    assert files(root) == []


def test_a_source_that_cannot_be_removed_is_no_failure(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    source = elsewhere / "made.mp4"
    source.write_bytes(b"new")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        assert publish_file(source, root / "a.mp4") == 3
    assert (root / "a.mp4").read_bytes() == b"new"
    assert f"{source} stays: Permission denied" in caplog.text


def test_a_reader_never_sees_a_part_of_an_object(root: Path, elsewhere: Path) -> None:
    target, size_bytes = root / "a.mp4", 3 << 20
    whole = {letter * size_bytes for letter in (b"a", b"b")}
    target.write_bytes(b"a" * size_bytes)
    published = threading.Event()

    def publish() -> None:
        try:
            for letter in (b"b", b"a") * 10:
                (elsewhere / "made.mp4").write_bytes(letter * size_bytes)
                publish_file(elsewhere / "made.mp4", target)
        finally:
            published.set()

    writer = threading.Thread(target=publish)
    writer.start()
    while not published.is_set():
        assert target.read_bytes() in whole
    writer.join()
    assert files(root) == ["a.mp4"]


def test_a_staging_name_is_hidden_beside_its_target_and_never_the_same(root: Path) -> None:
    first, second = staging_name(root / "a.mp4"), staging_name(root / "a.mp4")
    assert first != second
    assert first.parent == root
    assert first.name.startswith(".")
    assert first.suffix == ".mp4"


def test_paths_are_keys_for_a_person_at_a_command_line(made: Path, tmp_path: Path) -> None:
    storage = PathStorage()
    target = tmp_path / "out.mp4"
    assert storage.publish(made, str(target)) == 3
    assert storage.fetch(str(target), tmp_path) == target
    with pytest.raises(ObjectNotFoundError, match=r"made\.mp4"):
        storage.fetch(str(made), tmp_path)


@pytest.mark.parametrize("path", ["", "a\0.mp4", "a\ud800.mp4"])
def test_a_path_that_no_file_can_have_is_refused(path: str, made: Path) -> None:
    with pytest.raises(InvalidKeyError, match="path"):
        PathStorage().publish(made, path)
    with pytest.raises(InvalidKeyError, match="path"):
        PathStorage().fetch(path, made.parent)


def test_a_path_that_is_too_long_is_a_storage_error(made: Path) -> None:
    with pytest.raises(StorageError, match=r"(?i)name too long"):
        PathStorage().publish(made, str(made.parent / ("a" * 256)))
    with pytest.raises(StorageError, match=r"(?i)name too long"):
        PathStorage().fetch(str(made.parent / ("a" * 256)), made.parent)


@pytest.mark.parametrize("target", [".", "/"])
def test_a_folder_is_no_place_for_a_file(target: str, made: Path) -> None:
    with pytest.raises(StorageError, match="could not be put in place"):
        publish_file(made, Path(target))
    assert made.read_bytes() == b"new"


def test_a_path_in_a_folder_that_is_not_there_is_a_storage_error(made: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/out\.mp4"):
        PathStorage().publish(made, str(tmp_path / "nowhere" / "out.mp4"))
    assert files(tmp_path) == ["made.mp4"]


def test_a_file_url_names_a_folder(tmp_path: Path) -> None:
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
        (f"file:///{'a' * 300}", "is not there"),
        ("file:///tmp%00", "is not there"),
    ],
)
def test_a_wrong_url_is_refused_with_the_cure(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Storage.from_url(url)


def test_publishing_may_refuse_to_replace_and_then_leaves_both(root: Path, made: Path, elsewhere: Path) -> None:
    (root / "a.mp4").write_bytes(b"former")
    far = elsewhere / "made.mp4"
    far.write_bytes(b"new")
    for source in (made, far):
        with pytest.raises(ObjectExistsError, match=r"a\.mp4.*not to be replaced"):
            FolderStorage(root).publish(source, "a.mp4", existing="refuse")
        assert (source.read_bytes(), (root / "a.mp4").read_bytes()) == (b"new", b"former")
        assert FolderStorage(root).publish(source, f"{source.parent.name}.mp4", existing="refuse") == 3
        assert not source.exists()
    assert sorted(files(root)) == sorted(["a.mp4", f"{made.parent.name}.mp4", f"{far.parent.name}.mp4"])


def test_a_folder_that_may_not_be_written_is_no_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(StorageAccessError, match="change its rights"):
        FolderStorage(root).check()
