"""Handle SIGTERM and SIGHUP like Ctrl-C: raise KeyboardInterrupt in the main thread, so that commands clean up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Final, Self

__all__ = ["TERMINATING", "Interruption", "hold_interruptions"]

TERMINATING: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals of `docker stop`, systemd, `timeout` and of a terminal that is closed; Windows has no SIGHUP."""


class Interruption:
    """Context manager that raises KeyboardInterrupt in the main thread on SIGTERM and SIGHUP.

    Only the first signal counts. Later ones are ignored, so that they do not disturb the clean-up: systemd may send
    both. A signal that was already ignored when the process started stays ignored, such as SIGHUP under `nohup`.

    Attributes:
        received: Number of the received signal; None if no signal was received.

    Example:
        >>> with Interruption() as interruption:
        ...     print(interruption.exit_status)
        130
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in TERMINATING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._former[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    @property
    def exit_status(self) -> int:
        """Exit status of an interrupted command: 128 + the signal's number; 130 (Ctrl-C) if `received` is None."""
        return 128 + (signal.SIGINT if self.received is None else self.received)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            return
        self.received = number
        # An event loop installs a SIGINT handler. A shell's background job ignores SIGINT and then has no handler.
        if callable(handle_ctrl_c := signal.getsignal(signal.SIGINT)):
            handle_ctrl_c(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt


@contextmanager
def hold_interruptions() -> Iterator[None]:
    """Delay Ctrl-C, SIGTERM and SIGHUP until the end of the block, which must be short; then run their handlers.

    A block that starts a process needs this: after an exception in the middle of the start, nothing could end it.

    Raises:
        KeyboardInterrupt: A signal came during the block; raised at its end.
    """
    if threading.current_thread() is not threading.main_thread():  # signals raise exceptions only there
        yield
        return
    received: list[int] = []
    former: dict[int, Callable[[int, FrameType | None], object]] = {}
    try:
        for number in (signal.SIGINT, *TERMINATING):
            handler = signal.getsignal(number)
            if callable(handler):  # otherwise the signal is ignored, or ends the process at once
                former[number] = handler
                signal.signal(number, lambda signum, _frame: received.append(signum))
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        for number in received:
            former[number](number, None)
