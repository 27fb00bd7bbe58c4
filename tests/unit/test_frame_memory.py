"""Memory that goes into a pipe as it is: never changed while a reader may still see it, never more than it needs."""

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

from reel_modal.frame_memory import PIPE_BYTES, FrameMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot hand pages on")


def sent_and_read(frame_bytes: int, steps: list[bool], pause_seconds: float) -> tuple[list[int], list[int], int]:
    """Fill a buffer a step and send those that are told; return what was sent, what was read, and the buffers."""
    memory, (reading, writing) = FrameMemory(frame_bytes), os.pipe()
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
def test_a_reader_sees_every_frame_as_it_was_sent(frame_bytes: int, steps: list[bool]) -> None:
    sent, read, _ = sent_and_read(frame_bytes, steps, 0.0)
    assert read == sent


@pytest.mark.parametrize(("frame_bytes", "most"), [(3_110_400, 2), (PIPE_BYTES, 2), (400_000, 4), (100_000, 12)])
def test_a_slow_reader_takes_no_more_buffers_than_a_pipe_holds(frame_bytes: int, most: int) -> None:
    sent, read, buffers = sent_and_read(frame_bytes, [True] * 40, 0.002)
    assert read == sent
    assert buffers <= most


def test_a_buffer_that_was_not_sent_is_filled_again() -> None:
    memory = FrameMemory(1000)
    first = memory.take()
    assert memory.take() is first
    assert np.shares_memory(memory.take().data, first.data)


def test_nobody_who_reads_is_a_broken_pipe() -> None:
    memory, (reading, writing) = FrameMemory(10), os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        memory.take().send(writing)
    os.close(writing)


def test_it_keeps_no_descriptor_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        FrameMemory(1000).take()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
