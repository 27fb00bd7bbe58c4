"""A folder for work under way is gone whatever ends the work, and wherever in making or removing it that comes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from reel_modal.scratch import scratch_folder


class Interrupted(BaseException):
    """What a signal raises."""


def interrupted_at(step: int, work: Callable[[], None]) -> bool:
    """Do `work` with an exception before the line number `step` of all that it runs; return whether it came so far.

    It is raised where a signal's would be: in this thread, in anybody's code, once.
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
        # At one of its steps, shutil closes the same file twice then and tells of that instead.
        return True
    finally:
        sys.settrace(former)
    return False


def test_it_is_gone_wherever_an_interruption_comes(tmp_path: Path) -> None:
    def work() -> None:
        with scratch_folder(tmp_path) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "half.mp4").touch()
            (folder / "other.mp4").touch()

    steps = 0
    while interrupted_at(steps + 1, work):
        steps += 1
        assert list(tmp_path.iterdir()) == [], f"interrupted at step {steps}"
    assert list(tmp_path.iterdir()) == []
    assert steps > 50  # the making, the work and the removing all were


def test_what_the_block_raises_passes_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), scratch_folder(tmp_path) as folder:
        raise ValueError("mine")
    assert not folder.exists()


def test_where_none_can_be_made_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"), scratch_folder(tmp_path / "absent"):
        pass


def test_one_that_is_removed_already_is_no_failure(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        shutil.rmtree(folder)
    assert not folder.exists()
