"""Cancellation in a container, with Modal's real signal: the token first, an exception only as a last resort."""

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
def modal_handler() -> Iterator[Any]:
    """Install the handler that modal's runtime installs around a function."""
    from modal.exception import InputCancellation

    def cancel(_number: int, _frame: FrameType | None) -> None:
        raise InputCancellation("as modal's runtime does")

    former = signal.signal(signal.SIGUSR1, cancel)
    yield cancel
    signal.signal(signal.SIGUSR1, former)


def send_cancellation() -> None:
    """Send the signal that modal's runtime sends for a cancellation."""
    os.kill(os.getpid(), signal.SIGUSR1)


def until(token: CancellationToken) -> None:
    deadline = time.monotonic() + 30
    while not token.cancelled and time.monotonic() < deadline:
        time.sleep(0.001)
    assert token.cancelled


def test_cancel_between_frames_ends_body_as_cancelled_input(modal_handler: Any) -> None:
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
    assert signal.getsignal(signal.SIGUSR1) is modal_handler


def test_cancel_blocked_body_is_interrupted(modal_handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modal.exception import InputCancellation

    from reel_modal.functions import container

    monkeypatch.setattr(container, "BETWEEN_FRAMES_SECONDS", 0.01)

    def body() -> None:
        with container.heeding_cancellation():
            send_cancellation()
            time.sleep(60)

    with pytest.raises(InputCancellation, match="in the middle of a step"):
        body()
    assert signal.getsignal(signal.SIGUSR1) is modal_handler


def test_cancel_finished_body_is_not_interrupted(modal_handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from reel_modal.functions import container

    monkeypatch.setattr(container, "BETWEEN_FRAMES_SECONDS", 0.01)
    with container.heeding_cancellation() as token:
        pass
    assert not token.cancelled
    for thread in threading.enumerate():
        if thread.name == "reel_modal-cancellation":
            thread.join(30)
            assert not thread.is_alive()
    assert signal.getsignal(signal.SIGUSR1) is modal_handler


def test_cancellation_handler_keeps_error_of_body() -> None:
    from reel_modal.functions.container import heeding_cancellation

    with pytest.raises(ValueError, match="mine"), heeding_cancellation():
        raise ValueError("mine")
