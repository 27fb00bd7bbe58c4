"""The temporary directory is removed however the work ends, also if an interruption comes while it is created or
removed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from reel_modal._support.scratch import scratch_dir


class Interrupted(BaseException):
    """Raised instead of a signal's exception."""


def interrupted_at(step: int, work: Callable[[], None]) -> bool:
    """Do `work` with an exception before the `step`-th executed line; return whether that line was reached.

    It is raised as by a signal: in this thread, in any code, once.
    """
    left = step

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if event == "line" and frame.f_code is not work.__code__:
            left -= 1
            if left == 0:
                raise Interrupted
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except (Interrupted, OSError):
        # At one of its steps, shutil then closes the same file twice and raises that error instead.
        return True
    finally:
        sys.settrace(former)
    return False


def test_scratch_dir_is_removed_after_interruption_anywhere(tmp_path: Path) -> None:
    def work() -> None:
        with scratch_dir(tmp_path) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "half.mp4").touch()
            (folder / "other.mp4").touch()

    steps = 0
    while interrupted_at(steps + 1, work):
        steps += 1
        assert list(tmp_path.iterdir()) == [], f"interrupted at step {steps}"
    assert list(tmp_path.iterdir()) == []
    assert steps > 50  # creation, work and removal were all interrupted


def test_scratch_dir_error_in_block_propagates(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), scratch_dir(tmp_path) as folder:
        raise ValueError("mine")
    assert not folder.exists()


def test_scratch_dir_in_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), scratch_dir(tmp_path / "absent"):
        pass


def test_scratch_dir_already_removed_is_accepted(tmp_path: Path) -> None:
    with scratch_dir(tmp_path) as folder:
        shutil.rmtree(folder)
    assert not folder.exists()
