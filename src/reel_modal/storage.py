"""Where media lie: keys under a root, fetched whole and put in place in one step.

It must not know what the bytes are.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from reel_modal.errors import ConfigError, InvalidKeyError, ObjectNotFoundError, StorageError

__all__ = ["FolderStorage", "PathStorage", "Storage", "publish_file", "staging_name"]

_LONGEST_KEY_BYTES = 1024  # S3's own limit


class Storage(ABC):
    """A place for media objects. `Storage.from_url` makes one."""

    @staticmethod
    def from_url(url: str) -> Storage:
        """Return the storage that `url` names.

        Args:
            url: `file:///folder`; the folder must be there.

        Raises:
            ConfigError: The scheme is not known, or the folder is not there.
        """
        parts = urlsplit(url)
        if parts.scheme != "file":
            raise ConfigError(f"storage URL {url!r}: the scheme {parts.scheme!r} is not known; use file:///folder")
        if parts.netloc not in {"", "localhost"}:
            raise ConfigError(
                f"storage URL {url!r} names the host {parts.netloc!r}; write file:///folder with three slashes"
            )
        return FolderStorage(Path(unquote(parts.path)))

    @abstractmethod
    def fetch(self, key: str, folder: Path) -> Path:
        """Return a local file with the object's bytes, in `folder` if it had to be copied; never change it.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            ObjectNotFoundError: There is no such object.
            StorageError: It could not be read.
        """

    @abstractmethod
    def publish(self, source: Path, key: str) -> int:
        """Move the finished file `source` to `key` in one step and return its bytes.

        A reader sees the former object or the whole new one, never a part.

        Raises:
            InvalidKeyError: The key is not a plain relative path.
            StorageError: It could not be put in place; nothing is left of the attempt.
        """


class FolderStorage(Storage):
    """Objects as files below one folder.

    Args:
        root: The folder; it must be there.

    Raises:
        ConfigError: There is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ConfigError(f"storage folder {str(root)!r} is not there; create it or name another")
        self.root: Path = root.resolve()

    def __repr__(self) -> str:
        return f"FolderStorage({str(self.root)!r})"

    def path(self, key: str) -> Path:
        """Return where `key` lies; InvalidKeyError where it could leave the root."""
        check_key(key)
        path = self.root.joinpath(*PurePosixPath(key).parts)
        if not path.resolve().is_relative_to(self.root):
            raise InvalidKeyError(f"key {key!r} leads out of its store through a link")
        return path

    def fetch(self, key: str, folder: Path) -> Path:
        """See `Storage.fetch`; the file itself is returned, nothing is copied."""
        del folder
        return _existing(self.path(key), key)

    def publish(self, source: Path, key: str) -> int:
        """See `Storage.publish`; missing folders are made."""
        target = self.path(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"no folder could be made for key {key!r}: {error}") from error
        return publish_file(source, target)


class PathStorage(Storage):
    """Keys are paths of this machine: for a command line, where a person names files and not keys."""

    def fetch(self, key: str, folder: Path) -> Path:
        """See `Storage.fetch`."""
        del folder
        return _existing(Path(key), key)

    def publish(self, source: Path, key: str) -> int:
        """See `Storage.publish`."""
        return publish_file(source, Path(key))


def check_key(key: str) -> None:
    """Raise InvalidKeyError unless `key` is a plain relative path such as `users/7/reel.mp4`."""
    parts = key.split("/")
    if not key or key.startswith("/") or "\\" in key or key[1:2] == ":":
        raise InvalidKeyError(f"key {key!r} is not a relative path with forward slashes")
    if any(part in {"", ".", "..", "None", "null", "undefined"} for part in parts):
        raise InvalidKeyError(f"key {key!r} has a part that is empty, '.', '..' or a missing value spelt out")
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise InvalidKeyError(f"key {key!r} has a control character")
    if len(key.encode()) > _LONGEST_KEY_BYTES:
        raise InvalidKeyError(f"key {key[:40]!r}… is longer than {_LONGEST_KEY_BYTES} bytes")


def staging_name(target: Path) -> Path:
    """Return a hidden, unused name beside `target`, with the same suffix: half-done work goes there."""
    return target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")


def publish_file(source: Path, target: Path) -> int:
    """Move `source` to `target` in one step, across file systems too, and return its bytes.

    Raises:
        StorageError: It could not be moved; `target` is as it was and nothing is left beside it.
    """
    staged = staging_name(target)
    try:
        size = source.stat().st_size
        try:
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Another file system: copy beside the target first, so that the last step is one rename again.
            with source.open("rb") as reader, staged.open("wb") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                os.fsync(writer.fileno())
            staged.replace(target)
            source.unlink()
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise StorageError(f"{str(target)!r} could not be put in place: {error.strerror or error}") from error
    return size


def _existing(path: Path, key: str) -> Path:
    if not path.is_file():
        raise ObjectNotFoundError(f"there is no object under {key!r}")
    return path
