"""SIGTERM and SIGHUP end a command as Ctrl-C does: by KeyboardInterrupt in the main thread, so that it cleans up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Final, Self

__all__ = ["TERMINATING", "Interruption", "hold_interruptions"]

TERMINATING: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What `docker stop`, systemd and `timeout` send, and a terminal that is closed; Windows has no SIGHUP."""


class Interruption:
    """Raises KeyboardInterrupt in the main thread on SIGTERM and SIGHUP, until its block ends.

    The first of them counts. Others are ignored, so that they do not disturb the clean-up: systemd may send both. One
    that this process was started to ignore stays ignored, as SIGHUP is below `nohup`.

    Attributes:
        received: The signal that came; None if none did.

    Example:
        >>> with Interruption() as interruption:
        ...     print(interruption.exit_status)
        130
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
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
        """The status of a command that was interrupted: 128 and the signal's number; that of Ctrl-C if none came."""
        return 128 + (signal.SIGINT if self.received is None else self.received)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            return
        self.received = number
        # An event loop handles Ctrl-C in its own way. A shell's background job ignores it, and then has no handler.
        if callable(handle_ctrl_c := signal.getsignal(signal.SIGINT)):
            handle_ctrl_c(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt


@contextmanager
def hold_interruptions() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait until the block ends, which must be short: then they do what they do.

    Starting a process is such a step: an exception in the middle of it loses the process, and with it who ends it.

    Raises:
        KeyboardInterrupt: One came, at the end of the block.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal raises anything there
        yield
        return
    received: list[int] = []
    former: dict[int, Callable[[int, FrameType | None], object]] = {}
    try:
        for number in (signal.SIGINT, *TERMINATING):
            handler = signal.getsignal(number)
            if callable(handler):  # one that ends the process at once does so here as well
                former[number] = handler
                signal.signal(number, lambda came, _frame: received.append(came))
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        for number in received:
            former[number](number, None)
