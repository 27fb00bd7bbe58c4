"""An object on the network as a local sparse file whose blocks are fetched on demand.

The file has the object's size from the start; missing blocks take no disk space.
"""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, cast

from reel_modal.errors import StorageFullError
from reel_modal.storage.base import ObjectInfo, Ranges, StoredObject
from reel_modal.storage.faults import disk_error

__all__ = ["RangedObject"]

_BLOCK_BYTES: Final = 1 << 20
"""Smallest unit of fetching: a demuxer reads 32 KiB at a time, and each request takes tens of milliseconds."""

_PIECE_BLOCKS: Final = 8
"""Most blocks per request, so that a lost connection costs little and a slow one finishes within the timeout."""

_AT_ONCE: Final = 4

Fetch = Callable[[int, int], bytes]
"""(first byte, end) -> these bytes, of the version that was opened."""


class RangedObject(StoredObject):
    """A local file with the fetched blocks of an object; missing blocks read as zeros.

    Args:
        info: The object.
        path: The local file, which is created.
        fetch: Returns a byte range of the object.

    Raises:
        StorageError: The file cannot be created.
    """

    def __init__(self, info: ObjectInfo, path: Path, fetch: Fetch) -> None:
        super().__init__(path, info)
        self._fetch = fetch
        self._lock = threading.Lock()
        self._missing = bytearray(b"\1") * -(-info.bytes // _BLOCK_BYTES)
        try:
            with path.open("wb") as file:
                file.truncate(info.bytes)
        except OSError as error:
            raise disk_error(error, f"no file could be created for {info.key!r}") from error

    @property
    def whole(self) -> bool:
        """Whether all blocks are fetched."""
        return not any(self._missing)

    def ensure(self, ranges: Ranges | None = None) -> None:
        """See `StoredObject.ensure`; fetches whole blocks, several pieces at once."""
        with self._lock:
            pieces = list(self._pieces([(0, self.info.bytes)] if ranges is None else ranges))
            if not pieces:
                return
            self._check_room(sum(end - first for first, end in pieces))
            if len(pieces) == 1:
                self._fill(*pieces[0])
                return
            pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="reel_modal-fetch")
            try:
                for done in [pool.submit(self._fill, *piece) for piece in pieces]:
                    done.result()
            finally:
                # After a failure or Ctrl-C, start no further piece.
                pool.shutdown(cancel_futures=True)

    def file(self) -> BinaryIO:
        """See `StoredObject.file`."""
        return cast("BinaryIO", _ReadingFile(self))

    def _pieces(self, ranges: Ranges) -> Iterator[tuple[int, int]]:
        """Yield byte ranges that cover every missing block of `ranges`."""
        requested = bytearray(len(self._missing))
        for first, end in ranges:
            begin, stop = max(0, first) // _BLOCK_BYTES, -(-min(end, self.info.bytes) // _BLOCK_BYTES)
            if stop > begin:
                requested[begin:stop] = self._missing[begin:stop]
        index = requested.find(1)
        while index >= 0:
            stop = index
            while stop < len(requested) and requested[stop] and stop - index < _PIECE_BLOCKS:
                stop += 1
            yield index * _BLOCK_BYTES, min(stop * _BLOCK_BYTES, self.info.bytes)
            index = requested.find(1, stop)

    def _fill(self, first: int, end: int) -> None:
        data = self._fetch(first, end)
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.seek(first)
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
        except OSError as error:
            raise disk_error(error, f"the bytes of {self.info.key!r} could not be stored in {self.path}") from error
        begin, stop = first // _BLOCK_BYTES, -(-end // _BLOCK_BYTES)
        self._missing[begin:stop] = bytes(stop - begin)

    def _check_room(self, size_bytes: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if free < size_bytes:
            raise StorageFullError(
                f"{self.info.key!r} needs {size_bytes} bytes in {self.path.parent}, but {free} are free; free some"
                " space, or move TMPDIR"
            )


class _ReadingFile(io.RawIOBase):
    """Reader of an object's local file that fetches missing blocks first."""

    def __init__(self, source: RangedObject) -> None:
        super().__init__()
        self._source = source
        self._file = source.path.open("rb")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.info.bytes}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        self._source.ensure([(self._position, self._position + len(view))])
        self._file.seek(self._position)
        count = self._file.readinto(view)
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
