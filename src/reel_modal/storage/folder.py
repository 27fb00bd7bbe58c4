"""Objects as files: below one folder or, for the command line, at any path.

Files are read in place and published by one rename.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import logging
import os
import secrets
import shutil
import stat
from abc import abstractmethod
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from reel_modal.errors import (
    ConfigError,
    InvalidKeyError,
    ObjectExistsError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
)
from reel_modal.schema.keys import check_key
from reel_modal.storage.base import (
    ExistingObject,
    FolderListing,
    ListedObject,
    ObjectInfo,
    Ranges,
    Storage,
    StoredObject,
    check_small,
)
from reel_modal.storage.faults import disk_error, reason

__all__ = ["FolderStorage", "PathStorage", "publish_file", "staging_name"]

_log = logging.getLogger(__name__)


class _LocalObject(StoredObject):
    """A file that is read in place, so all its bytes are always available."""

    @property
    def whole(self) -> bool:
        return True

    def ensure(self, ranges: Ranges | None = None) -> None:
        del ranges

    def file(self) -> BinaryIO:
        return self.path.open("rb")


class _LocalStorage(Storage):
    """Base of both local stores; a subclass maps keys to paths."""

    @abstractmethod
    def path(self, key: str) -> Path:
        """Return the path of `key`.

        Raises:
            InvalidKeyError: The key is not valid for an object.
        """

    def stat(self, key: str) -> ObjectInfo:
        """See `Storage.stat`."""
        return _info(self.path(key), key)

    def open(self, key: str, folder: Path) -> StoredObject:
        """See `Storage.open`; the file is read in place, without a copy."""
        del folder
        path = self.path(key)
        info = _info(path, key)
        self.traffic.bytes_in += info.bytes
        return _LocalObject(path, info)

    def publish(self, source: Path, key: str, *, existing: ExistingObject = "replace") -> int:
        """See `Storage.publish`."""
        size = publish_file(source, self.path(key), existing=existing)
        self.traffic.bytes_out += size
        return size

    def read_bytes(self, key: str) -> bytes:
        """See `Storage.read_bytes`."""
        path = self.path(key)
        check_small(key, _info(path, key).bytes)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise disk_error(error, f"object {key!r} cannot be read") from error
        self.traffic.bytes_in += len(data)
        return data

    def write_bytes(self, key: str, data: bytes) -> None:
        """See `Storage.write_bytes`."""
        target = self.path(key)
        staged = staging_name(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(data)
            staged.replace(target)
        except OSError as error:
            raise disk_error(error, f"object {key!r} could not be written") from error
        finally:
            with contextlib.suppress(OSError):  # it was renamed, or never created
                staged.unlink(missing_ok=True)
        self.traffic.bytes_out += len(data)

    def delete(self, key: str) -> None:
        """See `Storage.delete`."""
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, f"object {key!r} could not be deleted") from error

    def list_folder(self, key: str) -> FolderListing:
        """See `Storage.list_folder`."""
        objects, folders = [], []
        try:
            with os.scandir(self._folder(key)) as entries:
                for entry in entries:
                    place = f"{key}/{entry.name}" if key else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(place)
                    elif entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                        status = entry.stat(follow_symlinks=False)
                        modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
                        objects.append(ListedObject(place, status.st_size, modified_at))
        except (FileNotFoundError, NotADirectoryError):
            return FolderListing((), ())
        except OSError as error:
            raise disk_error(error, f"folder {key!r} cannot be read") from error
        return FolderListing(tuple(sorted(objects, key=lambda each: each.key)), tuple(sorted(folders)))

    def _folder(self, key: str) -> Path:
        """Return the path of the folder `key`."""
        return self.path(key)


class FolderStorage(_LocalStorage):
    """Objects as files below one folder.

    Args:
        root: The folder, which must exist.

    Raises:
        ConfigError: The folder is not found.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        try:
            self.root: Path = root.resolve(strict=True)
            is_folder = self.root.is_dir()
        except (OSError, RuntimeError, ValueError):  # a name too long, a loop of symbolic links, a null character
            is_folder = False
        if not is_folder:
            raise ConfigError(f"storage folder {str(root)!r} not found; create it or use another")

    def __repr__(self) -> str:
        return f"FolderStorage({str(self.root)!r})"

    def path(self, key: str) -> Path:
        """Return the path of `key`; raise InvalidKeyError if it could lead outside the root."""
        check_key(key)
        path = self.root.joinpath(*PurePosixPath(key).parts)
        if not _resolved(path, key).is_relative_to(self.root):
            raise InvalidKeyError(f"key {key!r} leads out of its store through a symbolic link")
        return path

    def _folder(self, key: str) -> Path:
        return self.path(key) if key else self.root

    def publish(self, source: Path, key: str, *, existing: ExistingObject = "replace") -> int:
        """See `Storage.publish`; missing folders are created."""
        try:
            self.path(key).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, f"the folder of key {key!r} could not be created") from error
        return super().publish(source, key, existing=existing)

    def check(self) -> str:
        """See `Storage.check`."""
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            raise StorageAccessError(f"folder {str(self.root)!r} cannot be read and written; change its permissions")
        free = shutil.disk_usage(self.root).free
        return f"the folder {self.root}, {free / 1e9:.1f} GB free"


