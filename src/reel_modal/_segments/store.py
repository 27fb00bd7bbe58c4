"""Store finished segments: data first, seal last. A segment counts only if its bytes match its seal."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Final

from reel_modal._segments.grid import Segment
from reel_modal.errors import ObjectNotFoundError, RequestError, StorageError
from reel_modal.schema._fields import Record, declared, record
from reel_modal.schema._kinds import integer, string
from reel_modal.schema.keys import store_key
from reel_modal.storage import ListedObject, Storage

__all__ = ["KEPT", "SegmentStore", "folders_with_segments", "list_segments", "remove_old"]

_log = logging.getLogger(__name__)

KEPT: Final = timedelta(days=1)
"""How long segments are kept that no job has used up."""

_FOLDER: Final = "segments"
_USERS: Final = "users"
_DATA, _SEAL, _CALL = ".mp4", ".json", ".call"
# Other objects in the folder belong to the user, and are neither listed nor removed.
_NAME: Final = re.compile(
    r"(?P<owner>[0-9a-f]{64})-(?P<first>\d{1,12})-(?P<end>\d{1,12})(?P<kind>\.mp4|\.json|\.call)"
)
_FORMAT: Final = "1"
_READ_BYTES: Final = 1 << 20


@record
class _Seal(Record):
    """Content of the object that makes a segment count.

    Attributes:
        format: Version of this format.
        sha256: SHA-256 of the segment, in hexadecimal.
        bytes: Size of the segment in bytes.
    """

    _noun = "seal"

    format: str = declared(converter=string())
    sha256: str = declared(converter=string())
    bytes: int = declared(converter=integer())


class SegmentStore:
    """The finished segments of one job, and the calls of the workers that render them.

    Args:
        storage: The store of the job's outputs.
        user_id: User id of the request; segments are in the scope of this user.
        source: Key and version of the input, and versions of all other inputs.
        package: Top-level package that declares the function; empty for the functions of this package.
        required: Whether an error of the store ends the job, because several processes share the segments. Otherwise
            it is logged, and ends only the use of the store by this job.
    """

    def __init__(
        self, storage: Storage, *, user_id: str, source: str, package: str = "", required: bool = False
    ) -> None:
        self.source: str = source
        self.package: str = package
        self._storage = storage
        self._required = required
        self._folder = store_key(_FOLDER, "user", user_id)
        self._used: set[str] = set()
        self._usable = True

    @property
    def usable(self) -> bool:
        """Whether segments are stored and found; False after an error of the store."""
        return self._usable

    def sealed(self, rendering: str) -> frozenset[Segment]:
        """Return the segments of a rendering that have a seal, and remove old segments of the same user.

        Args:
            rendering: Hash of everything that determines the bytes; see `Rendering`.
        """
        try:
            listed = list_segments(self._storage, self._folder)
            old = {each.key for each in remove_old(self._storage, listed, KEPT)}
        except StorageError as error:
            self._give_up(error)
            return frozenset()
        return frozenset(_named(rendering, _SEAL, (each for each in listed if each.key not in old)))

    def fetch(self, rendering: str, segment: Segment, target: Path) -> bool:
        """Copy a stored segment to `target`; return False if it is missing, incomplete or damaged."""
        if not self._usable:
            return False
        data, seal_key = self._keys(rendering, segment)
        try:
            seal = _Seal.parse(self._storage.read_bytes(seal_key).decode("utf-8", "replace"))
            stored = self._storage.fetch(data, target.parent)
            if stored.parent == target.parent:
                stored.replace(target)
            else:  # the file of a folder store, which another job may remove
                shutil.copyfile(stored, target)
        except FileNotFoundError:  # ObjectNotFoundError is one as well
            return False
        except RequestError as error:
            _log.warning("%s is not a valid seal, so the segment is rendered again: %s", seal_key, error)
            return False
        except (StorageError, OSError) as error:
            self._give_up(error)
            return False
        if (seal.format, seal.sha256, seal.bytes) == (_FORMAT, *_fingerprint(target)):
            return True
        _log.warning("%s does not match its seal, so the segment is rendered again", data)
        return False

    def write(self, rendering: str, segment: Segment, path: Path) -> None:
        """Store a copy of the finished file `path`: first the data, then its seal."""
        if not self._usable:
            return
        data, seal_key = self._keys(rendering, segment)
        sha256, size_bytes = _fingerprint(path)
        seal = _Seal(format=_FORMAT, sha256=sha256, bytes=size_bytes)
        copy = path.with_name(f"{secrets.token_hex(8)}{path.suffix}")
        try:
            shutil.copyfile(path, copy)
            self._storage.publish(copy, data)
            self._storage.write_bytes(seal_key, json.dumps(seal.to_dict()).encode())
        except (StorageError, OSError) as error:
            self._give_up(error)
        finally:
            copy.unlink(missing_ok=True)

    def calls(self, job_id: str) -> dict[Segment, str]:
        """Return the ids of the calls that an earlier attempt of a job has noted, by the frames that they render.

        Raises:
            StorageError: The store could not be read.
        """
        job = _hash_of(job_id)
        runs = _named(job, _CALL, list_segments(self._storage, self._folder))
        return {run: self._storage.read_bytes(self._call_key(job, run)).decode() for run in runs}

    def note_call(self, job_id: str, run: Segment, call_id: str) -> None:
        """Note the call that renders the frames `run` of a job, so that a further attempt finds it.

        Raises:
            StorageError: The note could not be written.
        """
        self._storage.write_bytes(self._call_key(_hash_of(job_id), run), call_id.encode())

    def claim(self, job_id: str, run: Segment, call_id: str) -> bool:
        """Note a call that has started; return False if another one is noted, which then renders the frames.

        The coordinator notes a call after it has started it. If it is lost in between, this note is found.

        Raises:
            StorageError: The store could not be used.
        """
        try:
            noted = self._storage.read_bytes(self._call_key(_hash_of(job_id), run)).decode()
        except ObjectNotFoundError:
            self.note_call(job_id, run, call_id)
            return True
        return noted == call_id

    def forget_call(self, job_id: str, run: Segment) -> None:
        """Remove the note of a call that has ended without a result.

        Raises:
            StorageError: The note could not be removed.
        """
        self._storage.delete(self._call_key(_hash_of(job_id), run))

    def discard(self) -> None:
        """Remove what this job found or stored; call it after the output was published."""
        if not self._usable:
            return  # a later job removes them
        try:
            for key in sorted(self._used):  # a seal before its data
                self._storage.delete(key)
        except StorageError as error:
            _log.warning("segments of the published output remain for a day: %s", error)

    def _keys(self, rendering: str, segment: Segment) -> tuple[str, str]:
        """Return the keys of a segment's data and of its seal."""
        place = f"{self._folder}/{rendering}-{segment.first}-{segment.end}"
        keys = place + _DATA, place + _SEAL
        self._used.update(keys)
        return keys

    def _call_key(self, job: str, run: Segment) -> str:
        key = f"{self._folder}/{job}-{run.first}-{run.end}{_CALL}"
        self._used.add(key)
        return key

    def _give_up(self, error: StorageError | OSError) -> None:
        if self._required:
            raise error
        self._usable = False
        _log.warning("finished segments are neither stored nor found from here on: %s", error)


