"""Objects as files: below one folder, or, for a command line, wherever a path leads.

They are read where they lie, and put in place by one rename.
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
from reel_modal.storage.base import ExistingObject, ObjectInfo, Ranges, Storage, StoredObject, check_small
from reel_modal.storage.faults import disk_error, reason

__all__ = ["FolderStorage", "PathStorage", "publish_file", "staging_name"]

_log = logging.getLogger(__name__)


class _LocalObject(StoredObject):
    """A file where it lies: all of it is always there."""

    @property
    def whole(self) -> bool:
        return True

    def need(self, ranges: Ranges | None = None) -> None:
        del ranges

    def file(self) -> BinaryIO:
        return self.path.open("rb")


class _LocalStorage(Storage):
    """What both local stores do once they know the path of a key."""

    @abstractmethod
    def path(self, key: str) -> Path:
        """Return where `key` lies.

        Raises:
            InvalidKeyError: No object can lie there.
        """

    def stat(self, key: str) -> ObjectInfo:
        """See `Storage.stat`."""
        return _info(self.path(key), key)

    def open(self, key: str, folder: Path) -> StoredObject:
        """See `Storage.open`; the file itself is read, nothing is copied."""
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
            raise disk_error(error, f"the object under {key!r} cannot be read") from error
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
            raise disk_error(error, f"{key!r} could not be put in place") from error
        finally:
            with contextlib.suppress(OSError):  # it is in place, or was never made
                staged.unlink(missing_ok=True)
        self.traffic.bytes_out += len(data)

    def delete(self, key: str) -> None:
        """See `Storage.delete`."""
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, f"the object under {key!r} could not be removed") from error


class FolderStorage(_LocalStorage):
    """Objects as files below one folder.

    Args:
        root: The folder; it must be there.

    Raises:
        ConfigError: There is no such folder.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
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

    def publish(self, source: Path, key: str, *, existing: ExistingObject = "replace") -> int:
        """See `Storage.publish`; missing folders are made."""
        try:
            self.path(key).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, f"no folder could be made for key {key!r}") from error
        return super().publish(source, key, existing=existing)

    def check(self) -> str:
        """See `Storage.check`."""
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            raise StorageAccessError(f"the folder {str(self.root)!r} may not be read and written; change its rights")
        free = shutil.disk_usage(self.root).free
        return f"the folder {self.root}, {free / 1e9:.1f} GB free"


class PathStorage(_LocalStorage):
    """Keys are paths of this machine: for a command line, where a person names files and not keys."""

    def __repr__(self) -> str:
        return "PathStorage()"

    def path(self, key: str) -> Path:
        """Return `key` as a path; InvalidKeyError where no file can have that name."""
        return _local_path(key)

    def check(self) -> str:
        """See `Storage.check`."""
        return "the paths of this machine"


def staging_name(target: Path) -> Path:
    """Return a hidden, unused name beside `target`, with the same suffix: half-done work goes there."""
    return target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")


def publish_file(source: Path, target: Path, *, existing: ExistingObject = "replace") -> int:
    """Move `source` to `target` in one step, across file systems too, and return its bytes.

    Raises:
        ObjectExistsError: There is a target with other bytes, and it was not to be replaced.
        StorageError: It could not be moved; `target` is as it was and nothing is left beside it.
    """
    place = Path.replace if existing == "replace" else _link_as_new
    try:
        size = source.stat().st_size
        try:
            place(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_into_place(source, target, existing)
    except FileExistsError as error:
        if not _same_bytes(source, target):
            raise ObjectExistsError(f"{str(target)!r} is there already; it is not to be replaced") from error
        source.unlink()
    except OSError as error:
        raise disk_error(error, f"{str(target)!r} could not be put in place") from error
    except ValueError as error:
        raise StorageError(f"{str(target)!r} could not be put in place: {reason(error)}") from error
    return size


def _link_as_new(source: Path, target: Path) -> None:
    """Give `source` the name `target`, which must be free: a rename would replace what is there."""
    target.hardlink_to(source)
    source.unlink()


def _same_bytes(one: Path, other: Path) -> bool:
    """Whether two files hold the same: what is put in place a second time is no conflict."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _copy_into_place(source: Path, target: Path, existing: ExistingObject) -> None:
    """Move `source` from another file system: copied beside the target, so that the last step is one rename."""
    staged = staging_name(target)
    try:
        with source.open("rb") as reader, staged.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        place = Path.replace if existing == "replace" else _link_as_new
        place(staged, target)
    except BaseException:  # a Ctrl-C in a long copy leaves nothing either
        with contextlib.suppress(OSError):
            staged.unlink()
        raise
    try:
        source.unlink()
    except OSError as error:
        _log.warning("%s is in place, but its source %s stays: %s", target, source, reason(error))


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
        raise StorageError(f"the place of key {key!r} cannot be looked at: {reason(error)}") from error


def _info(path: Path, key: str) -> ObjectInfo:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ObjectNotFoundError(f"there is no object under {key!r}") from error
    except OSError as error:
        raise StorageError(f"the object under {key!r} cannot be read: {reason(error)}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ObjectNotFoundError(f"there is no object under {key!r}: it is no regular file")
    return ObjectInfo(key, found.st_size, f"{found.st_mtime_ns}-{found.st_size}")