class PathStorage(_LocalStorage):
    """Objects at any path of this machine; the keys are paths. For the command line."""

    def __repr__(self) -> str:
        return "PathStorage()"

    def path(self, key: str) -> Path:
        """Return `key` as a path; raise InvalidKeyError if it is not a valid file name."""
        return _local_path(key)

    def check(self) -> str:
        """See `Storage.check`."""
        return "the paths of this machine"


def staging_name(target: Path) -> Path:
    """Return an unused hidden path next to `target`, with the same suffix, for an unfinished file."""
    return target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")


def publish_file(source: Path, target: Path, *, existing: ExistingObject = "replace") -> int:
    """Move `source` to `target` atomically, also across file systems, and return its size in bytes.

    Raises:
        ObjectExistsError: `target` exists with other bytes, and `existing` is `refuse`.
        StorageError: The file could not be moved; `target` is unchanged and no other file is left.
    """
    move = Path.replace if existing == "replace" else _link_as_new
    try:
        size = source.stat().st_size
        try:
            move(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_into_place(source, target, existing)
    except FileExistsError as error:
        if not _same_bytes(source, target):
            raise ObjectExistsError(f"{str(target)!r} already exists and must not be replaced") from error
        source.unlink()
    except OSError as error:
        raise disk_error(error, f"{str(target)!r} could not be published") from error
    except ValueError as error:
        raise StorageError(f"{str(target)!r} could not be published: {reason(error)}") from error
    return size


def _link_as_new(source: Path, target: Path) -> None:
    """Move `source` to `target`, which must not exist; a rename would replace an existing file."""
    target.hardlink_to(source)
    source.unlink()


def _same_bytes(one: Path, other: Path) -> bool:
    """Whether two files have equal bytes: publishing the same file twice is not a conflict."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _copy_into_place(source: Path, target: Path, existing: ExistingObject) -> None:
    """Move `source` from another file system: copy it next to `target`, then rename the copy."""
    staged = staging_name(target)
    try:
        with source.open("rb") as reader, staged.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        move = Path.replace if existing == "replace" else _link_as_new
        move(staged, target)
    except BaseException:  # Ctrl-C during a long copy must not leave a file either
        with contextlib.suppress(OSError):
            staged.unlink()
        raise
    try:
        source.unlink()
    except OSError as error:
        _log.warning("%s was published, but its source %s could not be removed: %s", target, source, reason(error))


def _local_path(key: str) -> Path:
    """Return `key` as a path of this machine; raise InvalidKeyError if it is not a valid file name."""
    try:
        encoded = os.fsencode(key)
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"path {key!r} has a character that is invalid in a file name") from error
    if not key or b"\0" in encoded:
        raise InvalidKeyError(f"path {key!r} is empty or has a null character")
    return Path(key)


def _resolved(path: Path, key: str) -> Path:
    """Return `path` with all symbolic links resolved, whether or not it exists."""
    try:
        # Only strict resolution detects a loop on every Python version.
        return path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        return path.resolve()
    except RuntimeError as error:  # a loop, before Python 3.13
        raise InvalidKeyError(f"key {key!r} leads into a loop of symbolic links") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidKeyError(f"key {key!r} leads into a loop of symbolic links") from error
        raise StorageError(f"the path of key {key!r} cannot be resolved: {reason(error)}") from error


def _info(path: Path, key: str) -> ObjectInfo:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ObjectNotFoundError(f"object {key!r} not found") from error
    except OSError as error:
        raise StorageError(f"object {key!r} cannot be read: {reason(error)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ObjectNotFoundError(f"object {key!r} not found: it is not a regular file")
    return ObjectInfo(key, status.st_size, f"{status.st_mtime_ns}-{status.st_size}")