def folders_with_segments(storage: Storage) -> list[str]:
    """Return the folder of each user's segments; some may be empty.

    Raises:
        StorageError: The store could not be read.
    """
    return [f"{user}/{_FOLDER}" for user in storage.list_folder(_USERS).folders]


def list_segments(storage: Storage, folder: str) -> list[ListedObject]:
    """Return the objects of the segments in the folder of one user: data and seals.

    Raises:
        StorageError: The store could not be read.
    """
    return [each for each in storage.list_folder(folder).objects if _name_of(each) is not None]


def remove_old(storage: Storage, listed: Iterable[ListedObject], older_than: timedelta) -> list[ListedObject]:
    """Remove those of the listed objects that have not changed for `older_than`; return them.

    Raises:
        StorageError: An object could not be removed.
    """
    limit = datetime.now(UTC) - older_than
    old = [each for each in listed if each.modified_at < limit]
    for each in old:
        storage.delete(each.key)
    return old


def _named(owner: str, kind: str, listed: Iterable[ListedObject]) -> Iterator[Segment]:
    """Yield the frames in the names of the listed objects of one kind that belong to `owner`."""
    for name in map(_name_of, listed):
        if name is not None and (name["owner"], name["kind"]) == (owner, kind):
            yield Segment(int(name["first"]), int(name["end"]))


def _hash_of(job_id: str) -> str:
    return hashlib.sha256(job_id.encode()).hexdigest()


def _name_of(listed: ListedObject) -> re.Match[str] | None:
    return _NAME.fullmatch(PurePosixPath(listed.key).name)


def _fingerprint(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file, in hexadecimal, and its size in bytes."""
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while part := file.read(_READ_BYTES):
            digest.update(part)
            size_bytes += len(part)
    return digest.hexdigest(), size_bytes
