"""Where media lie: keys under a root, fetched whole and put in place in one step.

It must not know what the bytes are.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import stat
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from reel_modal.errors import ConfigError, InvalidKeyError, ObjectNotFoundError, StorageError

__all__ = ["FolderStorage", "PathStorage", "Storage", "publish_file", "staging_name"]

_log = logging.getLogger(__name__)

_LONGEST_KEY_BYTES: Final = 1024  # S3's own limit
# File systems take names of 255 bytes, and a staging name is 15 longer than the name that it stands for.
_LONGEST_PART_BYTES: Final = 240


class Storage(ABC):
    """A place for media objects. `Storage.from_url` makes one."""

    @staticmethod
    def from_url(url: str) -> Storage:
        """Return the storage that `url` names.

        Args:
            url: `file:///folder`; the folder must be there.

        Raises:
            ConfigError: The scheme is not known, it is no URL of a folder, or the folder is not there.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise ConfigError(f"storage URL {url!r} is no URL: {error}; use file:///folder") from error
        if parts.scheme != "file":
            raise ConfigError(f"storage URL {url!r}: the scheme {parts.scheme!r} is not known; use file:///folder")
        if parts.netloc not in {"", "localhost"}:
            raise ConfigError(
                f"storage URL {url!r} names the host {parts.netloc!r}; write file:///folder with three slashes"
            )
        if not url[len("file:") :].startswith("//") or not parts.path.startswith("/"):
            raise ConfigError(f"storage URL {url!r} has no absolute path; write file:///folder with three slashes")
        if "?" in url or "#" in url:
            raise ConfigError(
                f"storage URL {url!r} has a query or fragment; in a folder's name write %3F for ?, %23 for #"
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
        try:
            self.root: Path = root.resolve(strict=True)
            is_folder = self.root.is_dir()
        except (OSError, RuntimeError, ValueError):  # a name too long, a loop of links, a null character
            is_folder = False
        if not is_folder:
            raise ConfigError(f"storage folder {str(root)!r} is not there; create it or name another")

    def __repr__(self) -> str:
        return f"FolderStorage({str(self.root)!r})"

    def path(self, key: str) -> Path:
        """Return where `key` lies; InvalidKeyError where it could leave the root."""
        check_key(key)
        path = self.root.joinpath(*PurePosixPath(key).parts)
        if not _followed(path, key).is_relative_to(self.root):
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
        return _existing(_local_path(key), key)

    def publish(self, source: Path, key: str) -> int:
        """See `Storage.publish`."""
        return publish_file(source, _local_path(key))


def check_key(key: str) -> None:
    """Raise InvalidKeyError unless `key` is a plain relative path such as `users/7/reel.mp4`."""
    parts = key.split("/")
    if not key or key.startswith("/") or "\\" in key or key[1:2] == ":":
        raise InvalidKeyError(f"key {key!r} is not a relative path with forward slashes")
    if any(part in {"", ".", "..", "None", "null", "undefined"} for part in parts):
        raise InvalidKeyError(f"key {key!r} has a part that is empty, '.', '..' or a missing value spelt out")
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise InvalidKeyError(f"key {key!r} has a control character")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"key {key[:40]!r} has half of a surrogate pair, which is no character") from error
    if sum(sizes) + len(parts) - 1 > _LONGEST_KEY_BYTES:
        raise InvalidKeyError(f"key {key[:40]!r}… is longer than {_LONGEST_KEY_BYTES} bytes")
    if max(sizes) > _LONGEST_PART_BYTES:
        raise InvalidKeyError(
            f"key {key[:40]!r}… has a part of {max(sizes)} bytes, longer than {_LONGEST_PART_BYTES}"
        )


def staging_name(target: Path) -> Path:
    """Return a hidden, unused name beside `target`, with the same suffix: half-done work goes there."""
    return target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")


def publish_file(source: Path, target: Path) -> int:
    """Move `source` to `target` in one step, across file systems too, and return its bytes.

    Raises:
        StorageError: It could not be moved; `target` is as it was and nothing is left beside it.
    """
    try:
        size = source.stat().st_size
        try:
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_into_place(source, target)
    except (OSError, ValueError) as error:
        raise StorageError(f"{str(target)!r} could not be put in place: {_reason(error)}") from error
    return size


def _copy_into_place(source: Path, target: Path) -> None:
    """Move `source` from another file system: copied beside the target, so that the last step is one rename."""
    staged = staging_name(target)
    try:
        with source.open("rb") as reader, staged.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        staged.replace(target)
    except BaseException:  # a Ctrl-C in a long copy leaves nothing either
        with contextlib.suppress(OSError):
            staged.unlink()
        raise
    try:
        source.unlink()
    except OSError as error:
        _log.warning("%s is in place, but its source %s stays: %s", target, source, _reason(error))


def _local_path(key: str) -> Path:
    """Return `key` as a path of this machine; InvalidKeyError where no file can have that name."""
    try:
        encoded = os.fsencode(key)
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"path {key!r} has a character that no file name can have") from error
    if not key or b"\0" in encoded:
        raise InvalidKeyError(f"path {key!r} is empty or has a null character")
    return Path(key)


def _followed(path: Path, key: str) -> Path:
    """Return where `path` leads when all its links are followed, whether or not it is there."""
    try:
        # Only a strict look tells a loop on every Python.
        return path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        return path.resolve()
    except RuntimeError as error:  # a loop, before Python 3.13
        raise InvalidKeyError(f"key {key!r} leads into a loop of links") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidKeyError(f"key {key!r} leads into a loop of links") from error
        raise StorageError(f"the place of key {key!r} cannot be looked at: {_reason(error)}") from error


def _existing(path: Path, key: str) -> Path:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ObjectNotFoundError(f"there is no object under {key!r}") from error
    except OSError as error:
        raise StorageError(f"the object under {key!r} cannot be read: {_reason(error)}") from error
    if not stat.S_ISREG(mode):
        raise ObjectNotFoundError(f"there is no object under {key!r}: it is no regular file")
    return path


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
