"""Objects in a bucket, or in memory, through obstore's synchronous functions.

obstore's asynchronous functions can abort the interpreter at exit; on an event loop, use threads. obstore is
imported when the first store is created, stamina at its first request.
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

from reel_modal.errors import (
    ConfigError,
    MissingDependencyError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from reel_modal.schema.keys import check_key
from reel_modal.storage.base import (
    ExistingObject,
    FolderListing,
    ListedObject,
    ObjectInfo,
    Storage,
    StoredObject,
    check_small,
)
from reel_modal.storage.faults import disk_error, storage_error
from reel_modal.storage.ranged import RangedObject

if TYPE_CHECKING:
    from types import ModuleType

    from obstore.store import ObjectStore

__all__ = ["ObjectStorage", "RetryPolicy", "memory_store", "s3_store"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PART_BYTES: Final = 8 << 20
_ONE_PUT_BYTES: Final = 64 << 20
"""Up to this size, an object that must be new is sent by one conditional request, which holds it in memory."""

_ONE_COPY_BYTES: Final = 5_000_000_000
"""The largest object that S3 copies in one request."""

_UNPUBLISHED: Final = "unpublished"
"""Folder for a large file until it gets its key; docs/storage.md has the bucket rule that empties it."""

_AT_ONCE: Final = 4
_MD5_TAG: Final = re.compile(r'"?([0-9a-f]{32}(?:-\d+)?)"?')
_LONGEST_SIGNED_SECONDS: Final = 7 * 86_400
_WITHOUT_REASON: Final = frozenset({"PermissionDeniedError", "UnauthenticatedError"})
"""Errors without a reason after a HEAD request, because its answer has no body."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Timeouts and retries of a store on the network.

    Attributes:
        connect_seconds: Timeout for connecting.
        read_timeout_seconds: Timeout for the next byte of an answer.
        request_seconds: Timeout for one request. A part has at most 8 MiB, so 28 kB/s is enough; a conditional
            request of 64 MiB needs 224 kB/s.
        request_retries: How often obstore retries one request, or one part of a large file.
        attempts: Attempts of a call in total, if its failure may be temporary.
        retry_seconds: No further attempt starts after this time.
    """

    connect_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    request_seconds: float = 300.0
    request_retries: int = 2
    attempts: int = 4
    retry_seconds: float = 120.0


class ObjectStorage(Storage):
    """Objects of an obstore store, below a prefix; created by `Storage.from_url`.

    Args:
        store: The obstore store.
        name: Name of the store in messages, without credentials.
        prefix: Prefix of every key.
        patience: Timeouts and retries.
    """

    def __init__(
        self, store: ObjectStore, name: str, *, prefix: str = "", patience: RetryPolicy = RetryPolicy()
    ) -> None:
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
        """See `Storage.publish`; a large file is uploaded in parts and becomes visible when all parts are uploaded.

        If `existing` is `refuse`, the store itself refuses to overwrite: up to 64 MiB by one conditional request,
        above that by a conditional copy of an upload under a temporary key. Above 5 GB, and in a store that ignores
        conditions on copies, the key is only checked right before: of two jobs that end at the same moment both may
        succeed, and the object of the later one remains.
        """
        check_key(key)
        try:
            size, expected = source.stat().st_size, _entity_tags(source)
        except OSError as error:
            raise disk_error(error, f"{str(source)!r} could not be read") from error
        try:
            tag = self._ask(key, lambda: self._put(source, size, key, existing))
        except ObjectExistsError:
            # It may be this file: from an attempt whose answer was lost, or from an earlier run of the same job.
            if not self._has_bytes_of(source, self.stat(key), expected):
                raise
        else:
            if not self._holds(key, tag, expected, source):
                self.delete(key)
                raise StorageError(
                    f"the stored object {key!r} differs from the file that was sent, so it was removed; try again"
                )
        self._count(bytes_out=size)
        try:
            source.unlink()
        except OSError as error:
            raise disk_error(error, f"{key!r} was published, but {str(source)!r} could not be removed") from error
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

    def list_folder(self, key: str) -> FolderListing:
        """See `Storage.list_folder`; sends one request per thousand entries."""
        if key:
            check_key(key)
        prefix = (self._prefix + key).rstrip("/") or None
        found = self._ask(key, lambda: self._obstore.list_with_delimiter(self._store, prefix))
        skip = len(self._prefix)
        objects = (
            ListedObject(meta["path"][skip:], meta["size"], meta["last_modified"]) for meta in found["objects"]
        )
        folders = (path[skip:].rstrip("/") for path in found["common_prefixes"])
        return FolderListing(tuple(sorted(objects, key=lambda each: each.key)), tuple(sorted(folders)))

    def check(self) -> str:
        """See `Storage.check`; sends one request that lists at most one object."""
        prefix = self._prefix.rstrip("/") or None
        page: list[object] = self._ask(
            "", lambda: next(iter(self._obstore.list(self._store, prefix, chunk_size=1)), [])
        )
        return f"{self.name}, {'reachable' if page else 'reachable, and empty'}"

    def signed_url(self, key: str, *, seconds: float = 3600, method: Literal["GET", "PUT"] = "GET") -> str:
        """See `Storage.signed_url`."""
        check_key(key)
        if not 0 < seconds <= _LONGEST_SIGNED_SECONDS:
            raise ConfigError(f"a signed URL cannot be valid for {seconds:g} s; it must be 1 second to seven days")
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
                raise self._error_of_get(key) or error from error
            raise
        version = meta["e_tag"] or f"{meta['last_modified'].isoformat()}-{meta['size']}"
        return ObjectInfo(key, meta["size"], version)

    def _error_of_get(self, key: str) -> Exception | None:
        """Return the error of reading one byte of an object; None if reading succeeds."""
        try:
            self._obstore.get(self._store, self._prefix + key, options={"range": (0, 1)}).bytes()
        except Exception as error:  # noqa: BLE001 - it is raised by the caller
            return error
        return None

    def _read(self, info: ObjectInfo, first: int, end: int) -> bytes:
        """Return a byte range of this version of an object."""
        if end <= first:
            return b""
        options: dict[str, object] = {"range": (first, end), "if_match": info.version}
        data = self._ask(
            info.key,
            lambda: bytes(self._obstore.get(self._store, self._prefix + info.key, options=options).bytes()),
        )
        if len(data) != end - first:
            raise StorageUnavailableError(
                f"the store returned {len(data)} bytes of {info.key!r} instead of {end - first}; try again"
            )
        self._count(bytes_in=len(data))
        return data

    def _put(self, source: Path, size: int, key: str, existing: ExistingObject) -> str | None:
        """Upload the file, and return the entity tag of the stored object."""
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
        """Upload a file in parts, and return its entity tag; if `before_last` raises, no object becomes visible."""
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
        """Upload a file under a temporary key, copy it to `key`, which must be free, and return its entity tag.

        obstore cannot set a condition on the completion of a multipart upload, but on a server-side copy it can.
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
        except Exception as error:  # noqa: BLE001 - the object is already published, or its own error is raised
            reason = storage_error(error, aside)
            _log.warning("%s remains in %s until the bucket's rule removes it: %s", aside, self.name, reason)

    def _sent(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the parts; a request for the next part means that one was sent."""
        for part in parts:
            yield part
            self.on_transfer()

    def _check_free(self, key: str) -> None:
        # obstore must not be called in the thread in which it consumes the parts.
        with ThreadPoolExecutor(1, thread_name_prefix="reel_modal-look") as pool:
            try:
                pool.submit(self._head, key).result()
            except FileNotFoundError:
                return
        raise ObjectExistsError(f"object {key!r} already exists and must not be replaced")

    def _holds(self, key: str, tag: str | None, expected: tuple[str, str], source: Path) -> bool:
        """Whether the store has the bytes that were sent: by the tag if it is a checksum, else by reading back."""
        match = _MD5_TAG.fullmatch(tag or "")
        if match is not None and match[1] in expected:
            return True
        info = self.stat(key)
        if tag is not None and info.version != tag:
            return True  # the object was replaced since, so the upload can no longer be verified
        return self._has_bytes_of(source, info, expected)

    def _has_bytes_of(self, source: Path, info: ObjectInfo, expected: tuple[str, str]) -> bool:
        """Whether this version of an object equals the file: by the tag if it is a checksum, else by reading it."""
        match = _MD5_TAG.fullmatch(info.version)
        if match is not None and match[1] in expected:
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
        """Return the result of `call`; retry if the store is unavailable."""
        import stamina

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
        raise StorageUnavailableError(f"no request was sent for {key!r}: no attempt is allowed")

    def _count(self, *, bytes_in: int = 0, bytes_out: int = 0) -> None:
        with self._counting:
            self.traffic.bytes_in += bytes_in
            self.traffic.bytes_out += bytes_out
        self.on_transfer()


def s3_store(bucket: str, *, endpoint: str | None, region: str | None, patience: RetryPolicy) -> ObjectStore:
    """Return obstore's client for a bucket, with credentials from the environment."""
    _load_obstore()
    from obstore.store import S3Store

    options = {"endpoint": endpoint, "region": region}
    return S3Store(
        bucket,
        **{name: value for name, value in options.items() if value is not None},  # type: ignore[arg-type]
        copy_if_not_exists=f"header: {new_copy_header(endpoint)}: *",
        client_options={
            "allow_http": endpoint is not None and endpoint.startswith("http:"),
            "connect_timeout": timedelta(seconds=patience.connect_seconds),
            "read_timeout": timedelta(seconds=patience.read_timeout_seconds),
            "timeout": timedelta(seconds=patience.request_seconds),
        },
        # These are retries of single requests; stamina retries the whole call.
        retry_config={
            "max_retries": patience.request_retries,
            "retry_timeout": timedelta(seconds=patience.retry_seconds),
        },
    )


def new_copy_header(endpoint: str | None) -> str:
    """Return the name of the header that makes a copy fail if the target exists."""
    on_r2 = endpoint is not None and endpoint.rstrip("/").endswith(".r2.cloudflarestorage.com")
    return "cf-copy-destination-if-none-match" if on_r2 else "if-none-match"


_memories: dict[str, ObjectStore] = {}
_memories_lock = threading.Lock()


def memory_store(name: str) -> ObjectStore:
    """Return this process's in-memory store with this name."""
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
        raise MissingDependencyError(f"obstore cannot be imported ({error}); pip install obstore") from error
    return obstore


def _attributes(key: str) -> dict[str, str]:
    """Return the content type, which a browser needs to play the object."""
    kind = mimetypes.guess_type(key)[0]
    return {"Content-Type": kind} if kind else {}


def _parts(source: Path, before_last: Callable[[], None]) -> Iterator[bytes]:
    """Yield the file in parts; call `before_last` before the last one, which may raise to abort the upload."""
    with source.open("rb") as file:
        part = file.read(_PART_BYTES)
        while part:
            following = file.read(_PART_BYTES)
            if not following:
                before_last()
            yield part
            part = following


def _entity_tags(path: Path) -> tuple[str, str]:
    """Return S3's two possible tags of the file: its MD5, and the MD5 of the MD5s of its parts with their count."""
    whole, joined, count = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False), 0
    for part in _parts(path, before_last=lambda: None):
        whole.update(part)
        joined.update(hashlib.md5(part, usedforsecurity=False).digest())
        count += 1
    return whole.hexdigest(), f"{joined.hexdigest()}-{count}"
