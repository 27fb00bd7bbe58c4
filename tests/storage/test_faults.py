"""Storage under faults of network, disk and server: no lost or partial objects, and every error is named."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from obstore.exceptions import GenericError
from tests.object_store import BUCKET, SECRET_KEY, Network, ObjectStore, free_ports

from reel_modal.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from reel_modal.settings import Settings
from reel_modal.storage import FolderStorage, Storage
from reel_modal.storage.faults import storage_error
from reel_modal.storage.objects import RetryPolicy
from reel_modal.storage.urls import storage_at

_MIB = 1 << 20
HASTY = RetryPolicy(
    connect_seconds=2, read_timeout_seconds=1, request_seconds=3, request_retries=0, attempts=2, retry_seconds=20
)

UPLOAD = """
import sys
from pathlib import Path
from reel_modal.storage import Storage
Storage.from_url(sys.argv[1]).publish(Path(sys.argv[2]), "killed.mp4", existing=sys.argv[3])
"""


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small disk needs the right to mount one")
    yield disk
    subprocess.run(["/bin/umount", disk], check=True)


def new_file(folder: Path, size: int, name: str = "made.mp4") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_publish_killed_upload_keeps_the_old_object(s3: ObjectStore, tmp_path: Path) -> None:
    storage = Storage.from_url(s3.url("killed"))
    storage.write_bytes("killed.mp4", b"former")
    source = new_file(tmp_path, 40 * _MIB)
    with Network(bytes_per_second=5e6).to(s3.port) as network:
        command = [sys.executable, "-c", UPLOAD, s3.url("killed", port=network.port), str(source), "replace"]
        uploading = subprocess.Popen(command, env=os.environ | s3.environment)
        wait_until(lambda: network.passed > 12 * _MIB)
        uploading.kill()
        uploading.wait()
    assert storage.read_bytes("killed.mp4") == b"former"
    assert source.stat().st_size == 40 * _MIB
    # The unfinished upload is hidden, as on S3; a lifecycle rule of the bucket removes it (docs/storage.md).
    assert len(s3.unfinished_uploads()) == 1
    assert storage.publish(source, "killed.mp4") == 40 * _MIB
    assert storage.stat("killed.mp4").bytes == 40 * _MIB


def test_publish_killed_before_the_final_copy_shows_nothing(s3: ObjectStore, tmp_path: Path) -> None:
    storage = Storage.from_url(s3.url("unnamed"))
    source = new_file(tmp_path, 65 * _MIB)
    with Network(silent_from=b"x-amz-copy-source").to(s3.port) as network:
        command = [sys.executable, "-c", UPLOAD, s3.url("unnamed", port=network.port), str(source), "refuse"]
        uploading = subprocess.Popen(command, env=os.environ | s3.environment)
        wait_until(lambda: network.silent)
        uploading.kill()
        uploading.wait()
    network.silent = False  # the killed process receives nothing any more
    with pytest.raises(ObjectNotFoundError):
        storage.stat("killed.mp4")
    # The file stays under `unpublished/` until a lifecycle rule removes it (docs/storage.md).
    assert len(s3.files_in("unnamed/unpublished")) == 1
    assert storage.publish(source, "killed.mp4", existing="refuse") == 65 * _MIB
    assert storage.stat("killed.mp4").bytes == 65 * _MIB
    assert len(s3.files_in("unnamed/unpublished")) == 1


def test_transfer_lost_connection_is_retried_completely(s3: ObjectStore, tmp_path: Path) -> None:
    data = os.urandom(20 * _MIB)
    with Network(cut_after_bytes=_MIB, cuts=3).to(s3.port) as network:
        storage = Storage.from_url(s3.url("lost", port=network.port))
        source = tmp_path / "made.mp4"
        source.write_bytes(data)
        storage.publish(source, "a.mp4")
        assert storage.fetch("a.mp4", tmp_path).read_bytes() == data
        assert network.cuts == 0


def test_fetch_connection_always_lost_is_unavailable(s3: ObjectStore, tmp_path: Path) -> None:
    Storage.from_url(s3.url("lost-always")).publish(new_file(tmp_path, 2 * _MIB), "a.mp4")
    with Network(cut_after_bytes=65536, cuts=1000).to(s3.port) as network:
        storage = storage_at(s3.url("lost-always", port=network.port), patience=HASTY)
        with pytest.raises(StorageUnavailableError, match=r"did not respond for object 'a\.mp4'"):
            storage.fetch("a.mp4", tmp_path)


def test_storage_silent_or_unreachable_server_times_out(s3: ObjectStore, tmp_path: Path) -> None:
    with Network(silent=True).to(s3.port) as network:
        storage = storage_at(s3.url("silent", port=network.port), patience=HASTY)
        for operation in (lambda: storage.stat("a.mp4"), lambda: storage.publish(new_file(tmp_path, 100), "a.mp4")):
            with pytest.raises(StorageUnavailableError, match="check the endpoint and the network"):
                operation()
        network.silent = False
    unreachable = storage_at(s3.url("away", port=free_ports(1)[0]), patience=HASTY)
    with pytest.raises(StorageUnavailableError, match="check the endpoint"):
        unreachable.check()


def test_storage_slow_network_works_until_the_timeout(s3: ObjectStore, tmp_path: Path) -> None:
    source = new_file(tmp_path, 2 * _MIB)
    data = source.read_bytes()
    with Network(bytes_per_second=2e6).to(s3.port) as network:
        slow = s3.url("slow", port=network.port)
        Storage.from_url(slow).publish(source, "a.mp4")
        assert Storage.from_url(slow).fetch("a.mp4", tmp_path).read_bytes() == data
        network.bytes_per_second = 1e5
        with pytest.raises(StorageUnavailableError, match=r"'a\.mp4'"):
            storage_at(slow, patience=RetryPolicy(request_seconds=0.5, attempts=1)).fetch("a.mp4", tmp_path)


def test_publish_data_changed_in_transit_is_refused(s3: ObjectStore, tmp_path: Path) -> None:
    with Network(flip_at=50_000).to(s3.port) as network:
        storage = storage_at(s3.url("changed", port=network.port), patience=HASTY)
        for size in (_MIB, 17 * _MIB):
            with pytest.raises(StorageError, match=r"a\.mp4"):
                storage.publish(new_file(tmp_path, size), "a.mp4")
    with pytest.raises(ObjectNotFoundError):
        Storage.from_url(s3.url("changed")).stat("a.mp4")


@pytest.mark.parametrize("kind", ["s3", "memory"])
def test_publish_different_stored_content_is_removed(
    s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    storage = Storage.from_url(s3.url("compared") if kind == "s3" else "memory://compared")

    def put_less(source: Path, size: int, key: str, existing: str) -> str | None:
        storage.write_bytes(key, source.read_bytes()[:-1] + b"?")
        return storage.stat(key).version

    monkeypatch.setattr(storage, "_put", put_less)
    source = new_file(tmp_path, 1000)
    with pytest.raises(StorageError, match=r"'a\.mp4' differs from the file that was sent, so it was removed"):
        storage.publish(source, "a.mp4")
    assert source.stat().st_size == 1000
    with pytest.raises(ObjectNotFoundError):
        storage.stat("a.mp4")


def test_storage_refused_access_names_cause_and_cure(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    url = s3.url("refused")
    with pytest.raises(StorageAccessError, match=r"NoSuchBucket.*create the bucket"):
        Storage.from_url(url.replace(BUCKET, "no-such-bucket")).read_bytes("a.mp4")
    with pytest.raises(StorageAccessError, match=r"NoSuchBucket.*create the bucket"):
        Storage.from_url(url.replace(BUCKET, "no-such-bucket")).check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    for operation in (
        lambda: Storage.from_url(url).stat("a.mp4"),
        lambda: Storage.from_url(url).read_bytes("a.mp4"),
        lambda: Storage.from_url(url).write_bytes("a.mp4", b""),
        lambda: Storage.from_url(url).delete("a.mp4"),
        lambda: Storage.from_url(url).check(),
    ):
        with pytest.raises(StorageAccessError, match=r"SignatureDoesNotMatch.*correct AWS_SECRET_ACCESS_KEY"):
            operation()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    with pytest.raises(StorageAccessError, match=r"InvalidAccessKeyId.*correct AWS_ACCESS_KEY_ID"):
        Storage.from_url(url).stat("a.mp4")


def test_ranged_object_replaced_during_reading_raises(s3: ObjectStore, tmp_path: Path) -> None:
    storage = Storage.from_url(s3.url("replaced"))
    storage.publish(new_file(tmp_path, 20 * _MIB), "a.mp4")
    source = storage.open("a.mp4", tmp_path)
    source.ensure([(0, 100)])
    Storage.from_url(s3.url("replaced")).publish(new_file(tmp_path, 20 * _MIB), "a.mp4")
    with pytest.raises(ObjectChangedError, match=r"'a\.mp4' was replaced while it was read"):
        source.ensure()
    storage.delete("a.mp4")
    with pytest.raises(ObjectNotFoundError):
        source.ensure()


def test_fetch_onto_full_disk_is_refused_before_and_during(
    s3: ObjectStore, tmp_path: Path, full_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage.from_url(s3.url("room"))
    storage.publish(new_file(tmp_path, 6 * _MIB), "a.mp4")
    with pytest.raises(StorageFullError, match=r"needs 6291456 bytes.*TMPDIR"):
        storage.fetch("a.mp4", full_disk)
    assert storage.traffic.bytes_in == 0
    # Another process uses the space after it was checked.
    monkeypatch.setattr("reel_modal.storage.ranged.RangedObject._check_room", lambda *_: None)
    with pytest.raises(StorageFullError, match=r"No space left on device; free some space"):
        storage.fetch("a.mp4", full_disk)


def test_folder_store_on_full_disk_keeps_the_old_object(tmp_path: Path, full_disk: Path) -> None:
    storage = FolderStorage(full_disk)
    storage.write_bytes("a.mp4", b"former")
    source = new_file(tmp_path, 6 * _MIB)
    with pytest.raises(StorageFullError, match="No space left on device; free some space"):
        storage.publish(source, "a.mp4")
    with pytest.raises(StorageFullError, match="No space left on device"):
        storage.write_bytes("b.json", bytes(6 * _MIB))
    assert [path.name for path in full_disk.iterdir()] == ["a.mp4"]
    assert storage.read_bytes("a.mp4") == b"former"
    assert source.stat().st_size == 6 * _MIB


def test_publish_to_full_server_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ObjectStore(tmp_path / "server", "-volume.max=2", "-master.volumeSizeLimitMB=1") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        former = Storage.from_url(server.url())
        former.write_bytes("a.mp4", b"former")
        storage = storage_at(server.url(), patience=HASTY)
        # This server only reports an internal error; an object must be stored or refused.
        with pytest.raises(StorageUnavailableError, match=r"'new/.*InternalError.*check whether it is full"):  # noqa: PT012
            for number in range(100):
                storage.publish(new_file(tmp_path, 10 * _MIB), f"new/{number}.mp4")
        with pytest.raises(StorageUnavailableError, match="check whether it is full"):
            storage.publish(new_file(tmp_path, 10 * _MIB), "a.mp4")
        assert former.read_bytes("a.mp4") == b"former"


@pytest.mark.parametrize(
    "answer",
    [
        "507 Insufficient Storage: <Error><Code>InsufficientStorage</Code></Error>",
        "507 Insufficient Storage: ",
        "500 Internal Server Error: <Error><Code>XMinioStorageFull</Code><Message>no space</Message></Error>",
        "403 Forbidden: <Error><Code>QuotaExceeded</Code></Error>",
        "403 Forbidden: <Error><Code>AccessDenied</Code><Message>Cannot upload files, storage cap exceeded.</Message></Error>",
        "500 Internal Server Error: <Error><Code>InternalError</Code><Message>No writable volumes</Message></Error>",
    ],
)
def test_storage_error_of_full_server_is_storage_full(answer: str) -> None:
    """Documented errors of several servers, none of which can be filled here."""
    server_error = GenericError(
        f"Generic S3 error: Error performing PUT http://x/a - Server returned non-2xx status code: {answer}"
    )
    mapped = storage_error(server_error, "a.mp4")
    assert isinstance(mapped, StorageFullError)
    assert "has no space for object 'a.mp4'" in str(mapped)


def test_storage_200_concurrent_jobs_lose_nothing(s3: ObjectStore, tmp_path: Path) -> None:
    storage = Storage.from_url(s3.url("many"))
    storage.write_bytes("input.mp4", b"input" * 1000)

    def job(number: int) -> int:
        workdir = tmp_path / str(number)
        workdir.mkdir()
        mine = Storage.from_url(s3.url("many"))  # as a separate process creates it
        data = mine.fetch("input.mp4", workdir).read_bytes()
        output = workdir / "out.mp4"
        output.write_bytes(data + b"%d" % number)
        return mine.publish(output, f"out/{number}.mp4", existing="refuse")

    with ThreadPoolExecutor(200) as pool:
        sizes = list(pool.map(job, range(200)))
    assert len(sizes) == 200
    for number in range(200):
        assert storage.read_bytes(f"out/{number}.mp4") == b"input" * 1000 + b"%d" % number
    assert storage.check()


def test_secret_is_in_no_log_error_or_pickle(
    s3: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"token-{SECRET_KEY}")
    caplog.set_level(logging.DEBUG)
    outputs: list[str] = []
    with Network(cut_after_bytes=10, cuts=100).to(s3.port) as network:
        for url in (s3.url("secret"), s3.url("secret", port=network.port), s3.url("secret", port=free_ports(1)[0])):
            storage = storage_at(url, patience=HASTY)
            outputs.append(repr(storage))
            for operation in (
                lambda: storage.fetch("no.mp4", tmp_path),  # noqa: B023 - called immediately
                lambda: storage.publish(new_file(tmp_path, 9 * _MIB), "a.mp4"),  # noqa: B023
                lambda: storage.write_bytes("b.json", b"{}"),  # noqa: B023
                lambda: storage.check(),  # noqa: B023, PLW0108
            ):
                try:
                    outputs.append(repr(operation()))
                except StorageError as error:
                    outputs += [*traceback.format_exception(error), repr(pickle.dumps(error))]
    assert "Traceback" in "".join(outputs)
    assert SECRET_KEY not in "".join(outputs)
    assert caplog.records
    assert SECRET_KEY not in caplog.text
    assert SECRET_KEY not in s3.log.read_text(errors="replace")


def test_doctor_store_check_shows_the_cure(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from reel_modal.cli.doctor import _storage

    def look(url: str) -> tuple[bool, str, str]:
        finding = _storage(Settings(store_url=url))
        return finding.ok, finding.detail, finding.cure

    assert look(s3.url("doctor")) == (True, "s3://reels-test/doctor, reachable, and empty", "")
    ok, detail, cure = look(s3.url("doctor").replace(BUCKET, "no-such-bucket"))
    assert (ok, "NoSuchBucket" in detail) == (False, True)
    assert cure == "create the bucket, or correct the storage URL and its endpoint"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    ok, detail, cure = look(s3.url("doctor"))
    assert (ok, cure) == (False, "correct AWS_SECRET_ACCESS_KEY, and the region in the storage URL")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert look(s3.url("doctor"))[::2] == (False, "correct REEL_MODAL_STORE_URL")
    assert look((tmp_path / "nowhere").as_uri())[::2] == (False, "correct REEL_MODAL_STORE_URL")
    assert look(tmp_path.as_uri())[0]
