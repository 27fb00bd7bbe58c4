"""How a container takes Modal's cancellation, with the real signal: the token first, an exception only at last."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from reel_modal.errors import JobCancelledError
from reel_modal.functions.context import CancellationToken

if sys.platform == "win32":
    pytest.skip("Modal's containers are Linux", allow_module_level=True)


@pytest.fixture(autouse=True)
def theirs() -> Iterator[Any]:
    """The handler that modal's runtime sets around a function."""
    from modal.exception import InputCancellation

    def cancel(_number: int, _frame: FrameType | None) -> None:
        raise InputCancellation("as modal's runtime does")

    former = signal.signal(signal.SIGUSR1, cancel)
    yield cancel
    signal.signal(signal.SIGUSR1, former)


def send_cancellation() -> None:
    """Do what modal's runtime does when it hears of one."""
    os.kill(os.getpid(), signal.SIGUSR1)


def until(token: CancellationToken) -> None:
    deadline = time.monotonic() + 30
    while not token.cancelled and time.monotonic() < deadline:
        time.sleep(0.001)
    assert token.cancelled


def test_a_body_ends_between_two_frames_and_modal_hears_of_a_cancelled_input(theirs: Any) -> None:
    from modal.exception import InputCancellation

    from reel_modal.functions.container import heeding_cancellation

    def body() -> None:
        with heeding_cancellation() as token:
            assert not token.cancelled
            send_cancellation()
            until(token)
            raise JobCancelledError("cancelled between two frames", function="render_overlay")

    with pytest.raises(InputCancellation, match="between two frames"):
        body()
    assert signal.getsignal(signal.SIGUSR1) is theirs


def test_a_body_that_comes_to_no_frame_is_interrupted(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modal.exception import InputCancellation

    from reel_modal.functions import container

    monkeypatch.setattr(container, "BETWEEN_FRAMES_SECONDS", 0.01)

    def body() -> None:
        with container.heeding_cancellation():
            send_cancellation()
            time.sleep(60)

    with pytest.raises(InputCancellation, match="in the middle of a step"):
        body()
    assert signal.getsignal(signal.SIGUSR1) is theirs


def test_a_body_that_was_done_by_then_is_left_alone(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from reel_modal.functions import container

    monkeypatch.setattr(container, "BETWEEN_FRAMES_SECONDS", 0.01)
    before = threading.active_count()
    with container.heeding_cancellation() as token:
        pass
    assert not token.cancelled
    for thread in threading.enumerate():
        if thread.name == "reel_modal-cancellation":
            thread.join(30)
    assert threading.active_count() == before
    assert signal.getsignal(signal.SIGUSR1) is theirs


def test_an_error_of_the_body_stays_its_own() -> None:
    from reel_modal.functions.container import heeding_cancellation

    with pytest.raises(ValueError, match="mine"), heeding_cancellation():
        raise ValueError("mine")
