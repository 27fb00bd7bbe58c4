"""The contract of every object store, with a real S3 server, in memory and in a folder."""

from __future__ import annotations

import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.exceptions import GenericError
from tests.object_store import ACCESS_KEY, SECRET_KEY, ObjectStore

from reel_modal.errors import (
    ConfigError,
    InvalidKeyError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from reel_modal.storage import FolderListing, FolderStorage, ObjectStorage, Storage
from reel_modal.storage.objects import RetryPolicy, new_copy_header
from reel_modal.storage.urls import storage_at

_MIB = 1 << 20
_numbers = itertools.count(1)


@pytest.fixture(params=["s3", "memory", "folder"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    prefix = f"objects-{next(_numbers)}"
    if request.param == "memory":
        return Storage.from_url(f"memory://{prefix}")
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        return FolderStorage(tmp_path / "store")
    s3: ObjectStore = request.getfixturevalue("s3")
    return Storage.from_url(s3.url(prefix))


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def new_file(folder: Path, data: bytes) -> Path:
    path = folder / "made.mp4"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1, _MIB, 8 * _MIB, 8 * _MIB + 1, 17 * _MIB])
def test_published_object_is_fetched_and_traffic_counted(storage: Storage, workdir: Path, size: int) -> None:
    data = os.urandom(size)
    source = new_file(workdir, data)
    assert storage.publish(source, "users/7/reel ü+%20&=#.mp4") == size
    assert not source.exists()
    assert storage.stat("users/7/reel ü+%20&=#.mp4").bytes == size
    assert storage.traffic.bytes_out == size
    before = storage.traffic.bytes_in  # a store without checksums as tags is read back
    assert storage.fetch("users/7/reel ü+%20&=#.mp4", workdir).read_bytes() == data
    assert storage.traffic.bytes_in - before == size


def test_on_transfer_is_called_for_each_part(s3: ObjectStore, workdir: Path) -> None:
    """Otherwise a transfer of several minutes would look like a stalled job."""
    storage = Storage.from_url(s3.url("parts"))
    moved: list[int] = []
    storage.on_transfer = lambda: moved.append(storage.traffic.bytes_in)
    storage.publish(new_file(workdir, os.urandom(33 * _MIB)), "a.mp4")
    assert len(moved) > 4
    moved.clear()
    storage.fetch("a.mp4", workdir)
    assert (len(moved) > 4, moved[-1]) == (True, 33 * _MIB)


def test_publish_replaces_unless_existing_is_refuse(storage: Storage, workdir: Path) -> None:
    storage.publish(new_file(workdir, b"former"), "a.mp4", existing="refuse")
    first = storage.stat("a.mp4").version
    with pytest.raises(ObjectExistsError, match=r"a\.mp4.*must not be replaced"):
        storage.publish(new_file(workdir, b"another"), "a.mp4", existing="refuse")
    assert storage.fetch("a.mp4", workdir).read_bytes() == b"former"
    storage.publish(new_file(workdir, b"another"), "a.mp4")
    assert storage.fetch("a.mp4", workdir).read_bytes() == b"another"
    assert storage.stat("a.mp4").version != first


def test_publish_same_bytes_twice_with_refuse_succeeds(s3: ObjectStore, workdir: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for storage in (
        Storage.from_url(s3.url("twice")),
        Storage.from_url("memory://twice"),  # its tags are not checksums, so it is read back
        FolderStorage(tmp_path / "store"),
    ):
        for _ in range(2):  # as after a lost response
            assert storage.publish(new_file(workdir, b"the same"), "a.mp4", existing="refuse") == 8


@pytest.fixture(params=["copied", "in parts"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 17 MiB be too large for one request and, in the second case, also for one copy."""
    monkeypatch.setattr("reel_modal.storage.objects._ONE_PUT_BYTES", 10 * _MIB)
    if request.param == "in parts":
        monkeypatch.setattr("reel_modal.storage.objects._ONE_COPY_BYTES", 16 * _MIB)


@pytest.mark.usefixtures("large")
def test_publish_large_refuse_detects_earlier_and_new_objects(
    s3: ObjectStore, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A store may keep a part that arrives after the upload was aborted, so no part is in flight at that moment.
    monkeypatch.setattr("reel_modal.storage.objects._AT_ONCE", 1)
    url = s3.url(f"large-refused-{next(_numbers)}")
    storage = Storage.from_url(url)
    source = new_file(workdir, bytes(17 * _MIB))
    uploads_before = s3.unfinished_uploads()
    head_count = 0
    head = type(storage)._head  # type: ignore[attr-defined]

    def counted_head(self: object, key: str) -> object:
        nonlocal head_count
        head_count += 1
        if head_count == 2:
            Storage.from_url(url).write_bytes(key, b"a rival's")
        return head(self, key)

    monkeypatch.setattr(type(storage), "_head", counted_head)
    with pytest.raises(ObjectExistsError):
        storage.publish(source, "a.mp4", existing="refuse")
    assert storage.read_bytes("a.mp4") == b"a rival's"
    assert source.exists()
    assert s3.unfinished_uploads() == uploads_before
    assert unpublished(storage) == []
    with pytest.raises(ObjectExistsError):
        storage.publish(source, "a.mp4", existing="refuse")
    assert storage.publish(source, "b.mp4", existing="refuse") == 17 * _MIB
    assert storage.fetch("b.mp4", workdir).read_bytes() == bytes(17 * _MIB)


def unpublished(storage: Storage) -> list[object]:
    """Return the temporary objects of large uploads."""
    assert isinstance(storage, ObjectStorage)
    return [one for page in obstore.list(storage._store, storage._prefix + "unpublished/") for one in page]


@pytest.mark.parametrize("kind", ["s3", "memory"])
def test_publish_large_refuse_is_checked_by_the_store_itself(
    request: pytest.FixtureRequest, workdir: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("reel_modal.storage.objects._ONE_PUT_BYTES", 10 * _MIB)
    storage = Storage.from_url("memory://moment" if kind == "memory" else request.getfixturevalue("s3").url("moment"))
    monkeypatch.setattr(storage, "_check_free", lambda _: None)  # as if every check came too early
    source = new_file(workdir, b"1" * 17 * _MIB)
    assert storage.publish(source, "a.mp4", existing="refuse") == 17 * _MIB
    first = storage.stat("a.mp4")
    with pytest.raises(ObjectExistsError, match=r"a\.mp4"):
        storage.publish(new_file(workdir, b"2" * 17 * _MIB), "a.mp4", existing="refuse")
    assert storage.stat("a.mp4") == first
    assert (
        storage.publish(new_file(workdir, b"1" * 17 * _MIB), "a.mp4", existing="refuse") == 17 * _MIB
    )  # the same bytes
    assert unpublished(storage) == []


@pytest.mark.parametrize("copied", [True, False], ids=["answer lost", "never made"])
def test_publish_failed_copy_is_retried_and_cleaned_up(
    s3: ObjectStore, workdir: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    monkeypatch.setattr("reel_modal.storage.objects._ONE_PUT_BYTES", _MIB)
    storage = storage_at(s3.url(f"copy-{copied}"), patience=RetryPolicy(attempts=2))
    copy, calls = obstore.copy, 0

    def lose(*arguments: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if copied or calls == 2:
            copy(*arguments, **options)  # type: ignore[arg-type]
        if calls == 1:
            raise GenericError("error sending request")

    monkeypatch.setattr(obstore, "copy", lose)
    data = os.urandom(2 * _MIB)
    assert storage.publish(new_file(workdir, data), "a.mp4", existing="refuse") == 2 * _MIB
    assert storage.read_bytes("a.mp4") == data
    assert unpublished(storage) == []
    monkeypatch.setattr(obstore, "copy", lambda *_, **__: lose_always())
    source = new_file(workdir, data)
    with pytest.raises(StorageUnavailableError):
        storage.publish(source, "b.mp4", existing="refuse")
    assert source.exists()
    assert unpublished(storage) == []
    with pytest.raises(ObjectNotFoundError):
        storage.stat("b.mp4")


def lose_always() -> None:
    raise GenericError("error sending request")


@pytest.mark.parametrize(
    ("endpoint", "header"),
    [
        (None, "if-none-match"),
        ("http://127.0.0.1:9000", "if-none-match"),
        ("https://ACCOUNT.r2.cloudflarestorage.com", "cf-copy-destination-if-none-match"),
        ("https://ACCOUNT.eu.r2.cloudflarestorage.com/", "cf-copy-destination-if-none-match"),
    ],
)
def test_new_copy_header_of_r2_differs(endpoint: str | None, header: str) -> None:
    assert new_copy_header(endpoint) == header


def test_publish_large_concurrently_succeeds_once(
    s3: ObjectStore, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reel_modal.storage.objects._ONE_PUT_BYTES", _MIB)
    url, barrier = s3.url("large-rivals"), threading.Barrier(4)
    head = ObjectStorage._check_free

    def look_together(self: ObjectStorage, key: str) -> None:
        head(self, key)
        barrier.wait(60)

    monkeypatch.setattr(ObjectStorage, "_check_free", look_together)

    def publish(number: int) -> object:
        path = workdir / f"{number}.bin"
        path.write_bytes(b"%d" % number * 2 * _MIB)
        try:
            return Storage.from_url(url).publish(path, "new.mp4", existing="refuse")
        except ObjectExistsError as error:
            return type(error)

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(publish, range(4)))
    assert sorted(map(str, outcomes)) == sorted(map(str, [2 * _MIB, *[ObjectExistsError] * 3]))
    winner = outcomes.index(2 * _MIB)
    assert Storage.from_url(url).read_bytes("new.mp4") == b"%d" % winner * 2 * _MIB
    assert unpublished(Storage.from_url(url)) == []


def test_publish_new_object_concurrently_succeeds_once(storage: Storage, workdir: Path) -> None:
    outcomes: list[object] = []

    def publish(number: int) -> None:
        path = workdir / f"{number}.bin"
        path.write_bytes(b"%d" % number * 1000)
        try:
            outcomes.append(storage.publish(path, "new.mp4", existing="refuse"))
        except ObjectExistsError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert outcomes.count(1000) == 1


def test_missing_object_is_named(storage: Storage, workdir: Path) -> None:
    for operation in (
        lambda: storage.stat("no/such.mp4"),
        lambda: storage.fetch("no/such.mp4", workdir),
        lambda: storage.read_bytes("no/such.mp4"),
    ):
        with pytest.raises(ObjectNotFoundError, match=r"object 'no/such\.mp4' not found"):
            operation()
    storage.delete("no/such.mp4")


@pytest.mark.parametrize(
    "key", ["../out.mp4", "/etc/passwd", "a//b.mp4", "users/None/a.mp4", "a\nb.mp4", "a" * 241, ""]
)
def test_invalid_key_is_refused_before_any_request(storage: Storage, workdir: Path, key: str) -> None:
    source = new_file(workdir, b"new")
    for operation in (
        lambda: storage.stat(key),
        lambda: storage.open(key, workdir),
        lambda: storage.publish(source, key),
        lambda: storage.read_bytes(key),
        lambda: storage.write_bytes(key, b""),
        lambda: storage.delete(key),
    ):
        with pytest.raises(InvalidKeyError):
            operation()
    assert source.read_bytes() == b"new"


def test_read_bytes_small_object_and_refuses_large_one(storage: Storage, workdir: Path) -> None:
    storage.write_bytes("a/b/note.json", b"{}")
    storage.write_bytes("a/b/note.json", b"[]")
    assert storage.read_bytes("a/b/note.json") == b"[]"
    storage.delete("a/b/note.json")
    with pytest.raises(ObjectNotFoundError):
        storage.read_bytes("a/b/note.json")
    storage.publish(new_file(workdir, bytes(16 * _MIB + 1)), "large.mp4")
    with pytest.raises(StorageError, match="fetch it into a file"):
        storage.read_bytes("large.mp4")


def test_ranged_object_fetches_only_requested_ranges(s3: ObjectStore, workdir: Path) -> None:
    storage = Storage.from_url(s3.url("parts"))
    data = os.urandom(40 * _MIB + 17)
    storage.publish(new_file(workdir, data), "match.mp4")
    source = storage.open("match.mp4", workdir)
    assert (storage.traffic.bytes_in, source.whole) == (0, False)
    with source.file() as file:
        file.seek(-17, os.SEEK_END)
        assert file.read() == data[-17:]
        file.seek(20 * _MIB - 5)
        assert file.read(10) == data[20 * _MIB - 5 : 20 * _MIB + 5]
        assert file.tell() == 20 * _MIB + 5
    assert storage.traffic.bytes_in == 2 * _MIB + 17
    source.ensure([(3 * _MIB + 1, 5 * _MIB)])
    assert storage.traffic.bytes_in == 4 * _MIB + 17
    with source.path.open("rb") as file:
        file.seek(3 * _MIB + 1)
        assert file.read(2 * _MIB - 1) == data[3 * _MIB + 1 : 5 * _MIB]
    source.ensure([(3 * _MIB, 4 * _MIB), (100 * _MIB, 200 * _MIB)])
    assert storage.traffic.bytes_in == 4 * _MIB + 17
    source.ensure()
    assert source.whole
    assert source.path.read_bytes() == data
    assert storage.traffic.bytes_in == len(data)


def test_folder_object_is_opened_in_place(tmp_path: Path, workdir: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"bytes")
    source = FolderStorage(tmp_path).open("a.mp4", workdir)
    with source.file() as file:
        assert file.read() == b"bytes"
    assert (source.path, source.whole) == (tmp_path / "a.mp4", True)
    assert list(workdir.iterdir()) == []


def test_signed_url_works_until_it_expires(s3: ObjectStore, workdir: Path) -> None:
    storage = Storage.from_url(s3.url("signed"))
    put = httpx.put(storage.signed_url("a.mp4", method="PUT"), content=b"from a browser")
    assert put.status_code == httpx.codes.OK
    assert storage.read_bytes("a.mp4") == b"from a browser"
    storage.publish(new_file(workdir, b"picture"), "b.mp4")
    got = httpx.get(storage.signed_url("b.mp4"))
    assert (got.content, got.headers["Content-Type"]) == (b"picture", "video/mp4")
    url = storage.signed_url("b.mp4", seconds=2)
    deadline = time.monotonic() + 30
    while (late := httpx.get(url)).status_code == httpx.codes.OK and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (late.status_code, "expired" in late.text) == (httpx.codes.FORBIDDEN, True)
    assert SECRET_KEY not in url
    for seconds in (0, 8 * 86_400):
        with pytest.raises(ConfigError, match="seven days"):
            storage.signed_url("b.mp4", seconds=seconds)


def test_signed_url_without_support_is_refused(tmp_path: Path) -> None:
    for storage in (FolderStorage(tmp_path), Storage.from_url("memory://urls")):
        with pytest.raises(ConfigError, match="your own routes"):
            storage.signed_url("a.mp4")


def test_memory_store_is_shared_by_name(workdir: Path) -> None:
    Storage.from_url("memory://one").write_bytes("a", b"1")
    assert Storage.from_url("memory://one").read_bytes("a") == b"1"
    with pytest.raises(ObjectNotFoundError):
        Storage.from_url("memory://other").read_bytes("a")


def test_store_repr_and_check_show_no_secret(s3: ObjectStore, tmp_path: Path) -> None:
    storage = Storage.from_url(s3.url("said/prefix"))
    assert repr(storage) == "ObjectStorage('s3://reels-test/said/prefix')"
    assert storage.check() == "s3://reels-test/said/prefix, reachable, and empty"
    storage.write_bytes("a", b"")
    assert storage.check() == "s3://reels-test/said/prefix, reachable"
    assert "GB free" in FolderStorage(tmp_path).check()
    assert SECRET_KEY not in str(vars(storage))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"s3://{ACCESS_KEY}:{SECRET_KEY}@bucket/", "must not contain credentials.*AWS_SECRET_ACCESS_KEY"),
        (f"s3://bucket/?secret_access_key={SECRET_KEY}", "option 'secret_access_key' is unknown"),
        (f"s3://bucket/?endpoint=https://u:{SECRET_KEY}@host", "endpoint must be"),
        ("s3://bucket/?endpoint=host:9000", "endpoint must be"),
        ("s3://bucket/?endpoint=http://host/path", "endpoint must be"),
        ("s3://bucket/?region=", "'region'.*empty"),
        ("s3://bucket/?region=a&region=b", "'region'.*repeated"),
        ("s3:///prefix", "is not a valid bucket name"),
        ("s3://Bucket/", "is not a valid bucket name"),
        ("s3://bucket/../other", "as a prefix"),
        ("s3://bucket/a#b", "fragment"),
        ("memory://a/b", "only a name"),
        (f"gs://user:{SECRET_KEY}@bucket", "must not contain credentials"),
        ("gs://bucket", "'gs' is unsupported"),
    ],
)
def test_storage_invalid_url_is_refused_without_the_secret(url: str, problem: str) -> None:
    env = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with pytest.raises(ConfigError, match=problem) as caught:
        storage_at(url, env=env)
    assert SECRET_KEY not in repr(caught.value)


@pytest.mark.parametrize(
    "env", [{}, {"AWS_ACCESS_KEY_ID": "a"}, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": ""}]
)
def test_storage_without_credentials_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"no credentials for 's3://bucket/a'.*Modal secret"):
        storage_at("s3://bucket/a", env=env)


def test_list_folder_returns_own_objects_and_folders(storage: Storage) -> None:
    for key in ("a/1.mp4", "a/b/2.mp4", "a/b/c/3.mp4", "a/z/4.mp4", "ab/5.mp4", "a/ü +.mp4"):
        storage.write_bytes(key, key.encode())
    listing = storage.list_folder("a")
    assert [(each.key, each.bytes) for each in listing.objects] == [("a/1.mp4", 7), ("a/ü +.mp4", 10)]
    assert listing.folders == ("a/b", "a/z")
    for each in listing.objects:
        assert abs((datetime.now(UTC) - each.modified_at).total_seconds()) < 300
    whole = storage.list_folder("")
    assert "a" in whole.folders
    assert all("/" not in key for key in (*whole.folders, *(each.key for each in whole.objects)))
    assert storage.list_folder("missing") == storage.list_folder("a/1.mp4") == FolderListing((), ())
    with pytest.raises(InvalidKeyError):
        storage.list_folder("../a")


def test_list_folder_of_a_folder_skips_unfinished_files_and_links(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.write_bytes("a/1.mp4", b"1")
    (tmp_path / "a" / ".1.mp4.0123.part.mp4").write_bytes(b"")
    (tmp_path / "a" / "link").symlink_to(tmp_path)
    listing = storage.list_folder("a")
    assert ([each.key for each in listing.objects], listing.folders) == (["a/1.mp4"], ())
