"""Memory for frames that a pipe takes as it is: pages of an anonymous file, handed on instead of copied.

It must not know what the frames show, nor who reads the pipe.
"""

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

__all__ = ["PIPE_BYTES", "FrameMemory", "SharedBuffer"]

PIPE_BYTES: Final = 1 << 20
"""Most that waits in a pipe to ffmpeg."""


class _PipedFile:
    """An anonymous file, and how much of it went into a pipe."""

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
        offset: Where it lies in its file.
        sent_until: How much of that file had been sent once this had been; None before.
    """

    data: npt.NDArray[np.uint8]
    offset: int
    _file: _PipedFile
    sent_until: int | None = None

    def send(self, pipe: int) -> None:
        """Hand all of it to the pipe whose descriptor is `pipe`; from then on it must not be changed.

        Raises:
            BrokenPipeError: Nobody reads it any more.
        """
        start, end = self.offset, self.offset + len(self.data)
        while start < end:
            start += os.splice(self._file.descriptor, pipe, end - start, offset_src=start)
        self._file.sent_bytes += len(self.data)
        self.sent_until = self._file.sent_bytes


class FrameMemory:
    """Buffers for frames of one size, each filled again when no pipe can still hold a part of it.

    A pipe holds the pages themselves until they are read: those of a buffer are out of it when `PIPE_BYTES` more have
    been sent.

    Args:
        frame_bytes: Of one frame.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._buffers: deque[SharedBuffer] = deque()  # in the order in which they were taken
        self._file = _PipedFile()

    @staticmethod
    def usable() -> bool:
        """Whether this system can hand pages on."""
        return sys.platform == "linux"

    def take(self) -> SharedBuffer:
        """Return the buffer to fill next: one that was not sent is filled again."""
        if self._buffers and self._buffers[-1].sent_until is None:
            return self._buffers[-1]
        oldest = self._buffers[0].sent_until if self._buffers else None
        if oldest is not None and self._file.sent_bytes - oldest >= PIPE_BYTES:
            buffer = self._buffers.popleft()
            buffer.sent_until = None
        else:
            buffer = self._another()
        self._buffers.append(buffer)
        return buffer

    def _another(self) -> SharedBuffer:
        file, page = self._file, mmap.ALLOCATIONGRANULARITY
        offset = file.bytes
        file.bytes += -(-self._frame_bytes // page) * page
        os.ftruncate(file.descriptor, file.bytes)
        mapped = mmap.mmap(file.descriptor, self._frame_bytes, offset=offset)
        return SharedBuffer(np.frombuffer(mapped, np.uint8), offset, file)
