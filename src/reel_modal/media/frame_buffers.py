"""Frame memory that goes into a pipe without a copy: pages of an anonymous file, spliced into it."""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["PIPE_BYTES", "FrameBufferPool", "SharedBuffer"]

PIPE_BYTES: Final = 1 << 20
"""Maximum number of bytes in a pipe to ffmpeg."""


class _PipedFile:
    """An anonymous file, and the number of bytes sent from it into a pipe."""

    def __init__(self) -> None:
        self.descriptor: int = os.memfd_create("frames")
        self.bytes: int = 0
        self.sent_bytes: int = 0
        weakref.finalize(self, os.close, self.descriptor)


@dataclass(slots=True, eq=False)
class SharedBuffer:
    """The memory of one frame.

    Attributes:
        data: uint8, (bytes,).
        offset: Position of the buffer in its file, in bytes.
        sent_until: The file's count of sent bytes after this buffer was sent; None before that.
    """

    data: npt.NDArray[np.uint8]
    offset: int
    _file: _PipedFile
    sent_until: int | None = None

    def send(self, pipe: int) -> None:
        """Splice the buffer into the pipe with the descriptor `pipe`; it must not be modified afterwards.

        Raises:
            BrokenPipeError: The reader has closed the pipe.
        """
        start, end = self.offset, self.offset + len(self.data)
        while start < end:
            start += os.splice(self._file.descriptor, pipe, end - start, offset_src=start)
        self._file.sent_bytes += len(self.data)
        self.sent_until = self._file.sent_bytes


class FrameBufferPool:
    """Buffers for frames of one size; each is reused once no pipe can still contain a part of it.

    A pipe refers to the pages until they are read. The pages of a buffer have left it when `PIPE_BYTES` more have
    been sent.

    Args:
        frame_bytes: Size of one frame in bytes.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._buffers: deque[SharedBuffer] = deque()  # in the order of their last use
        self._file = _PipedFile()

    @staticmethod
    def usable() -> bool:
        """Return whether this system supports splicing pages into a pipe."""
        return sys.platform == "linux"

    def take(self) -> SharedBuffer:
        """Return the buffer to fill next; a buffer that was not sent is returned again."""
        if self._buffers and self._buffers[-1].sent_until is None:
            return self._buffers[-1]
        oldest = self._buffers[0].sent_until if self._buffers else None
        if oldest is not None and self._file.sent_bytes - oldest >= PIPE_BYTES:
            buffer = self._buffers.popleft()
            buffer.sent_until = None
        else:
            buffer = self._new_buffer()
        self._buffers.append(buffer)
        return buffer

    def _new_buffer(self) -> SharedBuffer:
        file, page = self._file, mmap.ALLOCATIONGRANULARITY
        offset = file.bytes
        file.bytes += -(-self._frame_bytes // page) * page
        os.ftruncate(file.descriptor, file.bytes)
        mapped = mmap.mmap(file.descriptor, self._frame_bytes, offset=offset)
        return SharedBuffer(np.frombuffer(mapped, np.uint8), offset, file)
