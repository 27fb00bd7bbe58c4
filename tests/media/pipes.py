"""Frames for a FramePipe, and the check that it leaves nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.processes import children

SIZE = (64, 48)
BLACK = np.zeros((48, 64, 3), np.uint8)


@pytest.fixture(autouse=True)
def check_leftovers(tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a process, a thread or a temporary file."""
    before, threads = children(), set(threading.enumerate())
    yield
    assert children() == before
    assert set(threading.enumerate()) == threads
    assert [path.name for path in tmp_path.rglob("*.part.*")] == []


def shades(count: int) -> Iterator[np.ndarray]:
    for index in range(count):
        yield np.full((48, 64, 3), index * 4 % 256, np.uint8)
