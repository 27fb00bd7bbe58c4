"""The interface of all stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias

from reel_modal.errors import ConfigError, StorageError

__all__ = [
    "ExistingObject",
    "FolderListing",
    "ListedObject",
    "ObjectInfo",
    "Ranges",
    "Storage",
    "StoredObject",
    "Traffic",
    "check_small",
    "set_url_opener",
]

ExistingObject: TypeAlias = Literal["replace", "refuse"]
"""Action of `Storage.publish` if an object with other bytes already exists."""

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""Byte ranges of an object: (first byte, end), the end exclusive."""

_LARGEST_SMALL_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A store's description of one object.

    Attributes:
        key: Key of the object.
        bytes: Size in bytes.
        version: Changes whenever the object changes: the entity tag, or the modification time and size.
    """

    key: str
    bytes: int
    version: str


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object in a listing.

    Attributes:
        key: Key of the object.
        bytes: Size in bytes.
        modified_at: Time of its last change, in UTC.
    """

    key: str
    bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class FolderListing:
    """Content of one folder of a store.

    Attributes:
        objects: The objects in the folder itself, sorted by key.
        folders: Keys of the folders in it, sorted.
    """

    objects: tuple[ListedObject, ...]
    folders: tuple[str, ...]


@dataclass(slots=True)
class Traffic:
    """Bytes transferred by one store object so far.

    Attributes:
        bytes_in: Bytes read. A file that is read in place counts as a whole.
        bytes_out: Bytes written.
    """

    bytes_in: int = 0
    bytes_out: int = 0


class StoredObject(ABC):
    """An object opened for reading: a local file that holds the bytes fetched so far.

    Attributes:
        path: The local file; do not modify it.
        info: The object when it was opened. Bytes of different versions are never mixed.
    """

    def __init__(self, path: Path, info: ObjectInfo) -> None:
        self.path: Path = path
        self.info: ObjectInfo = info

    @property
    @abstractmethod
    def whole(self) -> bool:
        """Whether the local file holds all bytes."""

    @abstractmethod
    def ensure(self, ranges: Ranges | None = None) -> None:
        """Fetch these byte ranges into `path`, unless they are there already; None fetches all.

        Raises:
            ObjectChangedError: The object was replaced after it was opened.
            StorageError: The bytes could not be read, or the disk is full.
        """

    @abstractmethod
    def file(self) -> BinaryIO:
        """Return a seekable file that fetches bytes when they are read. The caller closes it."""


_open_url: Callable[[str], Storage]


def set_url_opener(opener: Callable[[str], Storage]) -> None:
    """Set the function that `Storage.from_url` calls; the package does so after it has imported all stores."""
    global _open_url  # noqa: PLW0603 - the subclasses import this module, so it cannot import them
    _open_url = opener


class Storage(ABC):
    """A store of media objects, created by `Storage.from_url`; thread-safe.

    Every call blocks; on an event loop, use `asyncio.to_thread`.

    Attributes:
        traffic: Bytes transferred by this instance.
        on_transfer: Called after each transferred part, in the transferring thread.
    """

    def __init__(self) -> None:
        self.traffic: Traffic = Traffic()
        self.on_transfer: Callable[[], object] = int

    @staticmethod
    def from_url(url: str) -> Storage:
        """Return the storage at `url`, without sending a request.

        Args:
            url: One of

                - `file:///folder`: an existing folder;
                - `memory://name`: memory of this process; the same name gives the same store;
                - `s3://bucket/prefix?endpoint=https://…&region=…`: S3, R2 and other S3-compatible stores. The default
                  endpoint is Amazon's. Credentials come from the environment (AWS_ACCESS_KEY_ID,
                  AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN), never from the URL.

        Raises:
            ConfigError: The URL is not valid, the folder is not found, or the environment has no credentials.
            MissingDependencyError: obstore cannot be imported.
        """
        return _open_url(url)

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Return size and version of an object.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectNotFoundError: The object is not found.
            StorageError: The request failed.
        """

    @abstractmethod
    def open(self, key: str, folder: Path) -> StoredObject:
        """Open an object for reading, without fetching any of its bytes.

        Args:
            key: Key of the object.
            folder: Folder for fetched bytes; the caller removes it. A store that reads in place does not use it.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectNotFoundError: The object is not found.
            StorageError: The request failed.
        """

    def fetch(self, key: str, folder: Path) -> Path:
        """Return a local file with the object's bytes, in `folder` if it had to be fetched; do not modify it.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectNotFoundError: The object is not found.
            ObjectChangedError: The object was replaced while it was read.
            StorageError: The object could not be read, or the disk is full.
        """
        stored = self.open(key, folder)
        stored.ensure()
        return stored.path

    @abstractmethod
    def publish(self, source: Path, key: str, *, existing: ExistingObject = "replace") -> int:
        """Move the finished file `source` to `key` atomically and return its size in bytes.

        A reader sees either the previous object or the whole new one, never a part. A store other than a folder then
        verifies the stored bytes against the file, and deletes the object if they differ.

        Args:
            source: The file; it is removed afterwards.
            key: Key of the new object.
            existing: Action if an object with other bytes exists: `replace` it, or `refuse`.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectExistsError: An object with other bytes exists, and `existing` is `refuse`.
            StorageError: The object could not be stored, and the previous object is unchanged; or the stored bytes
                failed verification, and the new object was removed; or `source` could not be removed.
        """

    @abstractmethod
    def read_bytes(self, key: str) -> bytes:
        """Return the bytes of a small object, at most 16 MiB.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectNotFoundError: The object is not found.
            StorageError: The object could not be read, or is larger than 16 MiB.
        """

    @abstractmethod
    def write_bytes(self, key: str, data: bytes) -> None:
        """Write a small object atomically; an existing object is replaced.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            StorageError: The object could not be written.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; a missing object is not an error.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            StorageError: The object could not be removed.
        """

    @abstractmethod
    def list_folder(self, key: str) -> FolderListing:
        """Return the objects and the folders in the folder `key`; both are empty if it is not found.

        Unfinished files of a folder store are not listed. An empty key is the whole store.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            StorageError: The folder could not be read.
        """

    @abstractmethod
    def check(self) -> str:
        """Check that the store can be used, without changing anything, and return a short description of it.

        Raises:
            StorageError: The store cannot be used; the message names the cure.
        """

    def signed_url(self, key: str, *, seconds: float = 3600, method: Literal["GET", "PUT"] = "GET") -> str:
        """Return a URL that allows reading or writing the object for a limited time, without credentials.

        Treat the URL as a secret while it is valid: do not log it.

        Args:
            key: Key of the object, which need not exist.
            seconds: Validity, at most seven days. After that the store answers 403.
            method: The allowed HTTP method.

        Raises:
            ConfigError: The store cannot sign URLs (a folder, for example), or `seconds` is out of range.
        """
        del key, seconds, method
        raise ConfigError(f"{self!r} does not support signed URLs; serve its objects from your own routes")


def check_small(key: str, size_bytes: int) -> None:
    """Raise StorageError if an object is larger than 16 MiB, too large to be held in memory."""
    if size_bytes > _LARGEST_SMALL_BYTES:
        raise StorageError(
            f"object {key!r} has {size_bytes} bytes, above the limit of {_LARGEST_SMALL_BYTES}; fetch it into a file"
        )
