"""Frame buffers spliced into a pipe: never overwritten while readable, and no more buffers than necessary."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reel_modal.media.frame_buffers import PIPE_BYTES, FrameBufferPool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot hand pages on")


def sent_and_read(frame_bytes: int, steps: list[bool], pause_seconds: float) -> tuple[list[int], list[int], int]:
    """Fill one buffer per step and send those whose step is true; return the sent and read values, and the buffer
    count."""
    memory, (reading, writing) = FrameBufferPool(frame_bytes), os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    read: list[int] = []

    def reader() -> None:
        with os.fdopen(reading, "rb") as stream:
            while frame := stream.read(frame_bytes):
                time.sleep(pause_seconds)  # a slow reader leaves the pipe full
                assert frame == frame[:1] * frame_bytes
                read.append(frame[0])

    thread = threading.Thread(target=reader)
    thread.start()
    sent, buffers = [], set()
    try:
        for number, sends in enumerate(steps):
            buffer = memory.take()
            buffers.add(buffer.offset)
            buffer.data[:] = number % 256
            if sends:
                buffer.send(writing)
                sent.append(number % 256)
    finally:
        os.close(writing)
        thread.join()
    return sent, read, len(buffers)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([1, 100, 4096, 70_000, 1 << 20, 3_110_400]), st.lists(st.booleans(), max_size=60))
def test_frame_pool_reader_sees_every_frame_unchanged(frame_bytes: int, steps: list[bool]) -> None:
    sent, read, _ = sent_and_read(frame_bytes, steps, 0.0)
    assert read == sent


@pytest.mark.parametrize(("frame_bytes", "most"), [(3_110_400, 2), (PIPE_BYTES, 2), (400_000, 4), (100_000, 12)])
def test_frame_pool_slow_reader_needs_limited_buffers(frame_bytes: int, most: int) -> None:
    sent, read, buffers = sent_and_read(frame_bytes, [True] * 40, 0.002)
    assert read == sent
    assert buffers <= most


def test_frame_pool_reuses_a_buffer_that_was_not_sent() -> None:
    memory = FrameBufferPool(1000)
    first = memory.take()
    assert memory.take() is first
    assert np.shares_memory(memory.take().data, first.data)


def test_frame_pool_without_reader_raises_broken_pipe() -> None:
    memory, (reading, writing) = FrameBufferPool(10), os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        memory.take().send(writing)
    os.close(writing)


def test_frame_pool_keeps_no_descriptor_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        FrameBufferPool(1000).take()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
