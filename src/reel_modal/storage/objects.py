"""Objects in a bucket, or in memory, through obstore's synchronous calls.

Its asynchronous ones can abort the interpreter at its exit; a host on an event loop uses threads. It must not know
what the objects are for, and loads obstore with the first store that is made.
"""

from __future__ import annotations

import hashlib
import logging
import mimetypes
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import stamina

from reel_modal.errors import (
    ConfigError,
    MissingDependencyError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from reel_modal.schema.keys import check_key
from reel_modal.storage.base import ExistingObject, ObjectInfo, Storage, StoredObject, check_small
from reel_modal.storage.faults import disk_error, storage_error
from reel_modal.storage.ranged import RangedObject

if TYPE_CHECKING:
    from types import ModuleType

    from obstore.store import ObjectStore

__all__ = ["ObjectStorage", "Patience", "memory_store", "s3_store"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PART_BYTES: Final = 8 << 20
_ONE_PUT_BYTES: Final = 64 << 20
"""Up to this, an object that must be new is put by one conditional request, which holds it in memory."""

_ONE_COPY_BYTES: Final = 5_000_000_000
"""The largest object that S3 copies by one request."""

_UNPUBLISHED: Final = "unpublished"
"""The folder in which a large file lies until it gets its key; docs/storage.md has the rule that empties it."""

_AT_ONCE: Final = 4
_MD5_TAG: Final = re.compile(r'"?([0-9a-f]{32}(?:-\d+)?)"?')
_LONGEST_SIGNED_SECONDS: Final = 7 * 86_400
_WITHOUT_REASON: Final = frozenset({"PermissionDeniedError", "UnauthenticatedError"})
"""Failures that an answer to HEAD leaves without a reason, since it has no body."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a store on the network may take, and how often it is asked again.

    Attributes:
        connect_seconds: Until a connection is there.
        silent_seconds: Without a byte of an answer.
        request_seconds: For one request, of at most 8 MiB: slower than 28 kB/s is too slow.
        request_retries: How often one request, or one part of a large file, is sent again by itself.
        attempts: Of a call in all, where its failure may pass.
        retry_seconds: After this long no further attempt begins.
    """

    connect_seconds: float = 10.0
    silent_seconds: float = 60.0
    request_seconds: float = 300.0
    request_retries: int = 2
    attempts: int = 4
    retry_seconds: float = 120.0


class ObjectStorage(Storage):
    """Objects of one of obstore's stores, below a prefix. `Storage.from_url` makes one.

    Args:
        store: The store.
        name: What stands for it in messages; no credentials.
        prefix: In front of every key.
        patience: How long it may take.
    """

    def __init__(self, store: ObjectStore, name: str, *, prefix: str = "", patience: Patience = Patience()) -> None:
        super().__init__()
        self.name: str = name
        self._store = store
        self._prefix = f"{prefix}/" if prefix else ""
        self._patience = patience
        self._obstore = _load_obstore()
        self._counting = threading.Lock()

    def __repr__(self) -> str:
        return f"ObjectStorage({self.name!r})"

    def stat(self, key: str) -> ObjectInfo:
        """See `Storage.stat`."""
        return self._ask(key, lambda: self._head(key))

    def open(self, key: str, folder: Path) -> StoredObject:
        """See `Storage.open`."""
        info = self.stat(key)
        path = folder / f"source-{secrets.token_hex(4)}{PurePosixPath(key).suffix}"
        return RangedObject(info, path, lambda first, end: self._read(info, first, end))

    def publish(self, source: Path, key: str, *, existing: ExistingObject = "replace") -> int:
        """See `Storage.publish`; the parts of a large file are put one by one, and shown when all are there.

        Where `existing` is `refuse`, the store itself refuses what is not new: up to 64 MiB by one conditional
        request, above that by a conditional copy of what was sent under another name. Above 5 GB, and in a store that
        takes no heed of conditions on copies, a look right before has to do: of two jobs that end within the same
        moment, both may succeed there, and the later one's object stays.
        """
        check_key(key)
        try:
            size, expected = source.stat().st_size, _entity_tags(source)
        except OSError as error:
            raise disk_error(error, f"{str(source)!r} could not be read") from error
        try:
            tag = self._ask(key, lambda: self._put(source, size, key, existing))
        except ObjectExistsError:
            # Is it this file, from an attempt whose answer was lost, or from the same job before?
            if not self._has_bytes_of(source, self.stat(key), expected):
                raise
        else:
            if not self._holds(key, tag, expected, source):
                self.delete(key)
                raise StorageError(
                    f"what the store holds under {key!r} is not what was sent, so it was removed; try again"
                )
        self._count(bytes_out=size)
        try:
            source.unlink()
        except OSError as error:
            raise disk_error(error, f"{key!r} is in place, but {str(source)!r} could not be removed") from error
        return size

    def read_bytes(self, key: str) -> bytes:
        """See `Storage.read_bytes`."""
        info = self.stat(key)
        check_small(key, info.bytes)
        return self._read(info, 0, info.bytes)

    def write_bytes(self, key: str, data: bytes) -> None:
        """See `Storage.write_bytes`."""
        check_key(key)
        attributes = _attributes(key)
        self._ask(
            key,
            lambda: self._obstore.put(
                self._store, self._prefix + key, data, attributes=attributes, use_multipart=False
            ),
        )
        self._count(bytes_out=len(data))

    def delete(self, key: str) -> None:
        """See `Storage.delete`."""
        check_key(key)
        try:
            self._ask(key, lambda: self._obstore.delete(self._store, self._prefix + key))
        except ObjectNotFoundError:
            return

    def check(self) -> str:
        """See `Storage.check`; one request, which lists at most one object."""
        prefix = self._prefix.rstrip("/") or None
        found: list[object] = self._ask(
            "", lambda: next(iter(self._obstore.list(self._store, prefix, chunk_size=1)), [])
        )
        return f"{self.name}, {'answers' if found else 'answers, and is empty'}"

    def signed_url(self, key: str, *, seconds: float = 3600, method: Literal["GET", "PUT"] = "GET") -> str:
        """See `Storage.signed_url`."""
        check_key(key)
        if not 0 < seconds <= _LONGEST_SIGNED_SECONDS:
            raise ConfigError(f"a signed URL of {seconds:g} s is not possible; 1 second to seven days is")
        if not self.name.startswith("s3:"):
            return super().signed_url(key, seconds=seconds, method=method)
        sign: Callable[..., str] = self._obstore.sign
        return self._ask(key, lambda: sign(self._store, method, self._prefix + key, timedelta(seconds=seconds)))

    def _head(self, key: str) -> ObjectInfo:
        check_key(key)
        try:
            meta = self._obstore.head(self._store, self._prefix + key)
        except Exception as error:
            if isinstance(error, FileNotFoundError) or type(error).__name__ in _WITHOUT_REASON:
                raise self._told(key) or error from error
            raise
        version = meta["e_tag"] or f"{meta['last_modified'].isoformat()}-{meta['size']}"
        return ObjectInfo(key, meta["size"], version)

    def _told(self, key: str) -> Exception | None:
        """Return what the store says against reading one byte of an object; None when it gives it."""
        try:
            self._obstore.get(self._store, self._prefix + key, options={"range": (0, 1)}).bytes()
        except Exception as error:  # noqa: BLE001 - it is raised by the caller
            return error
        return None

    def _read(self, info: ObjectInfo, first: int, end: int) -> bytes:
        """Return a part of this very version of an object."""
        if end <= first:
            return b""
        options: dict[str, object] = {"range": (first, end), "if_match": info.version}
        data = self._ask(
            info.key,
            lambda: bytes(self._obstore.get(self._store, self._prefix + info.key, options=options).bytes()),
        )
        if len(data) != end - first:
            raise StorageUnavailableError(
                f"the store gave {len(data)} bytes of {info.key!r} where it has {end - first}; try again"
            )
        self._count(bytes_in=len(data))
        return data

    def _put(self, source: Path, size: int, key: str, existing: ExistingObject) -> str | None:
        """Send the file, and return the store's tag of what it has received."""
        path, attributes = self._prefix + key, _attributes(key)
        put: Callable[..., dict[str, str | None]] = self._obstore.put
        new = existing == "refuse"
        if size <= (_ONE_PUT_BYTES if new else _PART_BYTES):
            data = source.read_bytes()
            mode = "create" if new else "overwrite"
            return put(self._store, path, data, attributes=attributes, mode=mode, use_multipart=False)["e_tag"]
        if new:
            self._check_free(key)
        if new and size <= _ONE_COPY_BYTES:
            return self._put_aside(source, key)
        return self._put_parts(source, key, before_last=lambda: self._check_free(key) if new else None)

    def _put_parts(self, source: Path, key: str, before_last: Callable[[], None] = lambda: None) -> str | None:
        """Send a file part by part, and return the store's tag; nothing is shown if `before_last` raises."""
        put: Callable[..., dict[str, str | None]] = self._obstore.put
        return put(
            self._store,
            self._prefix + key,
            self._sent(_parts(source, before_last)),
            attributes=_attributes(key),
            use_multipart=True,
            chunk_size=_PART_BYTES,
            max_concurrency=_AT_ONCE,
        )["e_tag"]

    def _put_aside(self, source: Path, key: str) -> str | None:
        """Send a file under a name that nobody asks for, then give it its own, which must be free; return the tag.

        obstore sets no condition on the end of an upload in parts, but it does on a copy, which the store makes.
        """
        aside = f"{_UNPUBLISHED}/{secrets.token_hex(16)}{PurePosixPath(key).suffix}"
        self._put_parts(source, aside)
        try:
            self._check_free(key)
            self._obstore.copy(self._store, self._prefix + aside, self._prefix + key, overwrite=False)
        finally:
            self._remove_aside(aside)
        return self._head(key).version

    def _remove_aside(self, aside: str) -> None:
        try:
            self._obstore.delete(self._store, self._prefix + aside)
        except Exception as error:  # noqa: BLE001 - whatever it is, the file itself is in place, or its failure is told
            said = storage_error(error, aside)
            _log.warning("%s stays in %s until the bucket's rule removes it: %s", aside, self.name, said)

    def _sent(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the parts; who asks for the next one has sent one."""
        for part in parts:
            yield part
            self.on_transfer()

    def _check_free(self, key: str) -> None:
        # obstore allows no call of its own in the thread in which it takes the parts.
        with ThreadPoolExecutor(1, thread_name_prefix="reel_modal-look") as pool:
            try:
                pool.submit(self._head, key).result()
            except FileNotFoundError:
                return
        raise ObjectExistsError(f"there is an object under {key!r} already; it is not to be replaced")

    def _holds(self, key: str, tag: str | None, expected: tuple[str, str], source: Path) -> bool:
        """Whether the store has what was sent: by its tag where that is a checksum, else by reading it back."""
        told = _MD5_TAG.fullmatch(tag or "")
        if told is not None and told[1] in expected:
            return True
        info = self.stat(key)
        if tag is not None and info.version != tag:
            return True  # somebody has put another object there since, which says nothing of ours
        return self._has_bytes_of(source, info, expected)

    def _has_bytes_of(self, source: Path, info: ObjectInfo, expected: tuple[str, str]) -> bool:
        """Whether this version of an object is the file: by its tag where that is a checksum, else by reading it."""
        told = _MD5_TAG.fullmatch(info.version)
        if told is not None and told[1] in expected:
            return True
        if info.bytes != source.stat().st_size:
            return False
        with source.open("rb") as file:
            for first in range(0, info.bytes, _PART_BYTES):
                end = min(first + _PART_BYTES, info.bytes)
                if file.read(end - first) != self._read(info, first, end):
                    return False
        return True

    def _ask(self, key: str, call: Callable[[], T]) -> T:
        """Return what the store answers; ask again where its failure may pass."""
        for attempt in stamina.retry_context(
            on=StorageUnavailableError,
            attempts=self._patience.attempts,
            timeout=self._patience.retry_seconds,
            wait_initial=0.2,
            wait_max=5.0,
        ):
            with attempt:
                try:
                    return call()
                except StorageError:
                    raise
                except Exception as error:
                    raise storage_error(error, key) from error
        raise StorageUnavailableError(f"the store was not asked for {key!r}: no attempt is allowed")

    def _count(self, *, bytes_in: int = 0, bytes_out: int = 0) -> None:
        with self._counting:
            self.traffic.bytes_in += bytes_in
            self.traffic.bytes_out += bytes_out
        self.on_transfer()


def s3_store(bucket: str, *, endpoint: str | None, region: str | None, patience: Patience) -> ObjectStore:
    """Return obstore's client of a bucket, with the credentials of the environment."""
    _load_obstore()
    from obstore.store import S3Store

    given = {"endpoint": endpoint, "region": region}
    return S3Store(
        bucket,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        copy_if_not_exists=f"header: {new_copy_header(endpoint)}: *",
        client_options={
            "allow_http": endpoint is not None and endpoint.startswith("http:"),
            "connect_timeout": timedelta(seconds=patience.connect_seconds),
            "read_timeout": timedelta(seconds=patience.silent_seconds),
            "timeout": timedelta(seconds=patience.request_seconds),
        },
        # What fails as a whole, stamina tries again.
        retry_config={
            "max_retries": patience.request_retries,
            "retry_timeout": timedelta(seconds=patience.retry_seconds),
        },
    )


def new_copy_header(endpoint: str | None) -> str:
    """Return the name of the header by which a copy says that there must be no object yet."""
    on_r2 = endpoint is not None and endpoint.rstrip("/").endswith(".r2.cloudflarestorage.com")
    return "cf-copy-destination-if-none-match" if on_r2 else "if-none-match"


_memories: dict[str, ObjectStore] = {}
_memories_lock = threading.Lock()


def memory_store(name: str) -> ObjectStore:
    """Return this process's store of that name."""
    _load_obstore()
    from obstore.store import MemoryStore

    with _memories_lock:
        return _memories.setdefault(name, MemoryStore())


def _load_obstore() -> ModuleType:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise MissingDependencyError(f"obstore does not load here ({error}); pip install obstore") from error
    return obstore


def _attributes(key: str) -> dict[str, str]:
    """Return what a browser needs to play the object."""
    kind = mimetypes.guess_type(key)[0]
    return {"Content-Type": kind} if kind else {}


def _parts(source: Path, before_last: Callable[[], None]) -> Iterator[bytes]:
    """Yield the file in parts; `before_last` may still end the upload, and nothing is shown then."""
    with source.open("rb") as file:
        part = file.read(_PART_BYTES)
        while part:
            following = file.read(_PART_BYTES)
            if not following:
                before_last()
            yield part
            part = following


def _entity_tags(path: Path) -> tuple[str, str]:
    """Return the tags that S3 gives the file: its MD5, and that of the MD5s of its parts with their number."""
    whole, joined, count = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False), 0
    for part in _parts(path, before_last=lambda: None):
        whole.update(part)
        joined.update(hashlib.md5(part, usedforsecurity=False).digest())
        count += 1
    return whole.hexdigest(), f"{joined.hexdigest()}-{count}"
