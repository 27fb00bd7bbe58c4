"""What every store can do, whatever holds its objects.

It must not know any particular store; `Storage.from_url` loads the one that it makes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias

from reel_modal.errors import ConfigError, StorageError

__all__ = ["ExistingObject", "ObjectInfo", "Ranges", "Storage", "StoredObject", "Traffic", "check_small"]

ExistingObject: TypeAlias = Literal["replace", "refuse"]
"""What publishing does where there is an object already."""

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""Parts of an object: (first byte, end), the end exclusive."""

_LARGEST_SMALL_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of one object.

    Attributes:
        key: Of the object.
        bytes: Its size.
        version: Another one whenever the object is: an entity tag, or a file's time and size.
    """

    key: str
    bytes: int
    version: str


@dataclass(slots=True)
class Traffic:
    """What has gone through one store so far.

    Attributes:
        bytes_in: Read from it. A file that is read where it lies counts whole.
        bytes_out: Put into it.
    """

    bytes_in: int = 0
    bytes_out: int = 0


class StoredObject(ABC):
    """An object that is being read: a local file, of which what was needed is there.

    Attributes:
        path: The file; never change it.
        info: What the store said when reading began. Bytes of another version are never mixed in.
    """

    def __init__(self, path: Path, info: ObjectInfo) -> None:
        self.path: Path = path
        self.info: ObjectInfo = info

    @property
    @abstractmethod
    def whole(self) -> bool:
        """Whether all of it is there."""

    @abstractmethod
    def need(self, ranges: Ranges | None = None) -> None:
        """Return when these bytes of `path` are there; None is all of them.

        Raises:
            ObjectChangedError: The object is another one by now.
            StorageError: They could not be read, or there is no room for them.
        """

    @abstractmethod
    def file(self) -> BinaryIO:
        """Return the object as a file to read and seek in: what is read is fetched first. The caller closes it."""


class Storage(ABC):
    """A place for media objects. `Storage.from_url` makes one; any number of threads may use it.

    Every call blocks; on an event loop, use `asyncio.to_thread`.

    Attributes:
        traffic: Bytes that have gone through this very object.
        on_transfer: Is called whenever a part of an object has been moved, in the thread that did.
    """

    def __init__(self) -> None:
        self.traffic: Traffic = Traffic()
        self.on_transfer: Callable[[], object] = int

    @staticmethod
    def from_url(url: str) -> Storage:
        """Return the storage that `url` names; nothing is asked yet.

        Args:
            url: One of

                - `file:///folder`, which must be there;
                - `memory://name`: of this process alone, the same one for the same name;
                - `s3://bucket/prefix?endpoint=https://…&region=…`: S3, R2 and what else speaks it. Without an
                  endpoint it is Amazon's. The credentials are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
                  AWS_SESSION_TOKEN of the environment, and never a part of the URL.

        Raises:
            ConfigError: It is no such URL, the folder is not there, or there are no credentials.
            MissingDependencyError: obstore does not load here.
        """
        from reel_modal.storage.urls import storage_at

        return storage_at(url)

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """Return what the store says of an object.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectNotFoundError: There is no such object.
            StorageError: The store could not be asked.
        """

    @abstractmethod
    def open(self, key: str, folder: Path) -> StoredObject:
        """Begin to read an object; nothing of it is fetched yet.

        Args:
            key: Of the object.
            folder: Where its bytes go if they have to be fetched; the caller removes it.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectNotFoundError: There is no such object.
            StorageError: The store could not be asked.
        """

    def fetch(self, key: str, folder: Path) -> Path:
        """Return a local file with the object's bytes, in `folder` if it had to be fetched; never change it.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectNotFoundError: There is no such object.
            ObjectChangedError: Another one was put in its place meanwhile.
            StorageError: It could not be read, or there is no room for it.
        """
        found = self.open(key, folder)
        found.need()
        return found.path

    @abstractmethod
    def publish(self, source: Path, key: str, *, existing: ExistingObject = "replace") -> int:
        """Move the finished file `source` to `key` in one step and return its bytes.

        A reader sees the former object or the whole new one, never a part. What the store then holds has been
        compared with the file.

        Args:
            source: The file; it is gone afterwards.
            key: Where to.
            existing: What to do where there is an object with other bytes: `replace` it, or `refuse`.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectExistsError: There is one, and it was not to be replaced.
            StorageError: It could not be put in place; the former object is as it was.
        """

    @abstractmethod
    def read_bytes(self, key: str) -> bytes:
        """Return a small object, at most 16 MiB.

        Raises:
            ObjectNotFoundError: There is none.
            StorageError: It could not be read, or it is larger.
        """

    @abstractmethod
    def write_bytes(self, key: str, data: bytes) -> None:
        """Put a small object in place, in one step; one that is there is replaced.

        Raises:
            StorageError: It could not be put in place.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; that there is none is no error.

        Raises:
            StorageError: It could not be removed.
        """

    @abstractmethod
    def check(self) -> str:
        """Ask the store whether it can be used, changing nothing, and return what it is in a few words.

        Raises:
            StorageError: It cannot; the message names the cure.
        """

    def signed_url(self, key: str, *, seconds: float = 3600, method: Literal["GET", "PUT"] = "GET") -> str:
        """Return a URL with which anybody may read the object, or put it there, for some time.

        It is a secret while it lasts: log it nowhere.

        Args:
            key: Of the object, which need not be there.
            seconds: How long, at most seven days. After that the store answers 403.
            method: What it may be used for.

        Raises:
            ConfigError: This store has no URLs that others can use, such as a folder.
        """
        del key, seconds, method
        raise ConfigError(f"{self!r} has no URLs that others can use; serve its objects from your own routes")


def check_small(key: str, size_bytes: int) -> None:
    """Raise StorageError where an object is not one to be held in memory."""
    if size_bytes > _LARGEST_SMALL_BYTES:
        raise StorageError(f"the object under {key!r} has {size_bytes} bytes; fetch it into a file")
